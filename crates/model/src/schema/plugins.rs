//! `plugins`: configurations of plugins, each in one scope.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::entity::{EntitySchema, as_given, head, tags};
use super::error::{ErrorKind, FieldError, Path};
use super::field::{Field, OnDelete, each};
use super::plugin::{PROTOCOLS_HTTP, PluginSchemas};
use super::record::Record;
use super::references::misplaced;
use super::services::PROTOCOLS;
use super::validate::{ERRORS_MAX, Mode, validate, validate_at};
use crate::Kind;

pub(super) fn schema() -> EntitySchema {
    let record = fields(
        Field::foreign("consumer", Kind::Consumer).on_delete(OnDelete::Cascade),
        Field::foreign("consumer_group", Kind::ConsumerGroup).on_delete(OnDelete::Cascade),
        Field::record("config", Record::default()).required(),
        PROTOCOLS_HTTP,
        PROTOCOLS,
    );
    EntitySchema {
        kind: Kind::Plugin,
        record,
        endpoint_key: Some("instance_name"),
        unique_together: &["name", "route", "service", "consumer", "consumer_group"],
        prepare: as_given,
    }
}

/// The members of a plugin entity, with those that differ from plugin to plugin.
pub(super) fn fields(
    consumer: Field,
    consumer_group: Field,
    config: Field,
    protocols: &[&str],
    protocols_allowed: &[&str],
) -> Record {
    let scope = |name, kind| Field::foreign(name, kind).on_delete(OnDelete::Cascade);
    Record::new(
        head().into_iter().chain([
            Field::string("name").required(),
            Field::string("instance_name").unique(),
            scope("route", Kind::Route),
            scope("service", Kind::Service),
            consumer,
            consumer_group,
            config,
            Field::set("protocols", each::string().one_of(protocols_allowed))
                .required()
                .default(json!(protocols)),
            Field::boolean("enabled").required().default(json!(true)),
            tags(),
        ]),
    )
}

/// The members that are the same for all plugins. Built once: a large configuration parses
/// thousands of plugins.
static COMMON: LazyLock<Record> = LazyLock::new(|| {
    let mut record = schema().record;
    record
        .fields
        .retain(|field| !matches!(field.name, "config" | "protocols"));
    record
});

pub(super) fn parse(
    mut body: Map<String, Value>,
    mode: Mode,
    plugins: &dyn PluginSchemas,
) -> Result<Value, Vec<FieldError>> {
    let config = body.remove("config").unwrap_or(Value::Null);
    let protocols = body.remove("protocols").unwrap_or(Value::Null);
    let name = body
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let mut errors = Vec::new();
    let mut parsed = validate(&COMMON, Value::Object(body), mode).unwrap_or_else(|found| {
        errors = found;
        Value::Null
    });
    if name.is_empty() {
        return Err(errors); // name itself is missing or no text
    }
    let Some(record) = plugins.config(&name) else {
        errors.push(super::plugin::not_enabled(&name, plugins));
        return Err(errors);
    };
    for scope in ["consumer", "consumer_group"] {
        if !parsed[scope].is_null() && !plugins.consumer_scope(&name) {
            let path = Path::root().key(scope);
            errors.push(FieldError::field(path, "value must be null"));
        }
    }
    if !parsed["consumer"].is_null() && !parsed["consumer_group"].is_null() {
        let path = Path::root().key("consumer_group");
        let message = "must not be set together with 'consumer'";
        errors.push(FieldError::field(path, message));
    }
    let config = match config {
        Value::Null => json!({}),
        // An empty Lua table may arrive as a list.
        Value::Array(list) if list.is_empty() => json!({}),
        other => other,
    };
    let before = errors.len();
    let config = validate_at(
        record,
        config,
        mode,
        &Path::root().key("config"),
        &mut errors,
    );
    misplaced(record, &config, &Path::root().key("config"), &mut errors);
    for error in &mut errors[before..] {
        // Rules of a configuration count as rules of the plugin entity.
        if error.kind == ErrorKind::Entity && error.path == Path::root().key("config") {
            error.path = Path::root();
        }
    }
    let protocols = match protocols {
        Value::Null => json!(plugins.protocols(&name)),
        given => take_protocols(given, plugins.protocols_allowed(&name), &mut errors),
    };
    let Value::Object(map) = &mut parsed else {
        return Err(errors);
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    map.insert("config".to_owned(), config);
    map.insert("protocols".to_owned(), protocols);
    Ok(parsed)
}

fn take_protocols(value: Value, allowed: &[&str], errors: &mut Vec<FieldError>) -> Value {
    let path = Path::root().key("protocols");
    let list = match value {
        Value::Array(list) => list,
        _ => {
            errors.push(FieldError::field(path, "expected a set"));
            return Value::Null;
        }
    };
    let mut set: Vec<Value> = Vec::new();
    for (at, value) in list.into_iter().enumerate() {
        if errors.len() >= ERRORS_MAX {
            break;
        }
        match value.as_str() {
            Some(text) if allowed.contains(&text) => {
                if !set.contains(&value) {
                    set.push(value);
                }
            }
            Some(_) => {
                let message = format!("expected one of: {}", allowed.join(", "));
                errors.push(FieldError::field(path.index(at), message));
            }
            None => errors.push(FieldError::field(path.index(at), "expected a string")),
        }
    }
    Value::Array(set)
}
