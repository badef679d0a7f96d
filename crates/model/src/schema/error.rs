//! What is wrong with a value, and where.

use std::fmt;

use serde_json::{Map, Value};

/// One step from an entity down to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathPart {
    /// A member of a record or of a map.
    Key(String),
    /// An element of an array or of a set, counted from 0.
    Index(usize),
}

impl From<&str> for PathPart {
    fn from(key: &str) -> PathPart {
        PathPart::Key(key.to_owned())
    }
}

/// The way from an entity to a value inside it; shown like `config.redis.host` or `paths[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub Vec<PathPart>);

impl Path {
    /// The entity itself.
    pub fn root() -> Path {
        Path::default()
    }

    /// This path and one more key.
    pub fn key(&self, key: &str) -> Path {
        let mut parts = self.0.clone();
        parts.push(PathPart::from(key));
        Path(parts)
    }

    /// This path and one more index.
    pub fn index(&self, index: usize) -> Path {
        let mut parts = self.0.clone();
        parts.push(PathPart::Index(index));
        Path(parts)
    }

    /// Whether it is the entity itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            match part {
                PathPart::Key(key) if at == 0 => f.write_str(key)?,
                PathPart::Key(key) => write!(f, ".{key}")?,
                PathPart::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Whether an error belongs to one field or to a rule over several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The value at the path is wrong.
    Field,
    /// A rule over several members of the record at the path does not hold.
    Entity,
}

/// One thing that is wrong with an entity, in Kong's wording where Kong has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldError {
    /// Where; for [`ErrorKind::Entity`] the record whose rule it is.
    pub path: Path,
    /// What is wrong, without the path.
    pub message: String,
    /// Field or rule.
    pub kind: ErrorKind,
}

impl FieldError {
    /// The value at `path` is wrong.
    pub fn field(path: Path, message: impl Into<String>) -> FieldError {
        FieldError {
            path,
            message: message.into(),
            kind: ErrorKind::Field,
        }
    }

    /// A rule of the record at `path` does not hold.
    pub fn entity(path: Path, message: impl Into<String>) -> FieldError {
        FieldError {
            path,
            message: message.into(),
            kind: ErrorKind::Entity,
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_root() {
            true => f.write_str(&self.message),
            false => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// The errors as the `fields` member of a Kong Admin API error: nested like the entity, elements
/// of arrays under their index as a string, rules under `@entity` as a list.
pub fn nested(errors: &[FieldError]) -> Value {
    let mut root = Map::new();
    for error in errors {
        let mut parts: Vec<String> = error
            .path
            .0
            .iter()
            .map(|part| match part {
                PathPart::Key(key) => key.clone(),
                PathPart::Index(index) => index.to_string(),
            })
            .collect();
        let leaf = match error.kind {
            ErrorKind::Entity => "@entity".to_owned(),
            ErrorKind::Field => parts.pop().unwrap_or_else(|| "@entity".to_owned()),
        };
        let mut at = &mut root;
        for part in parts {
            let slot = at.entry(part).or_insert_with(|| Value::Object(Map::new()));
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            at = slot
                .as_object_mut()
                .expect("it was made an object in the line above");
        }
        if leaf == "@entity" {
            let list = at.entry(leaf).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(Value::String(error.message.clone()));
            }
        } else {
            at.entry(leaf)
                .or_insert_with(|| Value::String(error.message.clone()));
        }
    }
    Value::Object(root)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_read_like_code() {
        let path = Path::root()
            .key("healthchecks")
            .key("http_statuses")
            .index(2);
        assert_eq!(path.to_string(), "healthchecks.http_statuses[2]");
        assert_eq!(
            FieldError::entity(Path::root(), "broken").to_string(),
            "broken"
        );
    }

    #[test]
    fn errors_nest_like_the_entity() {
        let errors = [
            FieldError::field(Path::root().key("host"), "required field missing"),
            FieldError::field(
                Path::root().key("config").key("minute"),
                "expected a number",
            ),
            FieldError::field(Path::root().key("paths").index(1), "should start with: /"),
            FieldError::entity(Path::root(), "one"),
            FieldError::entity(Path::root(), "two"),
        ];
        assert_eq!(
            nested(&errors),
            json!({
                "host": "required field missing",
                "config": {"minute": "expected a number"},
                "paths": {"1": "should start with: /"},
                "@entity": ["one", "two"],
            })
        );
    }
}
