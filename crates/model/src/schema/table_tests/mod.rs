//! The entity tables: what each accepts, refuses and fills.

mod certificates;
mod consumers;
mod routes;
mod services;
mod upstreams;
mod written;

use serde_json::{Value, json};
use uuid::Uuid;

use super::tests::TwoPlugins;
use super::*;
use crate::Kind;
use crate::certificate::Certificate;
use crate::certificate::tests::{CA_CERT, EC_CERT, EC_KEY, EC_OTHER_KEY, RSA_CERT, RSA_KEY};

pub(super) const ID: &str = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
/// A public key on P-256 with the `kid` that [`smallest`] has.
pub(super) const EC_JWK: &str = r#"{"kid":"k","kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;
pub(super) const OTHER: &str = "7f145bf9-0dce-4f91-98eb-debbce4b9f6b";

pub(super) fn parse(kind: Kind, body: Value) -> Result<Value, Vec<String>> {
    parse_entity(kind, body, &TwoPlugins::new())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// Something valid of each kind.
pub(super) fn smallest(kind: Kind) -> Value {
    match kind {
        Kind::Certificate => json!({"cert": EC_CERT, "key": EC_KEY}),
        Kind::Sni => json!({"name": "a.example", "certificate": {"id": ID}}),
        Kind::CaCertificate => {
            let digest = Certificate::from_pem(CA_CERT).unwrap().digest;
            json!({"cert": CA_CERT, "cert_digest": digest})
        }
        Kind::KeySet => json!({"name": "s"}),
        Kind::Key => json!({"kid": "k", "jwk": EC_JWK}),
        Kind::Service => json!({"host": "a.example"}),
        Kind::Route => json!({"paths": ["/"]}),
        Kind::Consumer => json!({"username": "alice"}),
        Kind::KeyAuth | Kind::Jwt => json!({"consumer": {"id": ID}}),
        Kind::BasicAuth => {
            json!({"consumer": {"id": ID}, "username": "alice", "password": "secret"})
        }
        Kind::HmacAuth => json!({"consumer": {"id": ID}, "username": "alice"}),
        Kind::Acl => json!({"consumer": {"id": ID}, "group": "staff"}),
        Kind::Plugin => json!({"name": "key-auth"}),
        Kind::Upstream => json!({"name": "u"}),
        Kind::Target => json!({"target": "a", "upstream": {"id": ID}}),
        Kind::Vault => json!({"prefix": "my-vault", "name": "env"}),
        Kind::ConsumerGroup => json!({"name": "gold"}),
        Kind::ConsumerGroupMember => {
            json!({"consumer_group": {"id": ID}, "consumer": {"id": OTHER}})
        }
    }
}

fn with(kind: Kind, field: &str, value: Value) -> Value {
    let mut body = smallest(kind);
    body[field] = value;
    body
}

/// The smallest entity with `field` set is accepted, and the field becomes `expected`.
#[track_caller]
fn keeps(kind: Kind, field: &str, given: Value, expected: Value) {
    let entity = parse(kind, with(kind, field, given)).expect("it should be valid");
    assert_eq!(entity[field], expected);
}

/// The whole body is refused with exactly these errors.
#[track_caller]
pub(super) fn refuses(kind: Kind, body: Value, expected: &[&str]) {
    assert_eq!(
        parse(kind, body).expect_err("it should be refused"),
        expected
    );
}

/// The smallest entity with `field` set is refused with one error on that field.
#[track_caller]
pub(super) fn refuses_field(kind: Kind, field: &str, given: Value, message: &str) {
    refuses(kind, with(kind, field, given), &[message]);
}
