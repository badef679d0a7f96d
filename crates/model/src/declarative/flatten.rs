//! From the nested document to one flat list of objects per kind.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::problem::{ObjectRef, Place, Problem};
use super::{Format, Warning};
use crate::Kind;
use crate::schema::Path;

/// One object of the document on its way to an entity.
pub(super) struct Item {
    pub(super) kind: Kind,
    /// Where it stands, such as `services[2].routes[0]`.
    pub(super) at: String,
    /// Its members, without nested objects and comments.
    pub(super) body: Map<String, Value>,
    /// The object it is nested in: field that refers to it, kind and index in that kind's list.
    pub(super) parent: Option<(&'static str, Kind, usize)>,
    /// Its id, once known.
    pub(super) id: Option<Uuid>,
}

impl Item {
    pub(super) fn problem(&self, path: Path, message: impl Into<String>) -> Problem {
        let name = label(self.kind).and_then(|field| self.body.get(field)?.as_str());
        let object = ObjectRef {
            kind: self.kind,
            at: self.at.clone(),
            name: name.map(str::to_owned),
            id: self.id,
        };
        Problem {
            place: Place::Object(object),
            path,
            message: message.into(),
        }
    }
}

/// The field that tells people which object it is. Keys are secrets.
pub fn label(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Service
        | Kind::Route
        | Kind::Plugin
        | Kind::Upstream
        | Kind::Sni
        | Kind::ConsumerGroup
        | Kind::Key
        | Kind::KeySet => Some("name"),
        Kind::Vault => Some("prefix"),
        Kind::Consumer | Kind::BasicAuth | Kind::HmacAuth => Some("username"),
        Kind::Target => Some("target"),
        Kind::Acl => Some("group"),
        Kind::KeyAuth
        | Kind::Jwt
        | Kind::Certificate
        | Kind::CaCertificate
        | Kind::ConsumerGroupMember => None,
    }
}

/// Objects of each kind, in document order.
pub(super) type Items = BTreeMap<Kind, Vec<Item>>;

/// What nests in what: key, kind, and the field of the nested object that refers back.
fn nested(kind: Kind) -> &'static [(&'static str, Kind, &'static str)] {
    match kind {
        Kind::Service => &[
            ("routes", Kind::Route, "service"),
            ("plugins", Kind::Plugin, "service"),
        ],
        Kind::Route => &[("plugins", Kind::Plugin, "route")],
        Kind::Consumer => &[
            ("keyauth_credentials", Kind::KeyAuth, "consumer"),
            ("basicauth_credentials", Kind::BasicAuth, "consumer"),
            ("hmacauth_credentials", Kind::HmacAuth, "consumer"),
            ("jwt_secrets", Kind::Jwt, "consumer"),
            ("acls", Kind::Acl, "consumer"),
            ("plugins", Kind::Plugin, "consumer"),
            // the groups that it is in, by their names
            ("groups", Kind::ConsumerGroupMember, "consumer"),
        ],
        Kind::ConsumerGroup => &[
            ("plugins", Kind::Plugin, "consumer_group"),
            // who is in it, by their names
            ("consumers", Kind::ConsumerGroupMember, "consumer_group"),
        ],
        Kind::KeySet => &[("keys", Kind::Key, "set")],
        Kind::Certificate => &[("snis", Kind::Sni, "certificate")],
        Kind::Upstream => &[("targets", Kind::Target, "upstream")],
        _ => &[],
    }
}

/// Lists that Kong knows and this build does not.
const UNSUPPORTED: &[&str] = &[
    "acme_storage",
    "filter_chains",
    "mtls_auth_credentials",
    "oauth2_authorization_codes",
    "oauth2_credentials",
    "oauth2_tokens",
];

/// Those of [`UNSUPPORTED`] that nest in an object.
fn unsupported_in(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Service | Kind::Route => &["filter_chains"],
        Kind::Consumer => &["mtls_auth_credentials", "oauth2_credentials"],
        _ => &[],
    }
}

/// Lists that every Kong control plane sends, and `kong config db_export` writes, and that mean
/// nothing here.
const MEANINGLESS: &[&str] = &["workspaces", "parameters"];

/// Keys for people and tools, allowed in the document and in every object.
const COMMENTS: &[&str] = &["_comment", "_ignore", "_info"];

pub(super) struct Flattener<'a> {
    pub(super) format: Format,
    pub(super) items: Items,
    pub(super) problems: &'a mut Vec<Problem>,
    pub(super) warnings: &'a mut Vec<Warning>,
}

