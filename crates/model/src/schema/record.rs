//! Records: fields that belong together, and the rules over several of them.

use serde_json::{Map, Value};

use super::error::{FieldError, Path};
use super::field::Field;

/// Fields that belong together, and the rules over several of them.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Members, in the order that schema documents show.
    pub fields: Vec<Field>,
    /// Rules over several members.
    pub checks: Vec<EntityCheck>,
    /// Old names that are still accepted.
    pub aliases: Vec<Alias>,
}

/// An old name of a member, read as if the value stood at `path`.
///
/// The value at `path` wins when both are set. Schema documents do not mention aliases: decK
/// would expect them back in answers.
#[derive(Clone, Debug)]
pub struct Alias {
    /// The old key, in the record that declares the alias.
    pub name: &'static str,
    /// Where the value belongs, from the same record.
    pub path: &'static [&'static str],
}

impl Record {
    /// A record of these fields.
    pub fn new(fields: impl IntoIterator<Item = Field>) -> Record {
        Record {
            fields: fields.into_iter().collect(),
            checks: Vec::new(),
            aliases: Vec::new(),
        }
    }

    /// Adds a rule over several members.
    pub fn check(mut self, check: EntityCheck) -> Record {
        self.checks.push(check);
        self
    }

    /// Accepts `name` for the member at `path`.
    pub fn alias(mut self, name: &'static str, path: &'static [&'static str]) -> Record {
        self.aliases.push(Alias { name, path });
        self
    }

    /// The member of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A rule over several members of a record. Names are members of that record.
#[derive(Clone, Debug)]
pub enum EntityCheck {
    /// At least one is set.
    AtLeastOneOf(&'static [&'static str]),
    /// Exactly one is set.
    OnlyOneOf(&'static [&'static str]),
    /// At most one is set.
    MutuallyExclusive(&'static [&'static str]),
    /// All are set or none is.
    AllOrNone(&'static [&'static str]),
    /// When one member matches, another must match too.
    Conditional {
        /// The member looked at.
        if_field: &'static str,
        /// When the rule applies.
        if_match: Match,
        /// The member that the rule is about.
        then_field: &'static str,
        /// What it must be.
        then_match: Match,
    },
    /// Whatever else. Runs only when `fields` have no error of their own; it sees the record
    /// with defaults filled, and adds errors below the given path.
    Custom {
        /// The members it looks at.
        fields: &'static [&'static str],
        /// The rule.
        run: fn(&Map<String, Value>, &Path, &mut Vec<FieldError>),
    },
}

/// A condition on one member inside a rule.
#[derive(Clone, Copy, Debug)]
pub enum Match {
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// None of these texts.
    NoneOf(&'static [&'static str]),
    /// Set.
    Set,
    /// Unset.
    Null,
    /// Any text but this one.
    Not(&'static str),
}

impl Match {
    fn holds(self, value: &Value) -> bool {
        let text = value.as_str();
        match self {
            Match::OneOf(list) => text.is_some_and(|text| list.contains(&text)),
            Match::NoneOf(list) => !text.is_some_and(|text| list.contains(&text)),
            Match::Set => is_set(value),
            Match::Null => value.is_null(),
            Match::Not(other) => text != Some(other),
        }
    }

    fn message(self) -> String {
        match self {
            Match::OneOf([one]) => format!("value must be {one}"),
            Match::OneOf(list) => format!("expected one of: {}", list.join(", ")),
            Match::NoneOf(list) => format!("must not be one of: {}", list.join(", ")),
            Match::Set => "required field missing".to_owned(),
            Match::Null => "value must be null".to_owned(),
            Match::Not(other) => format!("value must not be {other}"),
        }
    }
}

/// Whether a value counts as set for a rule: not null, and not empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

impl EntityCheck {
    /// The members it looks at.
    pub fn fields(&self) -> Vec<&'static str> {
        match self {
            EntityCheck::AtLeastOneOf(list)
            | EntityCheck::OnlyOneOf(list)
            | EntityCheck::MutuallyExclusive(list)
            | EntityCheck::AllOrNone(list)
            | EntityCheck::Custom { fields: list, .. } => list.to_vec(),
            EntityCheck::Conditional {
                if_field,
                then_field,
                ..
            } => vec![if_field, then_field],
        }
    }

    /// Runs on a record whose defaults are filled; `path` is where the record is.
    pub fn run(&self, record: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
        let get = |name: &str| record.get(name).unwrap_or(&Value::Null);
        let set = |list: &[&str]| list.iter().filter(|name| is_set(get(name))).count();
        let names = |list: &[&str]| {
            let quoted: Vec<String> = list
                .iter()
                .map(|name| format!("'{}'", path.key(name)))
                .collect();
            quoted.join(", ")
        };
        let mut fail = |message: String| errors.push(FieldError::entity(path.clone(), message));
        match self {
            EntityCheck::AtLeastOneOf(list) if set(list) == 0 => {
                fail(format!(
                    "at least one of these fields must be non-empty: {}",
                    names(list)
                ));
            }
            EntityCheck::OnlyOneOf(list) if set(list) != 1 => {
                fail(format!(
                    "exactly one of these fields must be non-empty: {}",
                    names(list)
                ));
            }
            EntityCheck::MutuallyExclusive(list) if set(list) > 1 => {
                fail(format!(
                    "only one of these fields may be set: {}",
                    names(list)
                ));
            }
            EntityCheck::AllOrNone(list) if set(list) != 0 && set(list) != list.len() => {
                fail(format!(
                    "all or none of these fields must be set: {}",
                    names(list)
                ));
            }
            EntityCheck::Conditional {
                if_field,
                if_match,
                then_field,
                then_match,
            } if if_match.holds(get(if_field)) && !then_match.holds(get(then_field)) => {
                fail(format!(
                    "failed conditional validation given value of field '{}'",
                    path.key(if_field)
                ));
                errors.push(FieldError::field(
                    path.key(then_field),
                    then_match.message(),
                ));
            }
            EntityCheck::Custom { run, .. } => run(record, path, errors),
            EntityCheck::AtLeastOneOf(_)
            | EntityCheck::OnlyOneOf(_)
            | EntityCheck::MutuallyExclusive(_)
            | EntityCheck::AllOrNone(_)
            | EntityCheck::Conditional { .. } => {}
        }
    }
}
