//! Kong's declarative format: the configuration of a gateway as one document.
//!
//! Two dialects. [`Format::File`] is written by people: objects nest, names stand for ids, ids
//! may be missing. [`Format::Payload`] is what a control plane sends over the hybrid protocol:
//! flat, complete, and perhaps newer than this build. Both become the same [`Declared`].

mod flatten;
#[cfg(test)]
mod group_tests;
mod problem;
mod resolve;
#[cfg(test)]
mod tests;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use flatten::label;
pub use problem::{ObjectRef, Place, Problem};

use crate::Kind;
use crate::basic_auth;
use crate::config_table::to_config_table;
use crate::entities::ConfigTable;
use crate::schema::{self, Mode, Path, PluginSchemas};
use flatten::{Flattener, Item, Items};

/// Who wrote the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// People: everything unknown is a problem.
    File,
    /// A control plane: unknown lists are ignored with a warning, unknown members that are null
    /// without one.
    Payload,
}

/// Something that was left aside; one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A document that is right in every part.
#[derive(Clone, Debug)]
pub struct Declared {
    /// What a gateway runs. Disabled services and plugins, and what hangs on them, are not in.
    pub table: ConfigTable,
    /// The same as a flat `config_table`: format 3.0, all ids, all defaults. Parsing it again
    /// gives the same value.
    pub value: Value,
    /// What was left aside.
    pub warnings: Vec<Warning>,
}

