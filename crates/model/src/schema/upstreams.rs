//! `upstreams`: virtual host names that balance over targets.

use serde_json::{Map, Value, json};

use super::checks;
use super::entity::{EntitySchema, head, tags};
use super::error::{FieldError, Path};
use super::field::{Field, each};
use super::record::{EntityCheck, Match, Record};
use crate::Kind;

const HASH_ON: &[&str] = &[
    "none",
    "consumer",
    "ip",
    "header",
    "cookie",
    "path",
    "query_arg",
    "uri_capture",
];

pub(super) fn schema() -> EntitySchema {
    let hash = |name| Field::string(name).one_of(HASH_ON).default(json!("none"));
    let record = Record::new(
        head().into_iter().chain([
            Field::string("name")
                .unique()
                .check(checks::upstream_name)
                .required(),
            Field::string("algorithm")
                .one_of(&[
                    "consistent-hashing",
                    "least-connections",
                    "round-robin",
                    "latency",
                ])
                .default(json!("round-robin")),
            hash("hash_on"),
            hash("hash_fallback"),
            Field::string("hash_on_header").check(checks::header_name),
            Field::string("hash_fallback_header").check(checks::header_name),
            Field::string("hash_on_cookie").check(cookie_name),
            Field::string("hash_on_cookie_path")
                .check(checks::path)
                .default(json!("/")),
            Field::string("hash_on_query_arg").check(argument),
            Field::string("hash_fallback_query_arg").check(argument),
            Field::string("hash_on_uri_capture").check(argument),
            Field::string("hash_fallback_uri_capture").check(argument),
            Field::integer("slots")
                .between(10, 65536)
                .default(json!(10000)),
            Field::record("healthchecks", healthchecks()).required(),
            tags(),
            Field::string("host_header").check(checks::host_with_optional_port),
            Field::foreign("client_certificate", Kind::Certificate),
            Field::boolean("use_srv_name").default(json!(false)),
        ]),
    );
    EntitySchema {
        kind: Kind::Upstream,
        record: HASH_RULES.iter().cloned().fold(record, Record::check),
        endpoint_key: Some("name"),
        unique_together: &[],
        prepare: hashing_algorithm,
    }
}

/// When `input` is hashed, `field` must say which one.
const fn needs(
    if_field: &'static str,
    input: &'static [&'static str],
    field: &'static str,
) -> EntityCheck {
    EntityCheck::Conditional {
        if_field,
        if_match: Match::OneOf(input),
        then_field: field,
        then_match: Match::Set,
    }
}

/// With this `hash_on`, the fallback must be such.
const fn fallback(input: &'static [&'static str], then_match: Match) -> EntityCheck {
    EntityCheck::Conditional {
        if_field: "hash_on",
        if_match: Match::OneOf(input),
        then_field: "hash_fallback",
        then_match,
    }
}

const HASH_RULES: &[EntityCheck] = &[
    needs("hash_on", &["header"], "hash_on_header"),
    needs("hash_fallback", &["header"], "hash_fallback_header"),
    needs("hash_on", &["cookie"], "hash_on_cookie"),
    needs("hash_fallback", &["cookie"], "hash_on_cookie"),
    needs("hash_on", &["cookie"], "hash_on_cookie_path"),
    needs("hash_fallback", &["cookie"], "hash_on_cookie_path"),
    needs("hash_on", &["query_arg"], "hash_on_query_arg"),
    needs("hash_fallback", &["query_arg"], "hash_fallback_query_arg"),
    needs("hash_on", &["uri_capture"], "hash_on_uri_capture"),
    needs(
        "hash_fallback",
        &["uri_capture"],
        "hash_fallback_uri_capture",
    ),
    // A missing cookie is created, so there is nothing to fall back from.
    fallback(&["none", "cookie"], Match::OneOf(&["none"])),
    fallback(&["consumer"], Match::Not("consumer")),
    fallback(&["ip"], Match::Not("ip")),
    fallback(&["path"], Match::Not("path")),
    EntityCheck::Custom {
        fields: &[
            "hash_on_header",
            "hash_fallback_header",
            "hash_on_query_arg",
            "hash_fallback_query_arg",
            "hash_on_uri_capture",
            "hash_fallback_uri_capture",
        ],
        run: distinct,
    },
];

