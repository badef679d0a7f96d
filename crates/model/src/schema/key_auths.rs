//! `keyauth_credentials`: keys of consumers.

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
        // seconds from when it was written on; 0 is for ever
        Field::integer("ttl").between(0, 100_000_000),
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
