//! The answer that shows the request. Source: `echo` of Kong's `request-termination` handler.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use crate::arrival::Arrival;
use crate::exchange::{Captures, Exchange, RequestBody};
use crate::listed::{Secrets, arguments, headers};
use crate::node::Facts;

/// Most bytes of a body that are shown.
pub(super) const SHOWN_MAX: u64 = 1 << 20;

/// The answer, as JSON.
pub(super) fn shown(
    message: Option<&str>,
    exchange: &Exchange,
    arrival: &Arrival<'_>,
    node: &Facts,
) -> String {
    let request = &exchange.request;
    let raw_body = match &exchange.body {
        RequestBody::Here(bytes) => bytes.clone(),
        RequestBody::Coming(_) | RequestBody::TooLarge => Bytes::new(),
    };
    let content_type = request.headers.get_str(&CONTENT_TYPE).unwrap_or_default();
    let mut shown = json!({
        "kong": {
            "node_id": node.id,
            "worker_pid": std::process::id(),
            "hostname": node.hostname,
        },
        "request": {
            "scheme": if arrival.tls { "https" } else { "http" },
            "host": arrival.host,
            "port": arrival.address.port(),
            "headers": headers(&request.headers, Secrets::Told),
            "query": arguments(request.uri.query().unwrap_or_default()),
            "method": request.method.as_str(),
            "path": arrival.path,
            "uri_captures": captures(&exchange.uri_captures),
        },
    });
    let members = |value: &mut Value, new: Vec<(&str, Option<Value>)>| {
        for (name, member) in new {
            if let Some(member) = member {
                value[name] = member;
            }
        }
    };
    let text = match exchange.body {
        RequestBody::TooLarge => None,
        _ => Some(json!(String::from_utf8_lossy(&raw_body))),
    };
    let request = &mut shown["request"];
    members(
        request,
        vec![("raw_body", text), ("body", body(content_type, &raw_body))],
    );
    let entity = |entity: Option<crate::Entity<'_>>| serde_json::to_value(entity?).ok();
    members(
        &mut shown,
        vec![
            ("message", message.map(Value::from)),
            ("matched_route", entity(arrival.route)),
            ("matched_service", entity(arrival.service)),
        ],
    );
    shown.to_string()
}

/// Groups by place, without the whole match, and by name.
fn captures(captures: &Captures) -> Value {
    let named: Map<String, Value> = captures
        .named
        .iter()
        .map(|(name, text)| (name.clone(), json!(text)))
        .collect();
    json!({"unnamed": captures.indexed.iter().skip(1).collect::<Vec<_>>(), "named": named})
}

/// What a body says, where it is JSON or a form.
fn body(content_type: &str, bytes: &[u8]) -> Option<Value> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    match kind.to_ascii_lowercase().as_str() {
        "application/json" => {
            let value = serde_json::from_slice::<Value>(bytes).ok()?;
            (value.is_object() || value.is_array()).then_some(value)
        }
        "application/x-www-form-urlencoded" => {
            let text = std::str::from_utf8(bytes).ok()?;
            serde_json::to_value(arguments(text)).ok()
        }
        _ => None,
    }
}
