//! `keys` for signing and encrypting, and the `key_sets` that hold them. Source of fields and rules:
//! Kong's entities, RFC 7517 and RFC 7518.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::entity::{EntitySchema, as_given, head, tags};
use super::error::{FieldError, Path};
use super::field::{Field, OnDelete};
use super::record::{EntityCheck, Record};
use crate::Kind;
use crate::certificate::{PrivateKey, PrivateKeyError};
use crate::public_key::{PublicKey, PublicKeyError};

/// Either form of a key; never both, since they may be different keys.
const FORMS: &[&str] = &["jwk", "pem"];

pub(super) fn key_set() -> EntitySchema {
    let record = Record::new(
        head()
            .into_iter()
            .chain([Field::string("name").unique(), tags()]),
    );
    EntitySchema {
        kind: Kind::KeySet,
        record,
        endpoint_key: Some("name"),
        unique_together: &[],
        prepare: as_given,
    }
}

pub(super) fn key() -> EntitySchema {
    let half = |name, check| {
        let field = Field::string(name).referenceable().encrypted();
        field.check(check)
    };
    let pem = Record::new([
        half("private_key", private_pem),
        half("public_key", public_pem),
    ])
    .check(EntityCheck::AtLeastOneOf(&["private_key", "public_key"]));
    let record = Record::new(head().into_iter().chain([
        Field::foreign("set", Kind::KeySet).on_delete(OnDelete::Cascade),
        Field::string("name").unique(),
        Field::string("kid").required(),
        Field::string("jwk").referenceable().encrypted().check(jwk),
        Field::record("pem", pem),
        tags(),
    ]))
    .check(EntityCheck::MutuallyExclusive(FORMS))
    .check(EntityCheck::AtLeastOneOf(FORMS))
    .check(EntityCheck::Custom {
        fields: &["kid", "jwk"],
        run: kid_is_the_same,
    });
    EntitySchema {
        kind: Kind::Key,
        record,
        endpoint_key: Some("name"),
        unique_together: &["kid", "set"],
        prepare: as_given,
    }
}

/// The members of a JWK, which is JSON in a text.
fn members(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err("could not json decode jwk string".to_owned()),
    }
}

/// An asymmetric key with the members that its type needs (RFC 7518, section 6; RFC 8037).
fn jwk(value: &Value) -> Result<(), String> {
    let members = members(value.as_str().unwrap_or_default())?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let bytes = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        bytes.filter(|bytes| !bytes.is_empty())
    };
    let lacking = |name: &str| {
        format!("could not load JWK, likely not a valid key ('{name}' is missing or no base64url)")
    };
    let need = |name: &str| bytes(name).ok_or_else(|| lacking(name));
    let length = |name: &str, wanted: usize| match need(name)?.len() == wanted {
        true => Ok(()),
        false => Err(format!(
            "could not load JWK, likely not a valid key ('{name}' must be {wanted} bytes on this curve)"
        )),
    };
    let curve = text("crv").unwrap_or_default();
    let optional = match text("kty") {
        Some("RSA") => {
            need("n")?;
            need("e")?;
            &["d", "p", "q", "dp", "dq", "qi"][..]
        }
        Some("EC") => {
            let size = match curve {
                "P-256" | "secp256k1" => 32,
                "P-384" => 48,
                "P-521" => 66,
                other => return Err(unknown_curve(other)),
            };
            length("x", size)?;
            length("y", size)?;
            &["d"][..]
        }
        Some("OKP") => {
            let size = match curve {
                "Ed25519" | "X25519" => 32,
                "Ed448" => 57,
                "X448" => 56,
                other => return Err(unknown_curve(other)),
            };
            length("x", size)?;
            &["d"][..]
        }
        _ => {
            let message =
                "could not load JWK, likely not a valid key ('kty' must be RSA, EC or OKP)";
            return Err(message.to_owned());
        }
    };
    let damaged = optional
        .iter()
        .find(|name| members.contains_key(**name) && bytes(name).is_none());
    damaged.map_or(Ok(()), |name| Err(lacking(name)))
}

fn unknown_curve(name: &str) -> String {
    format!("could not load JWK, likely not a valid key (no curve '{name}' for this kty)")
}

/// The `kid` inside is the one that the key is found by.
fn kid_is_the_same(key: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    // a reference to a vault is read by gateways only
    let inside = text("jwk").and_then(|text| members(text).ok());
    if let Some(inside) = inside
        && inside.get("kid").and_then(Value::as_str) != text("kid")
    {
        let message = "kid in jwk.kid must be equal to keys.kid";
        errors.push(FieldError::field(path.key("jwk"), message));
    }
}

/// Whoever uses the key may know more kinds than this build.
fn public_pem(value: &Value) -> Result<(), String> {
    match PublicKey::from_pem(value.as_str().unwrap_or_default()) {
        Ok(_) | Err(PublicKeyError::RsaSize(_) | PublicKeyError::Kind) => Ok(()),
        Err(error) => Err(format!("could not load public key: {error}")),
    }
}

