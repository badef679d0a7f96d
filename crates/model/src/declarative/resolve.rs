//! Ids for objects that lack one, and names that stand for ids.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::flatten::{Item, Items};
use super::problem::Problem;
use crate::Kind;
use crate::schema::{self, Path, Type};

/// The namespace of derived ids (UUIDv5), drawn once. Changing it would change the identity of
/// every object that brings none.
const NAMESPACE: Uuid = Uuid::from_u128(0x5b0c_2d6e_93a1_5f47_8d1c_6a02_7e4b_91d3);

/// The ids of one kind.
#[derive(Default)]
struct Known {
    /// Where each id was declared.
    ids: HashMap<Uuid, String>,
    /// Ids by name, username, and so on.
    names: HashMap<String, Uuid>,
}

/// Gives every object its id and turns every reference into `{"id": …}`.
///
/// A reference that leads nowhere is a problem of the object that has it. It gets the nil id, so
/// that the rest of the object is still checked.
pub(super) fn resolve(items: &mut Items, problems: &mut Vec<Problem>) {
    let mut known: BTreeMap<Kind, Known> = BTreeMap::new();
    // Kind::ALL has what is referred to before what refers, so ids are there when needed.
    for kind in Kind::ALL {
        let mut list = items.remove(&kind).unwrap_or_default();
        let mut here = Known::default();
        for item in &mut list {
            references(item, items, &known, problems);
            identify(item, &mut here, problems);
            let name = schema::of(kind)
                .endpoint_key
                .and_then(|key| item.body.get(key)?.as_str());
            if let (Some(name), Some(id)) = (name, item.id) {
                here.names.entry(name.to_owned()).or_insert(id);
            }
        }
        if kind == Kind::ConsumerGroupMember {
            // a group may name its consumers and they their groups: that is one fact
            let mut seen = HashSet::new();
            list.retain(|item| seen.insert(natural_key(kind, &item.body)));
        }
        known.insert(kind, here);
        items.insert(kind, list);
    }
}

fn references(
    item: &mut Item,
    items: &Items,
    known: &BTreeMap<Kind, Known>,
    problems: &mut Vec<Problem>,
) {
    for field in &schema::of(item.kind).record.fields {
        let Type::Foreign(foreign) = &field.ty else {
            continue;
        };
        let Some(kind) = foreign.kind else { continue };
        if let Some((parent_field, parent_kind, index)) = item.parent
            && parent_field == field.name
        {
            let parent = items.get(&parent_kind).and_then(|list| list.get(index));
            let id = parent.and_then(|parent| parent.id).unwrap_or(Uuid::nil());
            item.body.insert(field.name.to_owned(), json!({ "id": id }));
            continue;
        }
        let Some((wanted, shown)) = item.body.get(field.name).and_then(wanted) else {
            continue;
        };
        let here = known.get(&kind);
        let by_id = wanted
            .id
            .filter(|id| here.is_some_and(|here| here.ids.contains_key(id)));
        let by_name = || here.and_then(|here| here.names.get(wanted.name?).copied());
        let id = by_id.or_else(by_name);
        if id.is_none() {
            let message = format!(
                "invalid reference '{}: {shown}' (no such entry in '{}')",
                field.name,
                kind.table()
            );
            problems.push(item.problem(Path::root().key(field.name), message));
        }
        item.body.insert(
            field.name.to_owned(),
            json!({ "id": id.unwrap_or(Uuid::nil()) }),
        );
    }
}

struct Wanted<'a> {
    id: Option<Uuid>,
    name: Option<&'a str>,
}

