//! The configuration as gateways get it: flat lists per kind, references as bare ids.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::Kind;
use crate::schema::{self, Type};

/// Writes entities (as [`schema::parse_entity`] returns them, with their ids) as the
/// `config_table` of the hybrid protocol and of declarative files.
///
/// Disabled services, their routes, plugins on either, and disabled plugins are left out, so a
/// gateway never sees them. Members that are null are left out too: a gateway fills defaults
/// itself. Kinds without entities have no list. The order of each list is kept.
pub fn to_config_table(mut entities: BTreeMap<Kind, Vec<Value>>) -> Value {
    let id = |entity: &Value| schema::reference(&entity["id"]);
    let points_into = |entity: &Value, field: &str, ids: &BTreeSet<Uuid>| {
        schema::reference(&entity[field]).is_some_and(|id| ids.contains(&id))
    };
    let disabled = |entity: &&Value| entity["enabled"] == Value::Bool(false);
    let all = |kind: Kind| entities.get(&kind).into_iter().flatten();
    let services = all(Kind::Service).filter(disabled).filter_map(id);
    let services: BTreeSet<Uuid> = services.collect();
    let routes: BTreeSet<Uuid> = all(Kind::Route)
        .filter(|route| points_into(route, "service", &services))
        .filter_map(id)
        .collect();
    let live = |kind: Kind, entity: &Value| match kind {
        Kind::Service => !disabled(&entity),
        Kind::Route => !points_into(entity, "service", &services),
        Kind::Plugin => {
            !disabled(&entity)
                && !points_into(entity, "service", &services)
                && !points_into(entity, "route", &routes)
        }
        _ => true,
    };
    let mut table = Map::new();
    table.insert("_format_version".to_owned(), json!("3.0"));
    table.insert("_transform".to_owned(), json!(false));
    for kind in Kind::ALL {
        let list = entities.remove(&kind).unwrap_or_default();
        let list = list.into_iter().filter(|entity| live(kind, entity));
        let list: Vec<Value> = list.map(|entity| flat(kind, entity)).collect();
        if !list.is_empty() {
            table.insert(kind.table().to_owned(), Value::Array(list));
        }
    }
    Value::Object(table)
}

/// What an entity of this kind is served or not together with, by the field that refers to it: a
/// route is not without its service, a plugin neither without its route nor without its service.
pub fn belongs_to(kind: Kind) -> &'static [(&'static str, Kind)] {
    match kind {
        Kind::Route => &[("service", Kind::Service)],
        Kind::Plugin => &[("service", Kind::Service), ("route", Kind::Route)],
        _ => &[],
    }
}

/// Whether what [belongs](belongs_to) to an entity may be served before a change of it and not
/// after it, or the other way round: it was switched on or off, came to another service, or got an
/// expression, which some data planes of Kong do not know, or lost it.
pub fn decides(kind: Kind, before: &Value, after: &Value) -> bool {
    let of = |entity: &Value| match kind {
        Kind::Service => (entity["enabled"] == Value::Bool(false), None),
        Kind::Route => (
            entity["expression"].is_null(),
            schema::reference(&entity["service"]),
        ),
        _ => (false, None),
    };
    of(before) != of(after)
}

/// One entity as it stands in its list: without members that are null, references as bare ids.
pub fn flat(kind: Kind, mut entity: Value) -> Value {
    let Value::Object(members) = &mut entity else {
        return entity;
    };
    let record = &schema::of(kind).record;
    members.retain(|name, value| {
        let Some(field) = record.field(name) else {
            return false;
        };
        if let (Type::Foreign(_), Value::Object(reference)) = (&field.ty, &mut *value) {
            *value = reference.remove("id").unwrap_or_default();
        }
        !value.is_null()
    });
    entity
}

/// The other way round for references: each as an object with the id.
pub fn with_objects(kind: Kind, mut flat: Value) -> Value {
    for field in &schema::of(kind).record.fields {
        if let Type::Foreign(_) = field.ty
            && flat[field.name].is_string()
        {
            flat[field.name] = json!({"id": flat[field.name]});
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_objects_and_what_hangs_on_them_are_left_out() {
        let id = |n: u8| format!("00000000-0000-4000-8000-0000000000{n:02}");
        let entities = BTreeMap::from([
            (
                Kind::Service,
                vec![
                    json!({"id": id(1), "host": "a", "enabled": true, "path": null}),
                    json!({"id": id(2), "host": "b", "enabled": false}),
                ],
            ),
            (
                Kind::Route,
                vec![
                    json!({"id": id(3), "service": {"id": id(1)}}),
                    json!({"id": id(4), "service": {"id": id(2)}}),
                    json!({"id": id(5), "service": null}),
                ],
            ),
            (
                Kind::Plugin,
                vec![
                    json!({"id": id(6), "name": "p", "enabled": true, "route": {"id": id(3)}}),
                    json!({"id": id(7), "name": "p", "enabled": true, "route": {"id": id(4)}}),
                    json!({"id": id(8), "name": "p", "enabled": true, "service": {"id": id(2)}}),
                    json!({"id": id(9), "name": "p", "enabled": false}),
                ],
            ),
        ]);
        assert_eq!(
            to_config_table(entities),
            json!({
                "_format_version": "3.0",
                "_transform": false,
                "services": [{"id": id(1), "host": "a", "enabled": true}],
                "routes": [{"id": id(3), "service": id(1)}, {"id": id(5)}],
                "plugins": [{"id": id(6), "name": "p", "enabled": true, "route": id(3)}],
            })
        );
    }
}
