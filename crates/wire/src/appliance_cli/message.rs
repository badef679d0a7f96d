//! What the JSON of frames says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of the protocol; a node answers older ones as well.
pub const PROTOCOL: u32 = 1;
/// Characters of a command's or an argument's name.
const NAME_MAX: usize = 64;
/// Bytes of an argument's value.
const VALUE_BYTES_MAX: usize = 16 << 10;

/// A command that a node has, as it tells clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its name, such as `test-port`.
    pub name: String,
    /// What it does, in one line.
    pub about: String,
    /// What it takes, in the order in which people write it.
    #[serde(default)]
    pub arguments: Vec<Argument>,
    /// It answers with the bytes of a file.
    #[serde(default)]
    pub file: bool,
}

/// An argument of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// Its name, such as `host`.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
    /// The command needs it.
    #[serde(default)]
    pub required: bool,
    /// It is not shown and not recorded.
    #[serde(default)]
    pub secret: bool,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL`] of the client.
    pub protocol: u32,
    /// A command's name; `commands` lists them all.
    pub command: String,
    /// Arguments by name.
    #[serde(default)]
    pub arguments: BTreeMap<String, String>,
}

/// How far a command is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units that are done.
    pub done: u64,
    /// Units in all; 0 if nobody knows.
    pub total: u64,
    /// What the units are: `bytes`, `steps`.
    pub unit: String,
}

/// The end of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// One line for people.
    pub message: String,
    /// Facts for programs.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// A word for what went wrong; absent if nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A payload that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is no JSON of this form.
    #[error("a message cannot be read: {0}")]
    Json(String),
    /// A name or a value is too long, or has characters that none has.
    #[error("a request has the bad {what} {value:?}")]
    Bad {
        /// `command`, `argument` or `value`.
        what: &'static str,
        /// It, cut.
        value: String,
    },
}

impl Request {
    /// Reads the payload of a request frame.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn decode(payload: &[u8]) -> Result<Request, MessageError> {
        let request: Request = serde_json::from_slice(payload)
            .map_err(|error| MessageError::Json(error.to_string()))?;
        let bad = |what, value: &str| MessageError::Bad {
            what,
            value: value.chars().take(NAME_MAX).collect(),
        };
        if !is_name(&request.command) {
            return Err(bad("command", &request.command));
        }
        for (name, value) in &request.arguments {
            if !is_name(name) {
                return Err(bad("argument", name));
            }
            if value.len() > VALUE_BYTES_MAX || value.contains('\0') {
                return Err(bad("value", value));
            }
        }
        Ok(request)
    }
}

impl Reply {
    /// One without facts.
    pub fn new(message: impl Into<String>) -> Reply {
        Reply {
            message: message.into(),
            arguments: Map::new(),
            error: None,
        }
    }

    /// A refusal; `error` is its word.
    pub fn refused(error: &str, message: impl Into<String>) -> Reply {
        Reply {
            error: Some(error.to_owned()),
            ..Reply::new(message)
        }
    }

    /// With a fact more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Reply {
        self.arguments.insert(name.to_owned(), value.into());
        self
    }
}

/// Names of commands and arguments: lower-case letters, digits and hyphens, beginning with a letter.
fn is_name(name: &str) -> bool {
    let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    name.len() <= NAME_MAX
        && name.bytes().all(known)
        && name.bytes().next().is_some_and(|c| c.is_ascii_lowercase())
}

/// Whether a command has these arguments and no required one is missing.
///
/// # Errors
/// What is wrong, with what the command takes.
pub fn check_arguments(
    command: &Command,
    arguments: &BTreeMap<String, String>,
) -> Result<(), String> {
    let takes = || {
        let shown = |it: &Argument| match it.required {
            true => format!("<{}>", it.name),
            false => format!("[{}]", it.name),
        };
        let all: Vec<String> = command.arguments.iter().map(shown).collect();
        format!("{} {}", command.name, all.join(" "))
            .trim()
            .to_owned()
    };
    for name in arguments.keys() {
        if !command.arguments.iter().any(|it| it.name == *name) {
            return Err(format!("there is no argument {name:?}; it is: {}", takes()));
        }
    }
    for wanted in command.arguments.iter().filter(|it| it.required) {
        if arguments.get(&wanted.name).is_none_or(String::is_empty) {
            return Err(format!("{} is missing; it is: {}", wanted.name, takes()));
        }
    }
    Ok(())
}