/// What a reference asks for, and how to show it; `None` leaves the value to the schema.
fn wanted(value: &Value) -> Option<(Wanted<'_>, String)> {
    let text = match value {
        Value::String(text) => text,
        Value::Object(map) => {
            let id = map.get("id").filter(|id| !id.is_null());
            let name = map.get("name").or_else(|| map.get("username"));
            return match (id, name) {
                (Some(Value::String(id)), _) => {
                    let uuid = schema::canonical_uuid(id)?;
                    Some((
                        Wanted {
                            id: Some(uuid),
                            name: None,
                        },
                        id.clone(),
                    ))
                }
                (None, Some(Value::String(name))) => Some((
                    Wanted {
                        id: None,
                        name: Some(name),
                    },
                    name.clone(),
                )),
                _ => None,
            };
        }
        _ => return None,
    };
    let wanted = Wanted {
        id: schema::canonical_uuid(text),
        name: Some(text),
    };
    Some((wanted, text.clone()))
}

/// Takes the id that the object brings, or derives one.
fn identify(item: &mut Item, here: &mut Known, problems: &mut Vec<Problem>) {
    let table = item.kind.table();
    match item.body.get("id") {
        None | Some(Value::Null) => {
            let id = derive(item);
            item.id = Some(id);
            item.body
                .insert("id".to_owned(), Value::from(id.to_string()));
            // Two objects that derive the same id also clash in the value it derives from.
            here.ids.entry(id).or_insert_with(|| item.at.clone());
        }
        Some(id) => {
            // Anything that is no UUID is left to the schema.
            item.id = id.as_str().and_then(schema::canonical_uuid);
            let Some(id) = item.id else { return };
            if let Some(first) = here.ids.insert(id, item.at.clone()) {
                let message = format!(
                    "uniqueness violation: '{table}' entity with primary key set to '{id}' \
                     already declared at {first}"
                );
                problems.push(item.problem(Path::root().key("id"), message));
                here.ids.insert(id, first);
            }
        }
    }
}

/// A stable id: of what names the object for people, else of where it stands.
fn derive(item: &Item) -> Uuid {
    let table = item.kind.table();
    let key = natural_key(item.kind, &item.body);
    let text = match key {
        Some(key) => format!("{table}:{key}"),
        None => format!("{table}@{}", item.at),
    };
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

fn natural_key(kind: Kind, body: &Map<String, Value>) -> Option<String> {
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    let id = |field: &str| {
        let id = body.get(field).and_then(schema::reference);
        id.map(|id| id.to_string()).unwrap_or_default()
    };
    match kind {
        Kind::Service | Kind::Route | Kind::Upstream | Kind::Sni | Kind::ConsumerGroup => {
            text("name").map(str::to_owned)
        }
        Kind::KeySet => text("name").map(str::to_owned),
        Kind::Key => Some(format!("{}|{}", text("kid")?, id("set"))),
        // unique by itself; of several certificates one text may stand twice
        Kind::CaCertificate => text("cert").map(str::to_owned),
        Kind::Consumer => text("username")
            .map(|name| format!("username={name}"))
            .or_else(|| text("custom_id").map(|other| format!("custom_id={other}"))),
        Kind::Target => {
            let upstream = schema::reference(body.get("upstream")?)?;
            Some(schema::unique_target(upstream, text("target")?)?.1)
        }
        Kind::Plugin => Some(format!(
            "{}|{}|{}|{}{}",
            text("name")?,
            id("route"),
            id("service"),
            id("consumer"),
            match id("consumer_group") {
                none if none.is_empty() => none,
                group => format!("|{group}"),
            }
        )),
        Kind::Vault => text("prefix").map(str::to_owned),
        Kind::ConsumerGroupMember => Some(format!("{}|{}", id("consumer_group"), id("consumer"))),
        Kind::BasicAuth | Kind::HmacAuth => text("username").map(str::to_owned),
        // sent upstream as it is, so no secret
        Kind::Jwt => text("key").map(str::to_owned),
        Kind::Acl => Some(format!("{}|{}", id("consumer"), text("group")?)),
        // An id is sent upstream and logged; one made from the key would help to guess it.
        Kind::KeyAuth | Kind::Certificate => None,
    }
}