fn private_pem(value: &Value) -> Result<(), String> {
    match PrivateKey::from_pem(value.as_str().unwrap_or_default()) {
        Ok(_) | Err(PrivateKeyError::Kind) => Ok(()),
        Err(error) => Err(format!("could not load private key: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::table_tests::{EC_JWK, OTHER, parse, refuses, smallest};
    use super::*;
    use crate::certificate::tests::EC_KEY;

    const EC_PUBLIC: &str = include_str!("../public_key/keys/prime256v1.pem");
    const ED448: &str = include_str!("../public_key/keys/ed448.pem");

    #[test]
    fn a_key_has_kongs_defaults() {
        let entity = parse(Kind::Key, smallest(Kind::Key)).unwrap();
        let expected = json!({
            "id": null, "created_at": null, "updated_at": null, "set": null, "name": null,
            "kid": "k", "jwk": EC_JWK, "pem": null, "tags": null,
        });
        assert_eq!(entity, expected);
        let set = parse(Kind::KeySet, json!({"name": "s"})).unwrap();
        let expected = json!({
            "id": null, "created_at": null, "updated_at": null, "name": "s", "tags": null,
        });
        assert_eq!(set, expected);
    }

    #[test]
    fn one_form_and_only_one() {
        refuses(
            Kind::Key,
            json!({"kid": "k"}),
            &["at least one of these fields must be non-empty: 'jwk', 'pem'"],
        );
        let both = json!({"kid": "k", "jwk": EC_JWK, "pem": {"private_key": EC_KEY}});
        refuses(
            Kind::Key,
            both,
            &["only one of these fields may be set: 'jwk', 'pem'"],
        );
        refuses(
            Kind::Key,
            json!({"kid": "k", "pem": {}}),
            &[
                "pem: at least one of these fields must be non-empty: 'pem.private_key', 'pem.public_key'",
            ],
        );
        for pem in [
            json!({"private_key": EC_KEY}),
            json!({"public_key": EC_PUBLIC}),
            json!({"public_key": ED448}),
            json!({"private_key": "{vault://env/key}"}),
        ] {
            parse(Kind::Key, json!({"kid": "k", "pem": pem})).expect("it should be valid");
        }
        for (half, text) in [("private_key", "x"), ("public_key", EC_KEY)] {
            let body = json!({"kid": "k", "pem": {half: text}});
            let errors = parse(Kind::Key, body).expect_err("it should be refused");
            assert!(errors[0].starts_with(&format!("pem.{half}: could not load")));
        }
    }

    #[test]
    fn jwks_are_looked_into() {
        let wrong = |jwk: &str, kid: &str, expected: &str| {
            let body = json!({"kid": kid, "jwk": jwk});
            let errors = parse(Kind::Key, body).expect_err("it should be refused");
            assert!(errors[0].contains(expected), "{errors:?}");
        };
        wrong(
            EC_JWK,
            "other",
            "jwk: kid in jwk.kid must be equal to keys.kid",
        );
        wrong("{", "k", "could not json decode jwk string");
        wrong("[]", "k", "could not json decode jwk string");
        wrong(r#"{"kid": "k"}"#, "k", "'kty' must be RSA, EC or OKP");
        wrong(r#"{"kid":"k","kty":"oct","k":"AA"}"#, "k", "'kty' must be");
        wrong(r#"{"kid":"k","kty":"RSA","n":"AA"}"#, "k", "'e' is missing");
        wrong(
            r#"{"kid":"k","kty":"EC","crv":"P-1"}"#,
            "k",
            "no curve 'P-1'",
        );
        wrong(
            r#"{"kid":"k","kty":"OKP","crv":"Ed25519","x":"AA"}"#,
            "k",
            "'x' must be 32",
        );
        wrong(
            &EC_JWK.replace("\"y\"", "\"d\":\"!\",\"y\""),
            "k",
            "'d' is missing",
        );
        for good in [
            r#"{"kid":"k","kty":"RSA","n":"sXch","e":"AQAB","use":"sig","x5t":"abc"}"#,
            "{vault://env/jwk}",
        ] {
            let body = json!({"kid": "k", "jwk": good, "set": {"id": OTHER, "name": "s"}});
            let entity = parse(Kind::Key, body).expect("it should be valid");
            assert_eq!(entity["set"], json!({"id": OTHER}));
        }
    }

    #[test]
    fn one_kid_within_a_set() {
        let indexed = |set: Value| {
            let body = json!({"kid": "k", "jwk": EC_JWK, "set": set, "name": "n"});
            super::super::index(Kind::Key, &parse(Kind::Key, body).unwrap())
        };
        let alone = indexed(Value::Null);
        assert_eq!(alone.unique[0], ("name", "n".to_owned()));
        assert_eq!(alone.unique[1], ("kid, set", "k|".to_owned()));
        let within = indexed(json!({"id": OTHER}));
        assert_eq!(within.unique[1], ("kid, set", format!("k|{OTHER}")));
        assert_eq!(within.foreign[0].1, Kind::KeySet);
        assert_eq!(within.foreign[0].3, OnDelete::Cascade);
    }
}
