//! What the schema knows and this build's gateway does not act on yet.
//!
//! Such a value would be stored and sent out, and then have no effect; it is refused by name
//! instead. A line goes away when the gateway learns it.

use serde_json::Value;

use super::error::{FieldError, Path};
use crate::Kind;

/// Fields of a checked entity whose values this build's gateway would not act on.
pub fn unserved(kind: Kind, entity: &Value) -> Vec<FieldError> {
    match kind {
        Kind::Service => service(entity),
        Kind::Route => route(entity),
        Kind::Upstream => upstream(entity),
        Kind::Certificate => certificate(entity),
        _ => Vec::new(),
    }
}

fn unsupported(field: &str, message: impl Into<String>) -> FieldError {
    let path = field
        .split('.')
        .fold(Path::root(), |path, part| path.key(part));
    FieldError::field(path, message)
}

fn service(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(protocol) = service["protocol"].as_str().filter(|p| !is_served(p)) {
        errors.push(unsupported("protocol", unserved_protocol(protocol)));
    }
    errors
}

fn route(route: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let protocols = route["protocols"].as_array().into_iter().flatten();
    if let Some(protocol) = protocols.filter_map(Value::as_str).find(|p| !is_served(p)) {
        errors.push(unsupported("protocols", unserved_protocol(protocol)));
    }
    errors
}

fn upstream(upstream: &Value) -> Vec<FieldError> {
    let active = &upstream["healthchecks"]["active"];
    let probes = |state: &str| active[state]["interval"].as_f64().unwrap_or_default() > 0.0;
    match active["type"].as_str() {
        Some(kind @ ("grpc" | "grpcs")) if probes("healthy") || probes("unhealthy") => {
            let message = format!(
                "'{kind}' probes are not supported by this build; use http, https or tcp, \
                 or leave both intervals 0"
            );
            vec![unsupported("healthchecks.active.type", message)]
        }
        _ => Vec::new(),
    }
}

/// A reference would reach the gateway as it is, and nothing there could read it.
fn certificate(certificate: &Value) -> Vec<FieldError> {
    let fields = ["cert", "key", "cert_alt", "key_alt"].into_iter();
    let refers = |field: &&str| {
        let text = certificate[*field].as_str();
        text.is_some_and(|text| text.starts_with("{vault://"))
    };
    let message = "references to vaults are not supported by this build; give PEM text";
    fields
        .filter(refers)
        .map(|field| unsupported(field, message))
        .collect()
}

fn is_served(protocol: &str) -> bool {
    !matches!(protocol, "grpc" | "grpcs")
}

fn unserved_protocol(protocol: &str) -> String {
    format!("'{protocol}' is not supported by this build")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(kind: Kind, entity: Value, expected: &[&str]) {
        let found: Vec<_> = unserved(kind, &entity)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{expected:?} is not in {found:?}");
        }
    }

    #[test]
    fn what_has_no_effect_is_named() {
        check(Kind::Service, json!({"protocol": "https"}), &[]);
        check(
            Kind::Service,
            json!({"protocol": "grpc"}),
            &["protocol: 'grpc' is not supported"],
        );
        check(
            Kind::Certificate,
            json!({"cert": "{vault://env/cert}", "key": "{vault://env/key}", "key_alt": null}),
            &["cert: references", "key: references"],
        );
        check(
            Kind::Route,
            json!({"protocols": ["http"], "sources": []}),
            &[],
        );
        check(
            Kind::Route,
            json!({"protocols": ["tcp"], "sources": [{"ip": "1.2.3.4"}]}),
            &[],
        );
        check(
            Kind::Route,
            json!({"protocols": ["grpcs"]}),
            &["protocols: 'grpcs'"],
        );
        check(
            Kind::Upstream,
            json!({"algorithm": "latency", "use_srv_name": true,
                   "healthchecks": {"active": {"type": "grpc", "healthy": {"interval": 0}}}}),
            &[],
        );
        check(
            Kind::Upstream,
            json!({"healthchecks": {"active": {"type": "https", "healthy": {"interval": 1}}}}),
            &[],
        );
        check(
            Kind::Upstream,
            json!({"healthchecks": {"active": {"type": "grpcs", "unhealthy": {"interval": 1}}}}),
            &["healthchecks.active.type: 'grpcs' probes are not supported"],
        );
    }
}
