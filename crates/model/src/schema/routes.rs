//! `routes`: rules that match requests.

use serde_json::{Map, Value, json};

use super::checks;
use super::entity::{EntitySchema, head, tags};
use super::error::{FieldError, Path};
use super::field::{Field, each};
use super::record::{EntityCheck, Record};
use super::services::PROTOCOLS;
use crate::Kind;

pub(super) fn schema() -> EntitySchema {
    let flag = |name, default: bool| Field::boolean(name).required().default(json!(default));
    let peers = |name| Field::set(name, each::record(peer()));
    let record = Record::new(
        head().into_iter().chain([
            Field::string("name").unique().check(checks::name),
            Field::set("protocols", each::string().one_of(PROTOCOLS))
                .len(1, PROTOCOLS.len())
                .check(one_family)
                .required()
                .default(json!(["http", "https"])),
            Field::integer("https_redirect_status_code")
                .one_of_numbers(&[426, 301, 302, 307, 308])
                .required()
                .default(json!(426)),
            flag("strip_path", true),
            flag("preserve_host", false),
            flag("request_buffering", true),
            flag("response_buffering", true),
            tags(),
            Field::foreign("service", Kind::Service),
            Field::set("snis", each::string().check(checks::sni)),
            peers("sources"),
            peers("destinations"),
            Field::set("methods", each::string().check(checks::method)),
            Field::array("hosts", each::string().check(checks::wildcard_host_port)),
            Field::array("paths", each::string().check(checks::route_path)),
            Field::map(
                "headers",
                each::string().check(header_key),
                each::array(each::string()).len(1, usize::MAX),
            ),
            // The router has 32 bits for it.
            Field::integer("regex_priority")
                .between(-2_147_483_648, 2_147_483_647)
                .default(json!(0)),
            Field::string("path_handling")
                .one_of(&["v0", "v1"])
                .default(json!("v0")),
        ]),
    )
    .check(EntityCheck::Custom {
        fields: MATCHERS,
        run: by_protocol,
    });
    EntitySchema {
        kind: Kind::Route,
        record,
        endpoint_key: Some("name"),
        unique_together: &[],
        prepare: keep_grpc_path,
    }
}

/// What the rules by protocol look at.
const MATCHERS: &[&str] = &[
    "protocols",
    "strip_path",
    "methods",
    "hosts",
    "headers",
    "paths",
    "snis",
    "sources",
    "destinations",
];

fn peer() -> Record {
    Record::new([
        Field::string("ip").check(checks::ip_or_cidr),
        Field::integer("port").between(0, 65535),
    ])
    .check(EntityCheck::AtLeastOneOf(&["ip", "port"]))
}

fn header_key(value: &Value) -> Result<(), String> {
    if value
        .as_str()
        .is_some_and(|name| name.eq_ignore_ascii_case("host"))
    {
        return Err(
            "cannot contain 'host' header, which must be specified in the 'hosts' \
                    attribute"
                .to_owned(),
        );
    }
    checks::header_name(value)
}

/// A path sent to gRPC is a method name: `strip_path` is false there unless somebody insists,
/// which is then an error.
fn keep_grpc_path(body: &mut Map<String, Value>, _: &mut Vec<FieldError>) {
    let grpc = body
        .get("protocols")
        .and_then(Value::as_array)
        .is_some_and(|list| {
            list.iter()
                .any(|protocol| matches!(protocol.as_str(), Some("grpc" | "grpcs")))
        });
    if grpc && body.get("strip_path").is_none_or(Value::is_null) {
        body.insert("strip_path".to_owned(), json!(false));
    }
}

/// Protocols that may stand together.
const FAMILIES: [&[&str]; 4] = [
    &["http", "https"],
    &["tcp", "tls", "udp"],
    &["tls_passthrough"],
    &["grpc", "grpcs"],
];

fn one_family(value: &Value) -> Result<(), String> {
    let list: Vec<&str> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let used = FAMILIES
        .iter()
        .filter(|family| list.iter().any(|name| family.contains(name)));
    match used.count() {
        0 | 1 => Ok(()),
        _ => Err(
            "these sets are mutually exclusive: ('http', 'https'), ('tcp', 'tls', 'udp'), \
                  ('tls_passthrough'), ('grpc', 'grpcs')"
                .to_owned(),
        ),
    }
}

/// Which matchers a protocol needs and which it cannot have. Source: Kong's route subschemas,
/// flavour `traditional_compatible`.
fn by_protocol(route: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let has = |name: &str| match &route[name] {
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => false,
    };
    let protocols: Vec<&str> = route["protocols"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let Some(family) = FAMILIES.iter().find(|family| {
        protocols
            .first()
            .is_some_and(|protocol| family.contains(protocol))
    }) else {
        return;
    };
    let tls = protocols
        .iter()
        .any(|protocol| matches!(*protocol, "https" | "grpcs" | "tls" | "tls_passthrough"));
    let (needed, forbidden): (&[&str], &[&str]) = match (family[0], tls) {
        ("http", false) => (
            &["methods", "hosts", "headers", "paths"],
            &["sources", "destinations"],
        ),
        ("http", true) => (
            &["methods", "hosts", "headers", "paths", "snis"],
            &["sources", "destinations"],
        ),
        ("grpc", false) => (
            &["hosts", "headers", "paths"],
            &["methods", "sources", "destinations"],
        ),
        ("grpc", true) => (
            &["hosts", "headers", "paths", "snis"],
            &["methods", "sources", "destinations"],
        ),
        ("tls_passthrough", _) => (&["snis"], &["methods", "hosts", "headers", "paths"]),
        _ => (
            &["sources", "destinations", "snis"],
            &["methods", "hosts", "headers", "paths"],
        ),
    };
    let quoted = |list: &[&str]| {
        list.iter()
            .map(|name| format!("'{name}'"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let shown = quoted(&protocols);
    if !needed.iter().any(|name| has(name)) {
        let message = format!(
            "must set one of {} when 'protocols' is {shown}",
            quoted(needed)
        );
        errors.push(FieldError::entity(path.clone(), message));
    }
    for name in forbidden.iter().filter(|name| has(name)) {
        let message = format!("cannot set '{name}' when 'protocols' is {shown}");
        errors.push(FieldError::field(path.key(name), message));
    }
    if has("snis") && !tls {
        let message = "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or \
                       'tls_passthrough'";
        errors.push(FieldError::entity(path.clone(), message));
    }
    if family[0] == "grpc" && route["strip_path"] == json!(true) {
        let message = format!("cannot set 'strip_path' when 'protocols' is {shown}");
        errors.push(FieldError::field(path.key("strip_path"), message));
    }
}
