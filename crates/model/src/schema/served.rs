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
    if let Some(protocol) = service["protocol"].as_str().filter(|p| !is_http(p)) {
        errors.push(unsupported("protocol", only_http(protocol)));
    }
    if !service["tls_verify_depth"].is_null() {
        let message = "a limit on the depth is not supported by this build; leave it unset";
        errors.push(unsupported("tls_verify_depth", message));
    }
    errors
}

fn route(route: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let protocols = route["protocols"].as_array().into_iter().flatten();
    if let Some(protocol) = protocols.filter_map(Value::as_str).find(|p| !is_http(p)) {
        errors.push(unsupported("protocols", only_http(protocol)));
    }
    errors
}

fn is_http(protocol: &str) -> bool {
    matches!(protocol, "http" | "https" | "grpc" | "grpcs")
}

fn only_http(protocol: &str) -> String {
    format!(
        "'{protocol}' is not supported by this build, only 'http', 'https', 'grpc' and 'grpcs' are"
    )
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
            json!({"protocol": "tcp"}),
            &["protocol: 'tcp' is not supported"],
        );
        check(
            Kind::Service,
            json!({"tls_verify_depth": 2}),
            &["tls_verify_depth: "],
        );
        check(
            Kind::Route,
            json!({"protocols": ["http"], "sources": []}),
            &[],
        );
        check(
            Kind::Route,
            json!({"protocols": ["tcp"], "sources": [{"ip": "1.2.3.4"}]}),
            &["protocols: 'tcp'"],
        );
        check(
            Kind::Upstream,
            json!({"algorithm": "latency", "use_srv_name": true,
                   "healthchecks": {"active": {"type": "grpc", "healthy": {"interval": 1}}}}),
            &[],
        );
        check(
            Kind::Upstream,
            json!({"healthchecks": {"active": {"type": "https", "healthy": {"interval": 1}}}}),
            &[],
        );
    }
}