/// Parses a document.
///
/// Formats 1.1, 2.1 and 3.0. In the first two, route paths that look like regular expressions
/// get the `~` that 3.0 wants. Passwords are hashed unless `_transform` is false. Ids that are missing are derived: the same document gives the
/// same ids.
///
/// # Errors
/// Every problem of the document: wrong types, unknown fields, unknown plugins, references that
/// lead nowhere, values that must be unique and are not.
pub fn parse(
    document: Value,
    format: Format,
    plugins: &dyn PluginSchemas,
) -> Result<Declared, Vec<Problem>> {
    let document_problem = |message: &str| {
        vec![Problem {
            place: Place::Document,
            path: Path::root(),
            message: message.to_owned(),
        }]
    };
    if deeper_than(&document, text::DEPTH_MAX) {
        let message = format!("nested more than {} levels deep", text::DEPTH_MAX);
        return Err(document_problem(&message));
    }
    let Value::Object(document) = document else {
        return Err(document_problem(
            "expected an object with _format_version and entities",
        ));
    };
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let old_paths = head(&document, &mut problems);
    // `false`: passwords are hashes already
    let transform = document.get("_transform") != Some(&Value::Bool(false));
    let mut flattener = Flattener {
        format,
        items: Items::new(),
        problems: &mut problems,
        warnings: &mut warnings,
    };
    flattener.document(document);
    let mut items = flattener.items;
    if old_paths {
        items
            .entry(Kind::Route)
            .or_default()
            .iter_mut()
            .for_each(mark_regex_paths);
    }
    resolve::resolve(&mut items, &mut problems);
    let mut entities = check(items, format, plugins, &mut problems);
    if format == Format::File {
        authorities_are_there(&entities, &mut problems);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if transform {
        let passwords = entities.get_mut(&Kind::BasicAuth);
        passwords
            .into_iter()
            .flatten()
            .for_each(basic_auth::hash_entity);
    }
    let value = to_config_table(entities);
    match ConfigTable::deserialize(&value) {
        Ok(table) => Ok(Declared {
            table,
            value,
            warnings,
        }),
        Err(error) => Err(document_problem(&format!(
            "the schema accepts what the gateway's types do not, please report this: {error}"
        ))),
    }
}

/// [`parse`] for a file's text: YAML, or JSON.
///
/// # Errors
/// As [`parse`], or one problem with line and column if the text is neither.
pub fn parse_text(
    text: &str,
    format: Format,
    plugins: &dyn PluginSchemas,
) -> Result<Declared, Vec<Problem>> {
    let document = text::read(text).map_err(|problem| vec![problem])?;
    parse(document, format, plugins)
}

/// Checks the members with an underscore; whether paths are of a format before 3.0.
fn head(document: &Map<String, Value>, problems: &mut Vec<Problem>) -> bool {
    let mut problem = |key: &str, message: &str| {
        problems.push(Problem {
            place: Place::Document,
            path: Path::root().key(key),
            message: message.to_owned(),
        });
    };
    if !matches!(
        document.get("_transform"),
        None | Some(Value::Null | Value::Bool(_))
    ) {
        problem("_transform", "expected a boolean");
    }
    let version = match document.get("_format_version") {
        Some(Value::String(version)) => version.clone(),
        // YAML without quotes.
        Some(Value::Number(number)) => number.to_string(),
        None | Some(Value::Null) => {
            problem(
                "_format_version",
                "required field missing; write _format_version: \"3.0\"",
            );
            return false;
        }
        Some(_) => {
            problem("_format_version", "expected a string");
            return false;
        }
    };
    match version.as_str() {
        "3.0" => false,
        "1.1" | "2.1" => true,
        _ => {
            problem("_format_version", "expected one of: 1.1, 2.1, 3.0");
            false
        }
    }
}

/// Before 3.0 a path with other characters than these was a regular expression.
fn mark_regex_paths(route: &mut Item) {
    let Some(Value::Array(paths)) = route.body.get_mut("paths") else {
        return;
    };
    for path in paths {
        let Value::String(path) = path else { continue };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_~/%".contains(&b);
        if !path.starts_with('~') && !path.bytes().all(plain) {
            path.insert(0, '~');
        }
    }
}

/// Checks each object by its schema, and all of them against each other.
fn check(
    items: Items,
    format: Format,
    plugins: &dyn PluginSchemas,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Kind, Vec<Value>> {
    let mode = match format {
        Format::File => Mode::Strict,
        Format::Payload => Mode::Payload,
    };
    let mut entities: BTreeMap<Kind, Vec<Value>> = BTreeMap::new();
    for (kind, list) in items {
        let mut taken: HashMap<(&'static str, String), String> = HashMap::new();
        let mut good = Vec::with_capacity(list.len());
        for mut item in list {
            let label = item.problem(Path::root(), "");
            let body = Value::Object(std::mem::take(&mut item.body));
            let names = match format {
                Format::File => unique_fields(kind, &body),
                Format::Payload => Vec::new(),
            };
            let entity = match schema::parse_entity_in(kind, body, mode, plugins) {
                Ok(entity) => entity,
                Err(errors) => {
                    problems.extend(errors.into_iter().map(|error| Problem {
                        path: error.path,
                        message: error.message,
                        ..label.clone()
                    }));
                    // A name is taken, however wrong the rest of the object is.
                    claim(kind, names, &item.at, &label, &mut taken, problems);
                    continue;
                }
            };
            for field in missing_secrets(kind, &entity) {
                problems.push(Problem {
                    path: Path::root().key(field),
                    message: "required field missing; a document cannot have one generated"
                        .to_owned(),
                    ..label.clone()
                });
            }
            let unique = schema::index(kind, &entity).unique;
            claim(kind, unique, &item.at, &label, &mut taken, problems);
            good.push(entity);
        }
        entities.insert(kind, good);
    }
    entities
}

/// A list of ids is no reference by its type. A control plane checks its own.
fn authorities_are_there(entities: &BTreeMap<Kind, Vec<Value>>, problems: &mut Vec<Problem>) {
    let all = |kind: Kind| entities.get(&kind).into_iter().flatten().enumerate();
    let is_there = |id: &Value| all(Kind::CaCertificate).any(|(_, ca)| ca["id"] == *id);
    for (at, service) in all(Kind::Service) {
        let wanted = service["ca_certificates"].as_array().into_iter().flatten();
        for (index, id) in wanted.enumerate().filter(|(_, id)| !is_there(id)) {
            let object = ObjectRef {
                kind: Kind::Service,
                at: format!("services[{at}]"),
                name: service["name"].as_str().map(str::to_owned),
                id: schema::reference(&service["id"]),
            };
            problems.push(Problem {
                place: Place::Object(object),
                path: Path::root().key("ca_certificates").index(index),
                message: format!("there is no CA certificate {id}"),
            });
        }
    }
}

/// Secrets that a control plane would have generated, and that a document must bring.
fn missing_secrets(kind: Kind, entity: &Value) -> impl Iterator<Item = &'static str> {
    // a token that is signed with a private key needs no shared secret
    let needless = kind == Kind::Jwt
        && entity["algorithm"]
            .as_str()
            .is_some_and(|name| !name.starts_with("HS"));
    schema::generated(kind)
        .filter(move |field| !(needless && *field == "secret"))
        .filter(|field| entity[*field].is_null())
}

/// Unique fields and their values.
type Unique = Vec<(&'static str, String)>;

/// What an object that was not checked yet has in fields that are unique of themselves.
fn unique_fields(kind: Kind, body: &Value) -> Unique {
    let fields = schema::of(kind).record.fields.iter();
    fields
        .filter(|field| field.unique)
        .filter_map(|field| Some((field.name, body[field.name].as_str()?.to_owned())))
        .collect()
}

/// Notes what the object at `at` has taken, and what was taken before it.
fn claim(
    kind: Kind,
    unique: Unique,
    at: &str,
    label: &Problem,
    taken: &mut HashMap<(&'static str, String), String>,
    problems: &mut Vec<Problem>,
) {
    for (field, value) in unique {
        if let Some(first) = taken.get(&(field, value.clone())) {
            let message = clash(kind, field, &value, first);
            let path = match field.contains(',') {
                true => Path::root(),
                false => Path::root().key(field),
            };
            problems.push(Problem {
                path,
                message,
                ..label.clone()
            });
        } else {
            taken.insert((field, value), at.to_owned());
        }
    }
}

fn clash(kind: Kind, field: &str, value: &str, first: &str) -> String {
    let secret = schema::of(kind)
        .record
        .field(field)
        .is_some_and(|field| field.encrypted);
    let value = if secret { "***" } else { value };
    let table = kind.table();
    match field.contains(',') {
        true => format!(
            "uniqueness violation: '{table}' entity with the same {field} already declared at \
             {first}"
        ),
        false => format!(
            "uniqueness violation: '{table}' entity with {field} set to '{value}' already \
             declared at {first}"
        ),
    }
}

/// Whether a value has more than `levels` levels; looks no deeper than that.
fn deeper_than(value: &Value, levels: usize) -> bool {
    let mut deeper = |value: &Value| levels == 0 || deeper_than(value, levels - 1);
    match value {
        Value::Array(list) => list.iter().any(&mut deeper),
        Value::Object(map) => map.values().any(&mut deeper),
        _ => false,
    }
}

/// The document of no configuration at all.
pub fn empty() -> Value {
    json!({"_format_version": "3.0", "_transform": false})
}
