//! `error`: a data plane in Konnect mode says why it refused a configuration.
//!
//! Kong's open-source control plane drops a link on which such a frame arrives, so a data plane
//! sends it only to a control plane known to take it.

use serde_json::{Map, Value, json};

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

    pub(super) fn from_object(mut object: Map<String, Value>) -> Result<ErrorReport, FrameError> {
        expect_kind(&object, TYPE)?;
        let Some(Value::Object(mut details)) = object.remove("error") else {
            return Err(FrameError::Field {
                field: "error",
                problem: "is not an object".to_owned(),
            });
        };
        let mut text = |field: &str| match details.remove(field) {
            Some(Value::String(text)) => text,
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        };
        let (name, source) = (text("name"), text("source"));
        let (message, config_hash) = (text("message"), text("config_hash"));
        Ok(ErrorReport {
            name,
            source,
            message,
            config_hash,
            details,
        })
    }
}
