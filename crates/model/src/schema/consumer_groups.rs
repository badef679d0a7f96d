//! `consumer_groups`, and who is in them.

use super::entity::{EntitySchema, as_given, head, tags};
use super::field::{Field, OnDelete};
use super::record::Record;
use crate::Kind;

pub(super) fn schema() -> EntitySchema {
    let own = [Field::string("name").required().unique(), tags()];
    EntitySchema {
        kind: Kind::ConsumerGroup,
        record: Record::new(head().into_iter().chain(own)),
        endpoint_key: Some("name"),
        unique_together: &[],
        prepare: as_given,
    }
}

/// A consumer's place in a group: made and removed below either of them, never by itself.
pub(super) fn member() -> EntitySchema {
    let of = |name, kind| {
        Field::foreign(name, kind)
            .on_delete(OnDelete::Cascade)
            .required()
    };
    let own = [
        of("consumer_group", Kind::ConsumerGroup),
        of("consumer", Kind::Consumer),
    ];
    EntitySchema {
        kind: Kind::ConsumerGroupMember,
        record: Record::new(head().into_iter().chain(own)),
        endpoint_key: None,
        unique_together: &["consumer_group", "consumer"],
        prepare: as_given,
    }
}