impl Flattener<'_> {
    /// Takes all objects out of the document; reads no field of them.
    pub(super) fn document(&mut self, mut document: Map<String, Value>) {
        for key in COMMENTS.iter().chain(&["_format_version", "_transform"]) {
            document.remove(*key);
        }
        for kind in Kind::ALL {
            if let Some(list) = document.remove(kind.table()) {
                self.list(kind, list, kind.table(), None);
            }
        }
        for (key, value) in document {
            self.leftover(&key, &value);
        }
    }

    /// A member of the document that is none of our kinds.
    fn leftover(&mut self, key: &str, value: &Value) {
        let mut problem = |message: String| {
            let path = Path::root().key(key);
            self.problems.push(Problem {
                place: Place::Document,
                path,
                message,
            });
        };
        match self.format {
            _ if is_empty(value) && UNSUPPORTED.contains(&key) => {}
            Format::File if UNSUPPORTED.contains(&key) => {
                problem(format!("{key} are not supported by this build"));
            }
            Format::File if MEANINGLESS.contains(&key) => {
                self.warnings.push(Warning(format!(
                    "{key} mean nothing to this build, ignored"
                )));
            }
            Format::File => problem("unknown field".to_owned()),
            Format::Payload if is_empty(value) || MEANINGLESS.contains(&key) => {}
            Format::Payload => {
                self.warnings.push(Warning(format!(
                    "{key} are not supported by this build, ignored"
                )));
            }
        }
    }

    fn list(
        &mut self,
        kind: Kind,
        list: Value,
        at: &str,
        parent: Option<(&'static str, Kind, usize)>,
    ) {
        let list = match list {
            Value::Null => return,
            Value::Array(list) => list,
            Value::Object(map) if map.is_empty() => return,
            _ => {
                self.problems.push(Problem {
                    place: Place::Document,
                    path: Path::root().key(at),
                    message: "expected an array".to_owned(),
                });
                return;
            }
        };
        for (index, value) in list.into_iter().enumerate() {
            self.object(kind, value, format!("{at}[{index}]"), parent);
        }
    }

    fn object(
        &mut self,
        kind: Kind,
        value: Value,
        at: String,
        parent: Option<(&'static str, Kind, usize)>,
    ) {
        let (mut body, is_record) = match value {
            named if let Some(body) = membership(kind, parent, &named) => (body, true),
            Value::Object(body) => (body, true),
            _ => (Map::new(), false),
        };
        for key in COMMENTS {
            body.remove(*key);
        }
        let children: Vec<_> = nested(kind)
            .iter()
            .filter_map(|(key, child, field)| Some((*key, *child, *field, body.remove(*key)?)))
            .collect();
        let mut item = Item {
            kind,
            at,
            body,
            parent,
            id: None,
        };
        if !is_record {
            self.problems
                .push(item.problem(Path::root(), "expected a record"));
            return;
        }
        for key in unsupported_in(kind) {
            match (item.body.remove(*key), self.format) {
                (Some(list), Format::File) if !is_empty(&list) => {
                    let message = format!("{key} are not supported by this build");
                    self.problems
                        .push(item.problem(Path::root().key(key), message));
                }
                (Some(list), Format::Payload) if !is_empty(&list) => {
                    let at = &item.at;
                    let text = format!("{at}.{key} are not supported by this build, ignored");
                    self.warnings.push(Warning(text));
                }
                _ => {}
            }
        }
        if let Some((field, ..)) = parent {
            if item.body.get(field).is_some_and(|value| !value.is_null()) {
                let message = format!("must not be set on a {kind} that is nested");
                self.problems
                    .push(item.problem(Path::root().key(field), message));
            }
            item.body.insert(field.to_owned(), json!({}));
        }
        let at = item.at.clone();
        let list = self.items.entry(kind).or_default();
        list.push(item);
        let index = list.len() - 1;
        for (key, child, field, value) in children {
            self.list(
                child,
                value,
                &format!("{at}.{key}"),
                Some((field, kind, index)),
            );
        }
    }
}

/// An element of a list that names who is in a group, or the groups of somebody.
fn membership(
    kind: Kind,
    parent: Option<(&'static str, Kind, usize)>,
    named: &Value,
) -> Option<Map<String, Value>> {
    let (field, ..) = parent.filter(|_| kind == Kind::ConsumerGroupMember)?;
    let other = match field {
        "consumer" => "consumer_group",
        _ => "consumer",
    };
    let named = match named {
        Value::Object(members) => {
            // what else is told of it stands where it is declared
            let by = ["id", "name", "username"];
            let by = by.into_iter().find(|by| members.contains_key(*by))?;
            json!({ by: members[by] })
        }
        text => text.clone(),
    };
    Some(Map::from_iter([(other.to_owned(), named)]))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
