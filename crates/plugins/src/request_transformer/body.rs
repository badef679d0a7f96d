//! Bodies that the transformer edits: JSON objects, forms and multipart forms.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Edit, Pair};
use crate::multipart::Multipart;
use crate::params::Params;

/// A type of content that can be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Form,
    Multipart,
}

impl Kind {
    /// The kind that a `Content-Type` names, if it is one of them.
    pub(super) fn of(content_type: &str) -> Option<Kind> {
        let lower = content_type.to_ascii_lowercase();
        if lower.contains("application/json") {
            Some(Kind::Json)
        } else if lower.contains("multipart/form-data") {
            Some(Kind::Multipart)
        } else if lower.contains("application/x-www-form-urlencoded") {
            Some(Kind::Form)
        } else {
            None
        }
    }
}

/// The body after these edits; `None` if it stays as it is, also because it is not what its type
/// says.
pub(super) fn edited(kind: Kind, content_type: &str, body: &[u8], edits: &[Pair]) -> Option<Bytes> {
    match kind {
        Kind::Json => json(body, edits),
        Kind::Form => {
            let text = std::str::from_utf8(body).ok()?;
            let before = Params::parse(text);
            let mut params = before.clone();
            edit_params(&mut params, edits);
            (params.encode() != before.encode()).then(|| params.encode().into())
        }
        Kind::Multipart => {
            let mut form = Multipart::parse(content_type, body)?;
            for Pair { edit, name, value } in edits {
                match edit {
                    Edit::Remove => form.remove(name),
                    Edit::Rename => form.rename(name, value),
                    Edit::Replace if form.contains(name) => form.set(name, value),
                    Edit::Add if !form.contains(name) => form.set(name, value),
                    // parts of a form are not appended to. Source: Kong's transformer
                    Edit::Replace | Edit::Add | Edit::Append => {}
                }
            }
            let after = form.encode();
            (after != body).then(|| after.into())
        }
    }
}

/// Edits the arguments of a query or form.
pub(super) fn edit_params(params: &mut Params, edits: &[Pair]) {
    for Pair { edit, name, value } in edits {
        match edit {
            Edit::Remove => params.remove(name),
            Edit::Rename => params.rename(name, value),
            Edit::Replace => params.replace(name, value.clone()),
            Edit::Add if params.contains(name) => {}
            Edit::Add | Edit::Append => params.append(name, value.clone()),
        }
    }
}

fn json(body: &[u8], edits: &[Pair]) -> Option<Bytes> {
    let mut object: Map<String, Value> = match body {
        b"" => Map::new(),
        body => serde_json::from_slice(body).ok()?,
    };
    let mut changed = false;
    for Pair { edit, name, value } in edits {
        let there = object.contains_key(name);
        match edit {
            Edit::Remove => changed |= object.remove(name).is_some(),
            Edit::Rename if there && name != value => {
                let moved = object.remove(name).unwrap_or_default();
                object.insert(value.clone(), moved);
                changed = true;
            }
            Edit::Replace | Edit::Add if there == (*edit == Edit::Replace) => {
                object.insert(name.clone(), value.as_str().into());
                changed = true;
            }
            Edit::Append => {
                let slot = object.entry(name.as_str()).or_insert(Value::Null);
                append(slot, value.as_str().into());
                changed = true;
            }
            Edit::Rename | Edit::Replace | Edit::Add => {}
        }
    }
    if !changed {
        return None;
    }
    serde_json::to_vec(&object).ok().map(Bytes::from)
}

/// A text becomes a list of two, a list gets longer, an object stays, and anything else becomes a
/// list of the value alone. Source: Kong's `append_value`.
pub(crate) fn append(slot: &mut Value, value: Value) {
    match slot {
        Value::Array(list) => list.push(value),
        Value::Object(_) => {}
        Value::String(_) => *slot = Value::Array(vec![slot.take(), value]),
        Value::Null | Value::Bool(_) | Value::Number(_) => *slot = Value::Array(vec![value]),
    }
}
