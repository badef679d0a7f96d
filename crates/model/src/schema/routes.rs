//! `routes`: rules that match requests.

use serde_json::{Map, Value, json};

use super::checks;
use super::entity::{EntitySchema, head, tags};
use super::error::{FieldError, Path};
use super::field::{Field, each};
use super::record::{EntityCheck, Record};
use super::services::PROTOCOLS;
use crate::expression::{Expression, Subsystem};
use crate::{Kind, RouterFlavor};

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
                each::array(each::string().check(checks::route_header_value)).len(1, usize::MAX),
            ),
            // The router has 32 bits for it.
            Field::integer("regex_priority")
                .between(-2_147_483_648, 2_147_483_647)
                .default(json!(0)),
            Field::string("path_handling")
                .one_of(&["v0", "v1"])
                .default(json!("v0")),
            // Both only with flavour `expressions`. Kong's `priority` has the default 0; here it
            // has none, so that gateways of the other flavours never see the field.
            Field::string("expression"),
            Field::integer("priority").between(0, PRIORITY_MAX),
        ]),
    )
    .check(EntityCheck::Custom {
        fields: MATCHERS,
        run: by_protocol,
    })
    .check(EntityCheck::Custom {
        fields: EXPRESSION,
        run: expression,
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
    "expression",
];

/// What the rules of expressions look at.
const EXPRESSION: &[&str] = &[
    "protocols",
    "methods",
    "hosts",
    "headers",
    "paths",
    "snis",
    "sources",
    "destinations",
    "regex_priority",
    "expression",
    "priority",
];

/// Kong keeps the upper bits for itself.
const PRIORITY_MAX: i64 = (1 << 46) - 1;

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

fn is_set(value: &Value) -> bool {
    match value {
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(_) => true,
        _ => false,
    }
}

fn quoted(list: &[&str]) -> String {
    let quoted: Vec<_> = list.iter().map(|name| format!("'{name}'")).collect();
    quoted.join(", ")
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// An expression stands alone and can be read; without one there is no `priority`. Source: Kong's
/// route schema.
fn expression(route: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    const OTHERS: &str =
        "'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations'";
    let mut conflict = |field: &str, with: &str| {
        let message = format!(
            "Router Expression failed validation: cannot set '{field}' with {with} simultaneously"
        );
        errors.push(FieldError::entity(path.clone(), message));
    };
    let traditional = [
        "methods",
        "hosts",
        "paths",
        "headers",
        "snis",
        "sources",
        "destinations",
    ];
    let traditional = traditional.iter().any(|name| is_set(&route[*name]));
    let nonzero = |name: &str| route[name].as_i64().is_some_and(|number| number != 0);
    let Some(text) = route["expression"].as_str() else {
        if traditional && nonzero("priority") {
            conflict("priority", OTHERS);
        }
        return;
    };
    if traditional {
        conflict("expression", OTHERS);
    }
    if nonzero("regex_priority") {
        conflict("regex_priority", "'expression'");
    }
    let stream = |name: &&str| matches!(*name, "tcp" | "tls" | "udp" | "tls_passthrough");
    let subsystem = match names(&route["protocols"]).first().is_some_and(stream) {
        true => Subsystem::Stream,
        false => Subsystem::Http,
    };
    if let Err(error) = Expression::parse(text, subsystem) {
        let message = format!("Router Expression failed validation: {error}");
        errors.push(FieldError::field(path.key("expression"), message));
    }
}

/// What the flavour of a node's router cannot do with a route. Without a node (`None`), what
/// Kong's default flavour cannot do is refused, except expressions.
pub(super) fn by_flavor(flavor: Option<RouterFlavor>, route: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut refuse = |field: &str, message: String| {
        errors.push(FieldError::field(Path::root().key(field), message));
    };
    if flavor == Some(RouterFlavor::Expressions) {
        return errors;
    }
    let protocols = names(&route["protocols"]);
    let http = ["http", "https", "grpc", "grpcs"];
    for field in ["sources", "destinations"] {
        if is_set(&route[field]) && protocols.iter().any(|name| http.contains(name)) {
            let shown = quoted(&protocols);
            refuse(
                field,
                format!("cannot set '{field}' when 'protocols' is {shown}"),
            );
        }
    }
    if let Some(flavor) = flavor
        && is_set(&route["expression"])
    {
        let message = format!(
            "is for gateways with router_flavor = expressions, this one has {}",
            flavor.as_str()
        );
        refuse("expression", message);
    }
    if flavor == Some(RouterFlavor::Traditional)
        && let Some(sni) = names(&route["snis"]).iter().find(|sni| sni.contains('*'))
    {
        let message = format!(
            "'{sni}': a wildcard needs router_flavor = traditional_compatible or expressions"
        );
        refuse("snis", message);
    }
    errors
}

/// Which matchers a protocol needs and which it cannot have. Source: Kong's route subschemas;
/// see also [`by_flavor`].
fn by_protocol(route: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let has = |name: &str| is_set(&route[name]);
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
        ("http", false) => (&["methods", "hosts", "headers", "paths"], &[]),
        ("http", true) => (&["methods", "hosts", "headers", "paths", "snis"], &[]),
        ("grpc", false) => (&["hosts", "headers", "paths"], &["methods"]),
        ("grpc", true) => (&["hosts", "headers", "paths", "snis"], &["methods"]),
        ("tls_passthrough", _) => (&["snis"], &["methods", "hosts", "headers", "paths"]),
        _ => (
            &["sources", "destinations", "snis"],
            &["methods", "hosts", "headers", "paths"],
        ),
    };
    let shown = quoted(&protocols);
    if !has("expression") && !needed.iter().any(|name| has(name)) {
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
