//! `consumers`: who calls.

use super::entity::{EntitySchema, as_given, head, tags};
use super::field::Field;
use super::record::{EntityCheck, Record};
use crate::Kind;

pub(super) fn schema() -> EntitySchema {
    let record = Record::new(head().into_iter().chain([
        Field::string("username").unique(),
        Field::string("custom_id").unique(),
        tags(),
    ]))
    .check(EntityCheck::AtLeastOneOf(&["custom_id", "username"]));
    EntitySchema {
        kind: Kind::Consumer,
        record,
        endpoint_key: Some("username"),
        unique_together: &[],
        prepare: as_given,
    }
}
