//! Lists and single entities.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sallyport_model::Kind;
use sallyport_model::schema::{self, Type};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::AdminError;
use crate::entities::{Entities, Entry};

const SIZE: usize = 100;
const SIZE_MAX: usize = 1000;

type Query = [(String, String)];
type Found = Result<Value, AdminError>;

/// An entity as the Admin API shows it: fields that are not set are null.
fn shown(kind: Kind, raw: &RawValue) -> Value {
    let mut entity: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    if let Value::Object(members) = &mut entity {
        for field in &schema::of(kind).record.fields {
            members.entry(field.name).or_insert(Value::Null);
        }
    }
    entity
}

/// Which entities a list takes.
struct Filter<'a> {
    parent: Option<(&'a str, Uuid)>,
    tags: Option<Tags>,
    custom_id: Option<&'a str>,
}

enum Tags {
    All(Vec<String>),
    Any(Vec<String>),
}

impl Filter<'_> {
    fn takes(&self, entity: &Value) -> bool {
        let has = |tag: &String| {
            let tags = entity["tags"].as_array();
            tags.is_some_and(|tags| tags.iter().any(|own| own == tag.as_str()))
        };
        let tagged = match &self.tags {
            None => true,
            Some(Tags::All(tags)) => tags.iter().all(has),
            Some(Tags::Any(tags)) => tags.iter().any(has),
        };
        let belongs = self
            .parent
            .is_none_or(|(field, id)| refers_to(entity, field) == Some(id));
        let custom = self
            .custom_id
            .is_none_or(|custom_id| entity["custom_id"] == custom_id);
        tagged && belongs && custom
    }

    /// Whether the text can be of an entity that is taken; spares parsing most others.
    fn may_take(&self, text: &str) -> bool {
        self.parent
            .is_none_or(|(_, id)| text.contains(&id.to_string()))
    }

    fn is_open(&self) -> bool {
        self.parent.is_none() && self.tags.is_none() && self.custom_id.is_none()
    }
}

fn refers_to(entity: &Value, field: &str) -> Option<Uuid> {
    entity[field]["id"].as_str()?.parse().ok()
}

/// `GET /{collection}`.
pub(super) fn list(
    all: &Entities,
    kind: Kind,
    parent: Option<(&str, Uuid, &str)>,
    query: &Query,
) -> Found {
    let argument = |wanted: &str| {
        let found = query.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    let size = match argument("size") {
        None => SIZE,
        Some(size) => size
            .parse()
            .ok()
            .filter(|size| (1..=SIZE_MAX).contains(size))
            .ok_or(AdminError::Size)?,
    };
    let after = argument("offset").map(offset).transpose()?;
    let filter = Filter {
        parent: parent.map(|(field, id, _)| (field, id)),
        tags: argument("tags").map(tags_of).transpose()?,
        custom_id: argument("custom_id").filter(|_| kind == Kind::Consumer),
    };
    let listed = all.all(kind);
    let from = after.map_or(0, |after| listed.partition_point(|entry| entry.id <= after));
    let mut data = Vec::new();
    let mut last = None;
    let mut next = None;
    for Entry { id, raw, .. } in listed[from..].iter().copied() {
        if !filter.may_take(raw.get()) {
            continue;
        }
        if data.len() == size && filter.is_open() {
            next = last;
            break;
        }
        let entity = shown(kind, raw);
        if !filter.takes(&entity) {
            continue;
        }
        if data.len() == size {
            next = last;
            break;
        }
        data.push(entity);
        last = Some(*id);
    }
    let Some(next) = next else {
        return Ok(json!({"data": data, "next": null}));
    };
    let offset = URL_SAFE_NO_PAD.encode(next.as_bytes());
    let path = match parent {
        Some((_, _, path)) => path.to_owned(),
        None => format!("/{}", kind.collection()),
    };
    let mut next = format!("{path}?offset={offset}");
    for name in ["tags", "size"] {
        if let Some(value) = argument(name) {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            next.push_str(&format!("&{name}={value}"));
        }
    }
    Ok(json!({"data": data, "next": next, "offset": offset}))
}

fn offset(text: &str) -> Result<Uuid, AdminError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let id = bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok());
    id.ok_or_else(|| AdminError::Offset(text.to_owned()))
}

