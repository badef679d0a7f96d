//! What the schema knows and this build's gateway does not act on yet.
//!
//! Such a value would be stored and sent out, and then have no effect; it is refused by name
//! instead. A line goes away when the gateway learns it.

use serde_json::Value;

use super::error::{FieldError, Path};
use crate::Kind;

/// Fields of a checked entity whose values this build's gateway would not act on.
pub fn unserved(kind: Kind, entity: &Value) -> Vec<FieldError> {
    let mut found = Vec::new();
    match kind {
        Kind::Certificate => {
            for field in ["cert", "key", "cert_alt", "key_alt"] {
                references(&entity[field], Path::root().key(field), &mut found);
            }
        }
        Kind::Plugin => references(&entity["config"], Path::root().key("config"), &mut found),
        _ => {}
    }
    found
}

/// Every reference to a vault in a value: it would reach the gateway as it is, and there it would
/// be taken for the secret itself.
fn references(value: &Value, path: Path, found: &mut Vec<FieldError>) {
    const MESSAGE: &str = "references to vaults are not supported by this build; give the value";
    match value {
        Value::String(text) if text.starts_with("{vault://") && text.ends_with('}') => {
            found.push(FieldError::field(path, MESSAGE));
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                references(item, path.index(at), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                references(field, path.key(name), found);
            }
        }
        _ => {}
    }
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
        check(
            Kind::Certificate,
            json!({"cert": "{vault://env/cert}", "key": "{vault://env/key}", "key_alt": null}),
            &["cert: references", "key: references"],
        );
        let config = json!({
            "headers": {"Authorization": "{vault://env/token}"},
            "hosts": ["a", "{vault://file/host}"],
            "key": "{vault://", "minute": 5,
        });
        check(
            Kind::Plugin,
            json!({"name": "http-log", "config": config}),
            &["config.headers.Authorization: ref", "config.hosts"],
        );
        let pem = "-----BEGIN CERTIFICATE-----";
        check(Kind::Certificate, json!({"cert": pem, "key": pem}), &[]);
        for protocol in ["https", "grpcs", "tls_passthrough", "udp"] {
            check(Kind::Service, json!({"protocol": protocol}), &[]);
            check(Kind::Route, json!({"protocols": [protocol]}), &[]);
        }
    }
}
