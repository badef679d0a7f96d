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
        Kind::Certificate => certificate(entity),
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
        .map(|field| FieldError::field(Path::root().key(field), message))
        .collect()
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
        let pem = "-----BEGIN CERTIFICATE-----";
        check(Kind::Certificate, json!({"cert": pem, "key": pem}), &[]);
        for protocol in ["https", "grpcs", "tls_passthrough", "udp"] {
            check(Kind::Service, json!({"protocol": protocol}), &[]);
            check(Kind::Route, json!({"protocols": [protocol]}), &[]);
        }
    }
}
