//! `error`: a data plane says why it refused a configuration, or entities of it. Kong's send it in
//! Konnect mode.
//!
//! Kong's open-source control plane drops a link on which such a frame arrives, so a data plane
//! sends it only to a control plane that says in its answer to the upgrade that it takes it
//! ([`TAKES_HEADER`]).

use serde_json::{Map, Value, json};

use super::delta::{REFUSED_MAX, Refused};
use super::{ConfigHash, FrameError, expect_kind, object};

pub(super) const TYPE: &str = "error";
/// Header of the answer to the upgrade: which frames beside hello and PING a control plane takes.
pub const TAKES_HEADER: &str = "sallyport-takes";
/// Value of [`TAKES_HEADER`] of a control plane that takes these.
pub const TAKES_ERRORS: &str = "error";
/// [`ErrorReport::name`] if the rest of the configuration is in force. A name of ours.
pub const ENTITIES_REFUSED: &str = "entities refused";
/// [`ErrorReport::name`] if nothing of the configuration is in force. A name of Kong's.
pub const PARSE_FAILURE: &str = "declarative configuration parse failure";
/// Characters of a text that are kept.
const TEXT_CHARS_MAX: usize = 1_000;

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
    /// The report on entities that a data plane did not take, at most [`REFUSED_MAX`] of them, of the
    /// configuration with this hash; the rest of it is in force.
    pub fn on_entities(config_hash: ConfigHash, refused: &[Refused]) -> ErrorReport {
        let named = refused.iter().take(REFUSED_MAX).map(flattened);
        let list = Value::Array(named.collect());
        ErrorReport {
            name: ENTITIES_REFUSED.to_owned(),
            source: "config_sync".to_owned(),
            message: format!(
                "{} entities are not served as they were sent",
                refused.len()
            ),
            config_hash: config_hash.to_string(),
            details: [("flattened_errors".to_owned(), list)]
                .into_iter()
                .collect(),
        }
    }

    /// The report on a configuration of which nothing is in force; zeros if its hash is not known.
    pub fn on_all(config_hash: ConfigHash, problem: &str) -> ErrorReport {
        ErrorReport {
            name: PARSE_FAILURE.to_owned(),
            source: "config_sync".to_owned(),
            message: problem.to_owned(),
            config_hash: config_hash.to_string(),
            details: Map::new(),
        }
    }

    /// The entities it is about, at most [`REFUSED_MAX`], one for each thing that is wrong. Empty if
    /// it is about the whole.
    pub fn refused(&self) -> Vec<Refused> {
        let items = self
            .details
            .get("flattened_errors")
            .and_then(Value::as_array);
        let items = items.into_iter().flatten();
        items.flat_map(unflattened).take(REFUSED_MAX).collect()
    }

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

/// An entity in the form of Kong's `flattened_errors`, which has the singular of its list.
fn flattened(refused: &Refused) -> Value {
    let kind = &refused.entity_type;
    let mut problem = json!({"type": "entity", "message": clipped(&refused.message)});
    if !refused.field.is_empty() {
        problem["type"] = json!("field");
        problem["field"] = json!(clipped(&refused.field));
    }
    json!({
        "entity_type": kind.strip_suffix('s').unwrap_or(kind),
        "entity_id": refused.entity_id,
        "entity_name": clipped(&refused.entity_name),
        "kept": refused.kept,
        "closed": refused.closed,
        "errors": [problem],
    })
}

fn unflattened(item: &Value) -> Vec<Refused> {
    let text = |value: &Value| clipped(value.as_str().unwrap_or_default());
    let mut kind = text(&item["entity_type"]);
    if !kind.is_empty() && !kind.ends_with('s') {
        kind.push('s');
    }
    let one = |problem: &Value| {
        let message = match (&problem["message"], &problem["messages"]) {
            (Value::String(message), _) => clipped(message),
            (_, Value::Array(several)) => {
                let several: Vec<&str> = several.iter().filter_map(Value::as_str).collect();
                clipped(&several.join("; "))
            }
            (other, _) => clipped(&other.to_string()),
        };
        Refused {
            entity_type: kind.clone(),
            entity_id: text(&item["entity_id"]),
            entity_name: text(&item["entity_name"]),
            field: text(&problem["field"]),
            message,
            // Kong says nothing of it, and keeps everything
            kept: item["kept"] != false,
            closed: item["closed"] == true,
        }
    };
    let problems = item["errors"].as_array().into_iter().flatten();
    problems.take(REFUSED_MAX).map(one).collect()
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