fn distinct(upstream: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    for what in ["header", "query_arg", "uri_capture"] {
        let (on, fallback) = (format!("hash_on_{what}"), format!("hash_fallback_{what}"));
        if !upstream[&on].is_null() && upstream[&on] == upstream[&fallback] {
            let message = format!("values of these fields must be distinct: '{on}', '{fallback}'");
            errors.push(FieldError::entity(path.clone(), message));
        }
    }
}

/// Hashing has an effect only with the algorithm that hashes: `hash_on` chooses it.
fn hashing_algorithm(body: &mut Map<String, Value>, _: &mut Vec<FieldError>) {
    let hashes = body
        .get("hash_on")
        .and_then(Value::as_str)
        .is_some_and(|input| input != "none" && HASH_ON.contains(&input));
    if hashes {
        body.insert("algorithm".to_owned(), json!("consistent-hashing"));
    }
}

fn cookie_name(value: &Value) -> Result<(), String> {
    checks::header_name(value).map_err(|_| "invalid cookie name".to_owned())
}

/// A name of a query argument or of a capture: anything that can be seen.
fn argument(value: &Value) -> Result<(), String> {
    match value
        .as_str()
        .is_some_and(|text| text.chars().any(char::is_control))
    {
        true => Err("must not contain control characters".to_owned()),
        false => Ok(()),
    }
}

fn healthchecks() -> Record {
    Record::new([
        Field::record("active", active()).required(),
        Field::record("passive", passive()).required(),
        Field::number("threshold").between(0, 100).default(json!(0)),
    ])
}

fn active() -> Record {
    Record::new([
        kind(),
        Field::number("timeout").between(0, 65535).default(json!(1)),
        Field::integer("concurrency")
            .between(1, 2_147_483_648)
            .default(json!(10)),
        Field::string("http_path")
            .check(checks::path)
            .default(json!("/")),
        Field::string("https_sni").check(checks::sni),
        Field::boolean("https_verify_certificate")
            .required()
            .default(json!(true)),
        Field::map(
            "headers",
            each::string().check(checks::header_name),
            each::array(each::string()),
        ),
        Field::record(
            "healthy",
            Record::new([interval(), statuses(&[200, 302]), counter("successes")]),
        )
        .required(),
        Field::record(
            "unhealthy",
            Record::new([
                interval(),
                statuses(&[429, 404, 500, 501, 502, 503, 504, 505]),
                counter("tcp_failures"),
                counter("timeouts"),
                counter("http_failures"),
            ]),
        )
        .required(),
    ])
}

fn passive() -> Record {
    let fine = [
        200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307,
        308,
    ];
    Record::new([
        kind(),
        Field::record(
            "healthy",
            Record::new([statuses(&fine), counter("successes")]),
        )
        .required(),
        Field::record(
            "unhealthy",
            Record::new([
                statuses(&[429, 500, 503]),
                counter("tcp_failures"),
                counter("timeouts"),
                counter("http_failures"),
            ]),
        )
        .required(),
    ])
}

fn kind() -> Field {
    Field::string("type")
        .one_of(&["tcp", "http", "https", "grpc", "grpcs"])
        .default(json!("http"))
}

fn interval() -> Field {
    Field::number("interval")
        .between(0, 65535)
        .default(json!(0))
}

fn counter(name: &'static str) -> Field {
    Field::integer(name).between(0, 255).default(json!(0))
}

fn statuses(default: &[u16]) -> Field {
    Field::array("http_statuses", each::integer().between(100, 999)).default(json!(default))
}
