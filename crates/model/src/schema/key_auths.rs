//! `keyauth_credentials`: keys of consumers.

use serde_json::Value;

use super::entity::{EntitySchema, as_given, tags};
use super::field::{Field, OnDelete};
use super::record::Record;
use crate::Kind;

pub(super) fn schema() -> EntitySchema {
    let record = Record::new([
        Field::uuid("id").auto(),
        Field::integer("created_at").auto().timestamp(),
        Field::foreign("consumer", Kind::Consumer)
            .on_delete(OnDelete::Cascade)
            .required(),
        Field::string("key").unique().auto().encrypted(),
        Field::integer("ttl")
            .between(0, 100_000_000)
            .check(no_expiry),
        tags(),
    ]);
    EntitySchema {
        kind: Kind::KeyAuth,
        record,
        endpoint_key: Some("key"),
        unique_together: &[],
        prepare: as_given,
    }
}

/// A key that should have expired but is still accepted would be a hole: refuse it up front.
fn no_expiry(value: &Value) -> Result<(), String> {
    match value.as_i64() {
        Some(0) => Ok(()),
        _ => Err("keys that expire are not supported by this build; leave ttl unset".to_owned()),
    }
}
