//! What is wrong with a declarative document, and in which object.

use std::fmt;

use uuid::Uuid;

use crate::Kind;
use crate::schema::Path;

/// One thing that is wrong with a document.
///
/// Shown on one line, such as
/// `services[2] (orders).port: value should be between 0 and 65535`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which part of the document.
    pub place: Place,
    /// Which field of that part; the part itself when empty.
    pub path: Path,
    /// What is wrong, and the way out where it is not plain.
    pub message: String,
}

/// A part of a document that a problem can be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The text is neither YAML nor JSON; counted from 1, absent if the parser cannot tell.
    Text {
        /// Line.
        line: Option<u64>,
        /// Column.
        column: Option<u64>,
    },
    /// The document outside of its objects.
    Document,
    /// One object.
    Object(ObjectRef),
}

/// Which object a problem is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Where it stands, such as `services[2].routes[0]`.
    pub at: String,
    /// Its name, if it has one that is no secret.
    pub name: Option<String>,
    /// The id it brings or was given; `None` if its id is no UUID.
    pub id: Option<Uuid>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = &self.message;
        match &self.place {
            Place::Text {
                line: Some(line),
                column: Some(column),
            } => {
                write!(f, "line {line}, column {column}: {message}")
            }
            Place::Text { .. } => f.write_str(message),
            Place::Document if self.path.is_root() => f.write_str(message),
            Place::Document => write!(f, "{}: {message}", self.path),
            Place::Object(object) => {
                write!(f, "{object}")?;
                match self.path.is_root() {
                    true => write!(f, ": {message}"),
                    false => write!(f, ".{}: {message}", self.path),
                }
            }
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at)?;
        match (&self.name, self.id) {
            (Some(name), _) => write!(f, " ({name})"),
            (None, Some(id)) => write!(f, " ({id})"),
            (None, None) => Ok(()),
        }
    }
}