fn tags_of(text: &str) -> Result<Tags, AdminError> {
    let split = |at| text.split(at).map(str::to_owned).collect::<Vec<String>>();
    let (tags, list) = match (text.contains(','), text.contains('/')) {
        (true, true) => {
            let text = "invalid filter syntax".to_owned();
            return Err(AdminError::Options(text));
        }
        (_, true) => (Tags::Any(split('/')), split('/')),
        (_, false) => (Tags::All(split(',')), split(',')),
    };
    match list.iter().any(String::is_empty) {
        true => Err(AdminError::Options("cannot be null".to_owned())),
        false => Ok(tags),
    }
}

/// An entity by id, or by the field that names its kind in URLs.
fn find(all: &Entities, kind: Kind, key: &str) -> Option<Value> {
    if key.len() == 36
        && let Ok(id) = key.parse()
    {
        return all.get(kind, id).map(|raw| shown(kind, raw));
    }
    let field = schema::of(kind).endpoint_key?;
    // texts that do not hold the name at all are not parsed
    let text = Value::from(key).to_string();
    all.all(kind)
        .iter()
        .filter(|entry| entry.raw.get().contains(&text))
        .map(|entry| shown(kind, &entry.raw))
        .find(|entity| entity[field] == key)
}

fn id_of(entity: &Value) -> Option<Uuid> {
    entity["id"].as_str()?.parse().ok()
}

/// `GET /{collection}/{key}`.
pub(super) fn one(all: &Entities, kind: Kind, key: &str) -> Found {
    find(all, kind, key).ok_or(AdminError::NotFound)
}

/// `GET /consumer_groups/{key}`: in the form that clients know, with its consumers and plugins.
pub(super) fn group(all: &Entities, key: &str, query: &Query) -> Found {
    let group = one(all, Kind::ConsumerGroup, key)?;
    let id = id_of(&group).ok_or(AdminError::NotFound)?;
    let plugins = all.all(Kind::Plugin).into_iter();
    let plugins = plugins.filter(|entry| entry.raw.get().contains(&id.to_string()));
    let plugins = plugins.map(|entry| shown(Kind::Plugin, &entry.raw));
    let plugins = plugins.filter(|plugin| refers_to(plugin, "consumer_group") == Some(id));
    let mut answer = json!({"consumer_group": group, "plugins": Vec::from_iter(plugins)});
    let spared = |(name, value): &(String, String)| name == "list_consumers" && value == "false";
    if !query.iter().any(spared) {
        let consumers = others(all, Kind::ConsumerGroup, id).into_iter();
        answer["consumers"] = consumers.map(|(_, other)| other).collect();
    }
    Ok(answer)
}

/// The entities on the other side of the memberships of one, by the ids of the memberships.
fn others(all: &Entities, of: Kind, id: Uuid) -> Vec<(Uuid, Value)> {
    let (field, other, kind) = match of {
        Kind::ConsumerGroup => ("consumer_group", "consumer", Kind::Consumer),
        _ => ("consumer", "consumer_group", Kind::ConsumerGroup),
    };
    let of = |entry: &Entry| {
        if !entry.raw.get().contains(&id.to_string()) {
            return None;
        }
        let membership = shown(Kind::ConsumerGroupMember, &entry.raw);
        let member = refers_to(&membership, field) == Some(id);
        let other = refers_to(&membership, other).filter(|_| member)?;
        Some((entry.id, shown(kind, all.get(kind, other)?)))
    };
    let memberships = all.all(Kind::ConsumerGroupMember).into_iter();
    memberships.filter_map(of).collect()
}

