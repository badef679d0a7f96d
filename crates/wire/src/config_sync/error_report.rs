//! `error`: a data plane in Konnect mode says why it refused a configuration.
//!
//! Kong's open-source control plane drops a link on which such a frame arrives, so a data plane
//! sends it only to a control plane known to take it.

use serde_json::{Map, Value, json};

use super::delta::{REFUSED_MAX, Refused};
use super::{FrameError, expect_kind, object};

pub(super) const TYPE: &str = "error";

/// Why a configuration was refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorReport {
    /// Kind of failure, such as `declarative configuration parse failure`.
    pub name: String,
    /// Label of the place in the code.
    pub source: String,
    /// Text for people.
    pub message: String,
    /// Hash of the refused payload; empty if the node did not say.
    pub config_hash: String,
    /// Everything else: `fields`, `flattened_errors`, `code`, `exception`, `traceback`.
    pub details: Map<String, Value>,
}

impl ErrorReport {
    /// The frame: plain JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut error = self.details.clone();
        error.insert("name".to_owned(), json!(self.name));
        error.insert("source".to_owned(), json!(self.source));
        error.insert("message".to_owned(), json!(self.message));
        error.insert("config_hash".to_owned(), json!(self.config_hash));
        json!({"type": TYPE, "error": error})
            .to_string()
            .into_bytes()
    }

    /// Reads the frame; absent texts read as empty.
    ///
    /// # Errors
    /// Not JSON, another type, or `error` is not an object.
    pub fn decode(frame: &[u8]) -> Result<ErrorReport, FrameError> {
        ErrorReport::from_object(object(frame)?)
    }

    /// What was wrong, one entry for each field, at most [`REFUSED_MAX`]; one without an entity if
    /// the report names none. Kong refuses a configuration as a whole, so what it had is kept.
    pub fn refused(&self) -> Vec<Refused> {
        let listed = self.details.get("flattened_errors");
        let entities = listed.and_then(Value::as_array).into_iter().flatten();
        let mut refused: Vec<Refused> = entities.flat_map(of_entity).take(REFUSED_MAX).collect();
        if refused.is_empty() {
            let texts = [&self.name, &self.message].into_iter();
            let texts: Vec<&str> = texts
                .map(String::as_str)
                .filter(|it| !it.is_empty())
                .collect();
            let message = match texts.is_empty() {
                true => whole("no reason given"),
                false => whole(&texts.join(": ")),
            };
            refused.push(Refused {
                message,
                kept: true,
                ..Refused::default()
            });
        }
        refused
    }

    pub(super) fn from_object(mut object: Map<String, Value>) -> Result<ErrorReport, FrameError> {
        expect_kind(&object, TYPE)?;
        match object.remove("error") {
            Some(error @ Value::Object(_)) => Ok(ErrorReport::of(error)),
            _ => Err(FrameError::Field {
                field: "error",
                problem: "is not an object".to_owned(),
            }),
        }
    }

    /// What is in `error`, of this frame or of a notification of protocol v2; nothing if it is no
    /// object.
    pub fn of(error: Value) -> ErrorReport {
        let mut details = match error {
            Value::Object(details) => details,
            _ => Map::new(),
        };
        let mut text = |field: &str| match details.remove(field) {
            Some(Value::String(text)) => text,
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        };
        let (name, source) = (text("name"), text("source"));
        let (message, config_hash) = (text("message"), text("config_hash"));
        ErrorReport {
            name,
            source,
            message,
            config_hash,
            details,
        }
    }
}

/// What Kong does about any error, behind what the error is.
fn whole(message: &str) -> String {
    format!("{message}; the data plane took nothing of this version")
}

/// The errors of one entity, as `{entity_type, entity_id, entity_name, errors: [{field, message}]}`.
fn of_entity(entity: &Value) -> Vec<Refused> {
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
    let table = match text(entity, "entity_type") {
        none if none.is_empty() => none,
        // one of them, where ours is the name of the list
        one => format!("{one}s"),
    };
    let one = |error: &Value| {
        let many = error["messages"].as_array().into_iter().flatten();
        let mut messages: Vec<&str> = many.filter_map(Value::as_str).collect();
        messages.extend(error["message"].as_str());
        Refused {
            entity_type: table.clone(),
            entity_id: text(entity, "entity_id"),
            entity_name: text(entity, "entity_name"),
            field: text(error, "field"),
            message: match messages.is_empty() {
                true => whole("refused"),
                false => whole(&messages.join("; ")),
            },
            kept: true,
            closed: false,
        }
    };
    let errors = entity["errors"].as_array().into_iter().flatten();
    errors.map(one).collect()
}
