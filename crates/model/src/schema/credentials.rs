//! What belongs to consumers besides keys: `basicauth_credentials`, `hmacauth_credentials`,
//! `jwt_secrets` and `acls`. Source of fields and rules: the plugins of Kong that bring them.

use serde_json::{Map, Value, json};

use super::entity::{EntitySchema, as_given, tags};
use super::error::{FieldError, Path};
use super::field::{Field, OnDelete};
use super::record::{EntityCheck, Match, Record};
use crate::Kind;
use crate::public_key::PublicKey;

/// Algorithms of tokens.
const ALGORITHMS: &[&str] = &[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256",
    "PS384", "PS512", "EdDSA",
];

/// Those for which Kong insists on a public key.
const NEED_KEY: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
];

pub(super) fn basic_auth() -> EntitySchema {
    let fields = [
        Field::string("username").required().unique(),
        Field::string("password").required().encrypted(),
    ];
    schema(Kind::BasicAuth, Record::new(fields_of(fields)), "username")
}

pub(super) fn hmac_auth() -> EntitySchema {
    let fields = [
        Field::string("username").required().unique(),
        Field::string("secret").auto().encrypted(),
    ];
    schema(Kind::HmacAuth, Record::new(fields_of(fields)), "username")
}

pub(super) fn jwt() -> EntitySchema {
    let fields = [
        Field::string("key").unique().auto(),
        Field::string("secret").auto().encrypted(),
        Field::string("rsa_public_key"),
        Field::string("algorithm")
            .one_of(ALGORITHMS)
            .default(json!("HS256")),
    ];
    let record = Record::new(fields_of(fields))
        .check(EntityCheck::Conditional {
            if_field: "algorithm",
            if_match: Match::OneOf(NEED_KEY),
            then_field: "rsa_public_key",
            then_match: Match::Set,
        })
        .check(EntityCheck::Custom {
            fields: &["algorithm", "rsa_public_key"],
            run: key_is_readable,
        });
    schema(Kind::Jwt, record, "key")
}

pub(super) fn acl() -> EntitySchema {
    let record = Record::new(fields_of([Field::string("group").required()]));
    EntitySchema {
        unique_together: &["consumer", "group"],
        ..schema(Kind::Acl, record, "group")
    }
}

fn schema(kind: Kind, record: Record, endpoint_key: &'static str) -> EntitySchema {
    EntitySchema {
        kind,
        record,
        endpoint_key: Some(endpoint_key),
        unique_together: &[],
        prepare: as_given,
    }
}

/// What all of them have, around their own fields.
fn fields_of(own: impl IntoIterator<Item = Field>) -> impl Iterator<Item = Field> {
    let head = [
        Field::uuid("id").auto(),
        Field::integer("created_at").auto().timestamp(),
        Field::foreign("consumer", Kind::Consumer)
            .on_delete(OnDelete::Cascade)
            .required(),
    ];
    head.into_iter().chain(own).chain([tags()])
}

/// A key that cannot be read would refuse every token; better to hear it now.
fn key_is_readable(jwt: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let text = |name: &str| jwt.get(name).and_then(Value::as_str);
    let (Some(algorithm), Some(key)) = (text("algorithm"), text("rsa_public_key")) else {
        return;
    };
    if algorithm.starts_with("HS") {
        return;
    }
    if let Err(error) = PublicKey::from_pem(key) {
        let message = format!("invalid key: {error}");
        errors.push(FieldError::field(path.key("rsa_public_key"), message));
    }
}