/// `GET /consumer_groups/{key}/consumers` and `GET /consumers/{key}/consumer_groups`.
pub(super) fn members(all: &Entities, (of, key): (Kind, &str), path: &str, query: &Query) -> Found {
    let argument = |wanted: &str| {
        let found = query.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    let size = argument("size").map_or(Some(SIZE), |size| size.parse().ok());
    let size = size.filter(|size| (1..=SIZE_MAX).contains(size));
    let size = size.ok_or(AdminError::Size)?;
    let after = argument("offset").map(offset).transpose()?;
    let id = id_of(&one(all, of, key)?).ok_or(AdminError::NotFound)?;
    let mut others = others(all, of, id);
    others.retain(|(own, _)| after.is_none_or(|after| *own > after));
    let next = (others.len() > size).then(|| others[size - 1].0);
    let data: Vec<Value> = others.into_iter().take(size).map(|(_, it)| it).collect();
    let name = match of {
        Kind::ConsumerGroup => "consumers",
        _ => "consumer_groups",
    };
    let Some(next) = next else {
        return Ok(json!({"data": data, name: data, "next": null}));
    };
    let offset = URL_SAFE_NO_PAD.encode(next.as_bytes());
    let next = format!("{path}?offset={offset}&size={size}");
    Ok(json!({"data": data, name: data, "next": next, "offset": offset}))
}

/// `GET /{parents}/{key}/{children}`.
pub(super) fn list_below(
    all: &Entities,
    (parent, key): (Kind, &str),
    child: Kind,
    field: &'static str,
    path: &str,
    query: &Query,
) -> Found {
    let parent = find(all, parent, key);
    let id = parent
        .as_ref()
        .and_then(id_of)
        .ok_or(AdminError::NotFound)?;
    list(all, child, Some((field, id, path)), query)
}

/// `GET /{parents}/{key}/{children}/{key}`.
pub(super) fn one_below(
    all: &Entities,
    (parent, key): (Kind, &str),
    child: Kind,
    field: &'static str,
    child_key: &str,
) -> Found {
    let parent = find(all, parent, key);
    let id = parent
        .as_ref()
        .and_then(id_of)
        .ok_or(AdminError::NotFound)?;
    let belongs = |entity: &Value| refers_to(entity, field) == Some(id);
    let found = match child {
        // the same address may be in several upstreams
        Kind::Target if child_key.parse::<Uuid>().is_err() => {
            let all = all
                .all(child)
                .into_iter()
                .map(|entry| shown(child, &entry.raw));
            all.filter(belongs)
                .find(|target| target["target"] == child_key)
        }
        _ => find(all, child, child_key),
    };
    found.filter(belongs).ok_or(AdminError::NotFound)
}

/// `GET /{collection}/{key}/{field}`: the entity that the field refers to.
pub(super) fn foreign(all: &Entities, kind: Kind, key: &str, field: &'static str) -> Found {
    let entity = one(all, kind, key)?;
    let id = refers_to(&entity, field).ok_or(AdminError::NotFound)?;
    let record = &schema::of(kind).record;
    let referred = record.field(field).and_then(|field| match &field.ty {
        Type::Foreign(foreign) => foreign.kind,
        _ => None,
    });
    let referred = referred.ok_or(AdminError::NotFound)?;
    let raw = all.get(referred, id).ok_or(AdminError::NotFound)?;
    Ok(shown(referred, raw))
}

/// `GET /tags` and `GET /tags/{tag}`.
pub(super) fn tags(all: &Entities, tag: Option<&str>, query: &Query) -> Found {
    let size = query.iter().find(|(name, _)| name == "size");
    let size = size.map_or(Some(SIZE), |(_, size)| size.parse().ok());
    let size = size.filter(|size| (1..=SIZE_MAX).contains(size));
    let size = size.ok_or(AdminError::Size)?;
    let after = query.iter().find(|(name, _)| name == "offset");
    let after = after.map(|(_, offset)| offset.parse::<usize>());
    let after = after.transpose();
    let after = after.map_err(|_| AdminError::Offset(String::new()))?;
    let mut found = BTreeSet::new();
    for kind in Kind::ALL {
        for Entry { id, raw, .. } in all.all(kind) {
            if !raw.get().contains("\"tags\":[") {
                continue;
            }
            let entity: Value = serde_json::from_str(raw.get()).unwrap_or_default();
            let tags = entity["tags"].as_array().into_iter().flatten();
            for own in tags.filter_map(Value::as_str) {
                if tag.is_none_or(|tag| tag == own) {
                    found.insert((kind.table(), *id, own.to_owned()));
                }
            }
        }
    }
    let from = after.unwrap_or(0).min(found.len());
    let entry = |(table, id, tag): &(&str, Uuid, String)| json!({"entity_name": table, "entity_id": id, "tag": tag});
    let data: Vec<Value> = found.iter().skip(from).take(size).map(entry).collect();
    let to = from + data.len();
    if to >= found.len() {
        return Ok(json!({"data": data, "next": null}));
    }
    let path = tag.map_or_else(
        || "/tags".to_owned(),
        |tag| format!("/tags/{}", utf8_percent_encode(tag, NON_ALPHANUMERIC)),
    );
    let next = format!("{path}?offset={to}&size={size}");
    Ok(json!({"data": data, "next": next, "offset": to.to_string()}))
}
