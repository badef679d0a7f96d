//! Bodies that are taken apart field by field, so that every bad field is named at once.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Fields and what is wrong with them.
pub(crate) type Bad = Vec<(String, String)>;

/// A body that is taken apart field by field.
pub(crate) struct Fields {
    body: Map<String, Value>,
    pub(crate) bad: Bad,
}

impl Fields {
    pub(crate) fn new(body: Value) -> Fields {
        let body = match body {
            Value::Object(body) => body,
            _ => Map::new(),
        };
        Fields {
            body,
            bad: Vec::new(),
        }
    }

    pub(crate) fn refuse(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.bad.push((field.into(), reason.into()));
    }

    /// Whether something is wrong with a field already.
    pub(crate) fn refused(&self, field: &str) -> bool {
        self.bad.iter().any(|(other, _)| other == field)
    }

    /// Whether the body has a field, null or not.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.body.contains_key(field)
    }

    /// A field's value; `None` if it is absent, null or (then noted) of another type.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, field: &str) -> Option<T> {
        let value = self.body.remove(field).filter(|value| !value.is_null())?;
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(field, error.to_string());
                None
            }
        }
    }

    /// A text of `min` to `max` characters; `None` if it is absent or (then noted) wrong.
    pub(crate) fn text(&mut self, field: &str, min: usize, max: usize) -> Option<String> {
        let text: String = self.take(field)?;
        if !(min..=max).contains(&text.chars().count()) || text.contains('\0') {
            let reason = format!("must have {min} to {max} characters, none of them NUL");
            self.refuse(field, reason);
            return None;
        }
        Some(text)
    }

    /// As [`Fields::text`]; an absent one is noted, and empty.
    pub(crate) fn required_text(&mut self, field: &str, min: usize, max: usize) -> String {
        let text = self.text(field, min, max);
        if text.is_none() && !self.refused(field) {
            self.refuse(field, "is required");
        }
        text.unwrap_or_default()
    }

    pub(crate) fn finish<T>(mut self, value: T) -> Result<T, Bad> {
        for field in std::mem::take(&mut self.body).keys() {
            self.refuse(field, "is not a known property");
        }
        if self.bad.is_empty() {
            Ok(value)
        } else {
            Err(self.bad)
        }
    }
}
