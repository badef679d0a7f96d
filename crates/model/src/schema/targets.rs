//! `targets`: addresses of upstreams.

use serde_json::{Map, Value, json};

use super::checks;
use super::entity::{EntitySchema, tags};
use super::error::FieldError;
use super::field::{Field, OnDelete};
use super::record::Record;
use crate::Kind;

pub(super) fn schema() -> EntitySchema {
    let record = Record::new([
        Field::uuid("id").auto(),
        // Kong's clock for targets has fractions.
        Field::number("created_at").auto().timestamp(),
        Field::number("updated_at").auto().timestamp(),
        Field::foreign("upstream", Kind::Upstream)
            .on_delete(OnDelete::Cascade)
            .required(),
        Field::string("target").check(target).required(),
        Field::integer("weight")
            .between(0, 65535)
            .default(json!(100)),
        tags(),
    ]);
    EntitySchema {
        kind: Kind::Target,
        record,
        endpoint_key: Some("target"),
        unique_together: &["upstream", "target"],
        prepare: add_port,
    }
}

fn target(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    match checks::target(text) {
        Some(_) => Ok(()),
        None => Err(format!(
            "Invalid target ('{text}'); not a valid hostname or ip address"
        )),
    }
}

fn add_port(body: &mut Map<String, Value>, _: &mut Vec<FieldError>) {
    if let Some(Value::String(text)) = body.get_mut("target")
        && let Some(target) = checks::target(text)
    {
        *text = target;
    }
}
