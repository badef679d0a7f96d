//! What is wrong with a declarative document, and in which object.

use std::fmt::{self, Write as _};

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
        let place = match &self.place {
            Place::Text {
                line: Some(line),
                column: Some(column),
            } => {
                format!("line {line}, column {column}")
            }
            Place::Text { .. } | Place::Document => String::new(),
            Place::Object(object) => object.to_string(),
        };
        let path = self.path.to_string();
        let dot = if place.is_empty() || path.is_empty() {
            ""
        } else {
            "."
        };
        let colon = if place.is_empty() && path.is_empty() {
            ""
        } else {
            ": "
        };
        let line = format!("{place}{dot}{path}{colon}{}", self.message);
        // Names and values of a document may hold anything: keep to one line of plain text.
        for c in line.chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => f.write_char(c)?,
            }
        }
        Ok(())
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
