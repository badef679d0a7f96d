//! Checks a value against a record and fills its defaults.

use std::collections::HashSet;

use serde_json::{Map, Number, Value};
use uuid::Uuid;

use super::error::{FieldError, Path};
use super::field::{Field, Foreign, Rule, Type};
use super::record::Record;
use super::references::is_reference;
use super::rules::broken_rules;

/// How strict [`validate`] is about members that the schema does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every unknown member is an error: people write these values.
    Strict,
    /// Unknown members are dropped when null: a newer control plane writes these values.
    Payload,
}

/// Errors after which lists and maps are not looked at further: an entity of a million wrong
/// elements shall not cost a million messages.
pub(super) const ERRORS_MAX: usize = 1000;

/// The way down to a value, on the stack: most values are right and never need it as a
/// [`Path`].
#[derive(Clone, Copy)]
enum Trail<'a> {
    At(&'a Path),
    Key(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    fn path(self) -> Path {
        match self {
            Trail::At(path) => path.clone(),
            Trail::Key(trail, key) => trail.path().key(key),
            Trail::Index(trail, index) => trail.path().index(index),
        }
    }

    fn error(self, message: impl Into<String>) -> FieldError {
        FieldError::field(self.path(), message)
    }
}

/// Checks `value` against `record` and returns it with every field present: given, default, or
/// null.
///
/// Null means unset. References become `{"id": uuid}`, whatever else they carry; `80.0` becomes
/// `80`; repeated elements of sets are dropped. Doing it twice changes nothing.
///
/// # Errors
/// Everything that is wrong, not only the first thing (but see no more than about 1000 errors). A rule over several fields is judged
/// only when those fields are right in themselves.
pub fn validate(record: &Record, value: Value, mode: Mode) -> Result<Value, Vec<FieldError>> {
    let mut errors = Vec::new();
    let value = validate_at(record, value, mode, &Path::root(), &mut errors);
    match errors.is_empty() {
        true => Ok(value),
        false => Err(errors),
    }
}

/// [`validate`] for a record at `path`; the value is of use only if no error was added.
pub(super) fn validate_at(
    record: &Record,
    value: Value,
    mode: Mode,
    path: &Path,
    errors: &mut Vec<FieldError>,
) -> Value {
    take_record(record, value, mode, Trail::At(path), errors)
}

fn take_record(
    record: &Record,
    value: Value,
    mode: Mode,
    trail: Trail<'_>,
    errors: &mut Vec<FieldError>,
) -> Value {
    let Value::Object(mut given) = value else {
        errors.push(trail.error("expected a record"));
        return Value::Null;
    };
    for alias in &record.aliases {
        if let Some(value) = given.remove(alias.name)
            && !value.is_null()
        {
            put_if_unset(&mut given, alias.path, value);
        }
    }
    let mut filled = Map::new();
    let mut wrong = Vec::new();
    for field in &record.fields {
        let before = errors.len();
        let value = given.remove(field.name).unwrap_or(Value::Null);
        let value = take_field(field, value, mode, Trail::Key(&trail, field.name), errors);
        if errors.len() > before {
            wrong.push(field.name);
        }
        filled.insert(field.name.to_owned(), value);
    }
    for (name, value) in given {
        if errors.len() >= ERRORS_MAX {
            break;
        }
        if mode == Mode::Strict || !value.is_null() {
            errors.push(Trail::Key(&trail, &name).error("unknown field"));
        }
    }
    for check in &record.checks {
        if !check.fields().iter().any(|name| wrong.contains(name)) {
            check.run(&filled, &trail.path(), errors);
        }
    }
    Value::Object(filled)
}

/// Sets the value at `path` below `map`, unless something is there or in the way.
fn put_if_unset(map: &mut Map<String, Value>, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let slot = map.entry((*first).to_owned()).or_insert(Value::Null);
    if rest.is_empty() {
        if slot.is_null() {
            *slot = value;
        }
        return;
    }
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    if let Value::Object(inner) = slot {
        put_if_unset(inner, rest, value);
    }
}

fn take_field(
    field: &Field,
    value: Value,
    mode: Mode,
    trail: Trail<'_>,
    errors: &mut Vec<FieldError>,
) -> Value {
    if value.is_null() {
        if let Some(default) = &field.default {
            return default.clone();
        }
        if field.required && !field.auto {
            if let Type::Record(record) = &field.ty {
                return take_record(record, Value::Object(Map::new()), mode, trail, errors);
            }
            errors.push(trail.error("required field missing"));
        }
        return Value::Null;
    }
    if field.rules.iter().any(|rule| matches!(rule, Rule::Null)) {
        errors.push(trail.error("value must be null"));
        return Value::Null;
    }
    take_set(field, value, mode, trail, errors)
}

/// A value that is not null, by the type and the rules of its field.
fn take_set(
    field: &Field,
    value: Value,
    mode: Mode,
    trail: Trail<'_>,
    errors: &mut Vec<FieldError>,
) -> Value {
    if field.referenceable && is_reference(&value) {
        return value;
    }
    let before = errors.len();
    let mut expected = |what: &str| {
        errors.push(trail.error(format!("expected {what}")));
        Value::Null
    };
    let value = match (&field.ty, value) {
        (Type::String, Value::String(text)) if field.uuid => match canonical_uuid(&text) {
            Some(id) => Value::String(id.to_string()),
            None => expected("a valid UUID"),
        },
        (Type::String, value @ Value::String(_)) => value,
        (Type::String, _) => expected("a string"),
        (Type::Number, value @ Value::Number(_)) => value,
        (Type::Number, _) => expected("a number"),
        (Type::Integer, Value::Number(number)) => match whole(&number) {
            Some(number) => Value::Number(number),
            None => expected("an integer"),
        },
        (Type::Integer, _) => expected("an integer"),
        (Type::Boolean, value @ Value::Bool(_)) => value,
        (Type::Boolean, _) => expected("a boolean"),
        (Type::Array(each), Value::Array(list)) => {
            Value::Array(take_elements(each, list, mode, trail, errors))
        }
        // An empty Lua table is written as {}: it cannot know that it would have been a list.
        (Type::Array(_) | Type::Set(_), Value::Object(map)) if map.is_empty() => {
            Value::Array(Vec::new())
        }
        (Type::Array(_), _) => expected("an array"),
        (Type::Set(each), Value::Array(list)) => {
            let mut set = take_elements(each, list, mode, trail, errors);
            let mut seen = HashSet::with_capacity(set.len());
            set.retain(|element| seen.insert(element.clone()));
            Value::Array(set)
        }
        (Type::Set(_), _) => expected("a set"),
        (Type::Map { keys, values }, Value::Object(map)) => {
            Value::Object(take_members(keys, values, map, mode, trail, errors))
        }
        (Type::Map { .. }, Value::Array(list)) if list.is_empty() => Value::Object(Map::new()),
        (Type::Map { .. }, _) => expected("a map"),
        (Type::Record(record), Value::Array(list)) if list.is_empty() => {
            take_record(record, Value::Object(Map::new()), mode, trail, errors)
        }
        (Type::Record(record), value) => take_record(record, value, mode, trail, errors),
        (Type::Foreign(foreign), value) => take_foreign(foreign, value, trail, errors),
    };
    if errors.len() == before {
        for message in broken_rules(field, &value) {
            errors.push(trail.error(message));
        }
    }
    value
}

fn take_elements(
    each: &Field,
    list: Vec<Value>,
    mode: Mode,
    trail: Trail<'_>,
    errors: &mut Vec<FieldError>,
) -> Vec<Value> {
    let mut taken = Vec::with_capacity(list.len());
    for (at, value) in list.into_iter().enumerate() {
        if errors.len() >= ERRORS_MAX {
            break;
        }
        taken.push(take_set(
            each,
            value,
            mode,
            Trail::Index(&trail, at),
            errors,
        ));
    }
    taken
}

fn take_members(
    keys: &Field,
    values: &Field,
    map: Map<String, Value>,
    mode: Mode,
    trail: Trail<'_>,
    errors: &mut Vec<FieldError>,
) -> Map<String, Value> {
    let mut taken = Map::new();
    for (key, value) in map {
        if errors.len() >= ERRORS_MAX {
            break;
        }
        let trail = Trail::Key(&trail, &key);
        take_set(keys, Value::String(key.clone()), mode, trail, errors);
        let value = take_set(values, value, mode, trail, errors);
        taken.insert(key, value);
    }
    taken
}

/// A reference by `{"id": …}`, or by a bare id as hybrid payloads write it.
fn take_foreign(
    foreign: &Foreign,
    value: Value,
    trail: Trail<'_>,
    errors: &mut Vec<FieldError>,
) -> Value {
    if foreign.kind.is_none() {
        let message = format!("{} are not supported by this build", foreign.reference);
        errors.push(trail.error(message));
        return Value::Null;
    }
    let (id, at) = match value {
        Value::Object(mut map) => (
            map.remove("id").unwrap_or(Value::Null),
            Trail::Key(&trail, "id"),
        ),
        other => (other, trail),
    };
    match &id {
        Value::String(text) => {
            if let Some(id) = canonical_uuid(text) {
                let mut map = Map::new();
                map.insert("id".to_owned(), Value::String(id.to_string()));
                return Value::Object(map);
            }
            errors.push(at.error("expected a valid UUID"));
        }
        Value::Null => errors.push(at.error("missing primary key")),
        _ => errors.push(at.error("expected a string")),
    }
    Value::Null
}

/// The number as a whole one, if it is whole and exact.
fn whole(number: &Number) -> Option<Number> {
    if number.is_i64() || number.is_u64() {
        return Some(number.clone());
    }
    let float = number.as_f64()?;
    // Above 2^53 a float no longer says which whole number was meant.
    (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0)
        .then(|| Number::from(float as i64))
}

/// A UUID in the 8-4-4-4-12 form, in any case.
pub(crate) fn canonical_uuid(text: &str) -> Option<Uuid> {
    if text.len() != 36 {
        return None;
    }
    Uuid::try_parse(text).ok()
}
