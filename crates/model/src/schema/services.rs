//! `services`: APIs behind the gateway.

use serde_json::{Map, Value, json};

use super::checks;
use super::entity::{EntitySchema, head, tags};
use super::error::{FieldError, Path};
use super::field::{Field, each};
use super::record::{EntityCheck, Match, Record};
use crate::Kind;

/// What a service or a route may speak.
pub(super) const PROTOCOLS: &[&str] = &[
    "grpc",
    "grpcs",
    "http",
    "https",
    "tcp",
    "tls",
    "tls_passthrough",
    "udp",
];

pub(super) fn schema() -> EntitySchema {
    let timeout = |name| {
        Field::integer(name)
            .between(1, 2_147_483_646)
            .default(json!(60000))
    };
    let record = Record::new(
        head().into_iter().chain([
            Field::string("name").unique().check(checks::name),
            Field::integer("retries")
                .between(0, 32767)
                .default(json!(5)),
            Field::string("protocol")
                .one_of(PROTOCOLS)
                .required()
                .default(json!("http")),
            Field::string("host").check(checks::host).required(),
            Field::integer("port")
                .between(0, 65535)
                .required()
                .default(json!(80)),
            Field::string("path").check(checks::path),
            timeout("connect_timeout"),
            timeout("write_timeout"),
            timeout("read_timeout"),
            tags(),
            Field::foreign("client_certificate", Kind::Certificate),
            Field::boolean("tls_verify"),
            Field::integer("tls_verify_depth").between(0, 64),
            Field::array("ca_certificates", each::uuid()),
            Field::boolean("enabled").required().default(json!(true)),
        ]),
    )
    .check(EntityCheck::Conditional {
        if_field: "protocol",
        if_match: Match::OneOf(&["tcp", "tls", "tls_passthrough", "udp", "grpc", "grpcs"]),
        then_field: "path",
        then_match: Match::Null,
    });
    let record = ["tls_verify", "tls_verify_depth", "ca_certificates"]
        .into_iter()
        .fold(record, |record, field| {
            record.check(EntityCheck::Conditional {
                if_field: "protocol",
                if_match: Match::NoneOf(&["https", "tls"]),
                then_field: field,
                then_match: Match::Null,
            })
        });
    EntitySchema {
        kind: Kind::Service,
        record,
        endpoint_key: Some("name"),
        unique_together: &[],
        prepare: expand_url,
    }
}

/// Writes the parts of the shorthand `url` over `protocol`, `host`, `port` and `path`.
fn expand_url(body: &mut Map<String, Value>, errors: &mut Vec<FieldError>) {
    let text = match body.remove("url") {
        None | Some(Value::Null) => return,
        Some(Value::String(text)) => text,
        Some(_) => {
            errors.push(FieldError::field(
                Path::root().key("url"),
                "expected a string",
            ));
            return;
        }
    };
    let Some(url) = split_url(&text) else {
        let message = format!("invalid url '{text}': expected protocol://host[:port][/path]");
        errors.push(FieldError::field(Path::root().key("url"), message));
        // Otherwise the missing host would be reported as well.
        body.entry("host").or_insert_with(|| json!("invalid.url"));
        return;
    };
    body.insert("protocol".to_owned(), json!(url.protocol));
    body.insert("host".to_owned(), json!(url.host));
    body.insert("port".to_owned(), json!(url.port));
    body.insert("path".to_owned(), json!(url.path));
}

struct Url<'a> {
    protocol: &'a str,
    host: &'a str,
    port: u16,
    path: Option<&'a str>,
}

fn split_url(text: &str) -> Option<Url<'_>> {
    let (protocol, rest) = text.split_once("://")?;
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], Some(&rest[at..])),
        None => (rest, None),
    };
    let extra = |part: &str| part.contains(['?', '#']);
    if authority.contains('@') || extra(authority) || path.is_some_and(extra) {
        return None;
    }
    let default_port = match protocol {
        "https" | "grpcs" | "tls" => 443,
        _ => 80,
    };
    // The colons of an IPv6 address are inside brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default_port),
    };
    (!host.is_empty()).then_some(Url {
        protocol,
        host,
        port,
        path,
    })
}
