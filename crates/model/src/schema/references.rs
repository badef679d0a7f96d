//! Vault references, `{vault://…}`: where a value has them, and putting the values in their place.
//!
//! Whoever stores, shows or sends values keeps the references; only who acts on values resolves
//! them. Source of the grammar: data-plane reference 8.1.

use serde_json::Value;

use super::error::{FieldError, Path};
use super::field::{Field, Type};
use super::record::Record;

/// Whether it is a vault reference, `{vault://…}` and nothing else.
pub fn is_reference(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.starts_with("{vault://") && text.ends_with('}'))
}

/// Puts what `resolve` says in the place of every reference in a value of this record, in fields
/// that may have one. `resolve` gets the text between `{vault://` and `}`.
///
/// Returns how many references there were.
///
/// # Errors
/// Every reference that cannot be resolved, with the path of its field.
pub fn resolve_references(
    record: &Record,
    value: &mut Value,
    resolve: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<usize, Vec<FieldError>> {
    let mut walk = Walk {
        resolve,
        found: 0,
        errors: Vec::new(),
    };
    walk.record(record, value, &Path::root());
    match walk.errors.is_empty() {
        true => Ok(walk.found),
        false => Err(walk.errors),
    }
}

/// References in fields that take none: there they would be taken for the secret itself.
pub(super) fn misplaced(record: &Record, value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for field in &record.fields {
        misplaced_in(field, &value[field.name], &path.key(field.name), errors);
    }
}

fn misplaced_in(field: &Field, value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if is_reference(value) && !field.referenceable {
        let message = "a reference to a vault is not taken here; give the value";
        errors.push(FieldError::field(path.clone(), message));
        return;
    }
    match &field.ty {
        Type::Record(record) if value.is_object() => misplaced(record, value, path, errors),
        Type::Array(each) | Type::Set(each) => {
            let list = value.as_array().into_iter().flatten();
            for (at, value) in list.enumerate() {
                misplaced_in(each, value, &path.index(at), errors);
            }
        }
        Type::Map { values, .. } => {
            for (key, value) in value.as_object().into_iter().flatten() {
                misplaced_in(values, value, &path.key(key), errors);
            }
        }
        _ => {}
    }
}

struct Walk<'a> {
    resolve: &'a mut dyn FnMut(&str) -> Result<String, String>,
    found: usize,
    errors: Vec<FieldError>,
}

impl Walk<'_> {
    fn record(&mut self, record: &Record, value: &mut Value, path: &Path) {
        for field in &record.fields {
            if let Some(value) = value.get_mut(field.name) {
                self.field(field, value, &path.key(field.name));
            }
        }
    }

    fn field(&mut self, field: &Field, value: &mut Value, path: &Path) {
        if field.referenceable && is_reference(value) {
            self.found += 1;
            let text = value.as_str().unwrap_or_default();
            let inner = &text["{vault://".len()..text.len() - 1];
            match (self.resolve)(inner) {
                Ok(found) => *value = Value::from(found),
                Err(reason) => {
                    let message = format!("{text} cannot be resolved: {reason}");
                    self.errors.push(FieldError::field(path.clone(), message));
                }
            }
            return;
        }
        match &field.ty {
            Type::Record(record) => self.record(record, value, path),
            Type::Array(each) | Type::Set(each) => {
                let list = value.as_array_mut().into_iter().flatten();
                for (at, value) in list.enumerate() {
                    self.field(each, value, &path.index(at));
                }
            }
            Type::Map { values, .. } => {
                for (key, value) in value.as_object_mut().into_iter().flatten() {
                    self.field(values, value, &path.key(key));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::each;

    fn record() -> Record {
        Record::new([
            Field::string("secret").referenceable(),
            Field::string("plain"),
            Field::map("headers", each::string(), each::string().referenceable()),
            Field::array(
                "servers",
                each::record(Record::new([Field::string("password").referenceable()])),
            ),
        ])
    }

    #[test]
    fn references_are_replaced_where_they_may_be() {
        let mut value = json!({"secret": "{vault://env/a}", "plain": "{vault://env/b}",
            "headers": {"x": "{vault://env/c/d?e=f}", "y": "z"},
            "servers": [{"password": "{vault://file/e}"}, {"password": null}]});
        let found = resolve_references(&record(), &mut value, &mut |text| Ok(format!("<{text}>")));
        assert_eq!(found, Ok(3));
        assert_eq!(
            value,
            json!({"secret": "<env/a>", "plain": "{vault://env/b}",
                "headers": {"x": "<env/c/d?e=f>", "y": "z"},
                "servers": [{"password": "<file/e>"}, {"password": null}]})
        );
    }

    #[test]
    fn what_cannot_be_resolved_is_named_by_its_field() {
        let mut value = json!({"secret": "{vault://env/a}", "headers": {"x": "{vault://no/b}"},
            "servers": [{"password": "{vault://env/c}"}]});
        let errors = resolve_references(&record(), &mut value, &mut |text| match text {
            "env/c" => Ok(String::new()),
            other => Err(format!("no {other}")),
        });
        let errors: Vec<String> = errors
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            errors,
            [
                "secret: {vault://env/a} cannot be resolved: no env/a",
                "headers.x: {vault://no/b} cannot be resolved: no no/b",
            ]
        );
    }

    #[test]
    fn a_reference_where_none_is_taken_is_named() {
        let value = json!({"secret": "{vault://env/a}", "plain": "{vault://env/b}",
            "headers": {"x": "{vault://env/c}"}, "servers": [{"password": "p"}]});
        let mut errors = Vec::new();
        misplaced(&record(), &value, &Path::root(), &mut errors);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let expected = "plain: a reference to a vault is not taken here; give the value";
        assert_eq!(errors, [expected]);
    }
}
