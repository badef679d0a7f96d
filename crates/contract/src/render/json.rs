//! JSON for machines; the field names are stable within a `format_version`.

use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::entry::{Direction, Owner, Role, Tls};
use crate::port::Flow;
use crate::row::Row;

/// Version of the JSON shape: raised when a field changes its meaning or goes away.
pub const FORMAT_VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    format_version: u32,
    catalogue: &'a str,
    title: &'a str,
    rows: Vec<JsonRow<'a>>,
}

/// Every field is always there; what does not apply is `null` or `[]`.
#[derive(Serialize)]
struct JsonRow<'a> {
    id: &'a str,
    title: &'a str,
    flows: Vec<JsonFlow>,
    from: &'a [Role],
    to: &'a [Role],
    direction: Option<Direction>,
    protocol: &'a str,
    tls: Tls,
    certificate: Option<&'a str>,
    hosts: &'a [String],
    aliases: Vec<String>,
    addresses: &'a [std::net::IpAddr],
    geos: &'a [String],
    peer: Option<&'a str>,
    required: bool,
    when: Option<&'a str>,
    feature: Option<&'a str>,
    owner: Owner,
    setting: Option<&'a str>,
    loopback: bool,
    why: &'a str,
    source: &'a [String],
}

#[derive(Serialize)]
struct JsonFlow {
    transport: &'static str,
    port: Option<u16>,
}

/// The rows as a JSON document, indented, with a newline at the end.
///
/// `{"format_version": 1, "catalogue", "title", "rows": [..]}`; each row has `id`, `title`, `flows`
/// (`{"transport": "tcp"|"udp"|"icmp", "port": 1..65535|null}`), `from`, `to` (role names),
/// `direction` (`inbound`, `outbound`, `both`, or `null` unless filtered by role), `protocol`, `tls`,
/// `certificate`, `hosts`, `aliases`, `addresses`, `geos`, `peer`, `required`, `when`, `feature`,
/// `owner`, `setting`, `loopback`, `why`, `source`.
pub fn json(catalogue: &Catalogue, rows: &[Row<'_>]) -> String {
    let rows = rows.iter().map(|row| json_row(catalogue, row)).collect();
    let document = Document {
        format_version: FORMAT_VERSION,
        catalogue: &catalogue.name,
        title: &catalogue.title,
        rows,
    };
    let mut text = serde_json::to_string_pretty(&document)
        .expect("strings, numbers and lists always become JSON");
    text.push('\n');
    text
}

fn json_row<'a>(catalogue: &'a Catalogue, row: &'a Row<'_>) -> JsonRow<'a> {
    let entry = row.entry;
    let with_geo = entry.hosts.iter().any(|host| host.has_geo());
    JsonRow {
        id: entry.id.as_str(),
        title: &entry.title,
        flows: row.flows.iter().map(json_flow).collect(),
        from: &row.from,
        to: &row.to,
        direction: row.direction,
        protocol: &entry.protocol,
        tls: entry.tls,
        certificate: entry.certificate.as_deref(),
        hosts: &row.hosts,
        aliases: entry.aliases.iter().map(ToString::to_string).collect(),
        addresses: &entry.addresses,
        geos: if with_geo {
            catalogue.geos_of(entry)
        } else {
            &[]
        },
        peer: entry.peer.as_deref(),
        required: entry.required,
        when: entry.when.as_deref(),
        feature: entry.feature.as_deref(),
        owner: entry.owner,
        setting: entry.setting.as_deref(),
        loopback: entry.loopback,
        why: &entry.why,
        source: &entry.source,
    }
}

fn json_flow(flow: &Flow) -> JsonFlow {
    match flow {
        Flow::Port(port) => JsonFlow {
            transport: port.transport.as_str(),
            port: Some(port.port.get()),
        },
        Flow::IcmpEcho => JsonFlow {
            transport: "icmp",
            port: None,
        },
    }
}
