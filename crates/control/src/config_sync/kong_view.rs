//! A configuration as Kong's own data planes get it on protocol v2: what their schemas know, and
//! what is other than in an earlier revision.
//!
//! What such a data plane gets of an entity depends on the entity and on those it [belongs
//! to](sallyport_model::config_table::belongs_to), and on nothing else. So the view of a few
//! entities with all that they belong to is a part of the view of everything, and what leads from
//! one revision to another is seen on what changed and what is around it.

use std::collections::{BTreeMap, HashMap, HashSet};

use sallyport_model::config_table::with_objects;
use sallyport_model::{Kind, schema, to_config_table};
use sallyport_store::{Around, Change};
use sallyport_wire::config_sync::delta::{Delta, REFUSED_MAX, Refused};
use sallyport_wire::config_sync::digest::EntityDigest;
use sallyport_wire::config_sync::edits::edit;
use serde_json::Value;

/// List and id.
pub(super) type Key = (Kind, String);

/// Entities by kind.
pub(super) type Entities = BTreeMap<Kind, Vec<Value>>;

/// What is remembered of an entity that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    digest: EntityDigest,
    /// What no other of its kind may have.
    unique: Vec<(&'static str, String)>,
}

/// Everything that was sent.
pub(super) type Index = HashMap<Key, Sent>;

/// One revision, or a part of it.
#[derive(Debug)]
pub(super) struct KongView {
    pub(super) entities: Vec<(Key, Value)>,
    pub(super) noted: Noted,
}

/// What a class of data planes is not sent as it was written, by list and id.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Noted(BTreeMap<(String, String), Vec<Refused>>);

impl Noted {
    /// The first [`REFUSED_MAX`].
    pub(super) fn first(&self) -> Vec<Refused> {
        let all = self.0.values().flatten();
        all.take(REFUSED_MAX).cloned().collect()
    }

    /// Takes what is noted of a part for what was noted of these entities.
    pub(super) fn replace(&mut self, keys: impl Iterator<Item = Key>, part: Noted) {
        for (kind, id) in keys {
            self.0.remove(&(kind.table().to_owned(), id));
        }
        self.0.extend(part.0);
    }
}

impl KongView {
    /// Of entities as they are stored, without what data planes of a class do not know.
    pub(super) fn of(class: usize, stored: Entities) -> KongView {
        let mut table = to_config_table(stored);
        let mut noted = Noted::default();
        for refused in edit(&mut table, class) {
            let key = (refused.entity_type.clone(), refused.entity_id.clone());
            noted.0.entry(key).or_default().push(refused);
        }
        let mut entities = Vec::new();
        for kind in Kind::ALL {
            let list = table.get_mut(kind.table()).map(Value::take);
            let Some(Value::Array(list)) = list else {
                continue;
            };
            for flat in list {
                let entity = with_objects(kind, flat);
                entities.push(((kind, id_of(&entity)), entity));
            }
        }
        KongView { entities, noted }
    }

    /// What is to be remembered of it.
    pub(super) fn index(&self) -> Index {
        let one = |(key, entity): &(Key, Value)| {
            let sent = Sent {
                digest: EntityDigest::of(key.0.table(), &entity.to_string()),
                unique: schema::index(key.0, entity).unique,
            };
            (key.clone(), sent)
        };
        self.entities.iter().map(one).collect()
    }

    /// All of it.
    pub(super) fn everything(&self) -> Vec<Delta> {
        let all = self.entities.iter();
        all.map(|(key, entity)| delta(key, Some(entity))).collect()
    }

    /// What is other than in an earlier view; `None` if a data plane that takes one change after
    /// the other would not end here, and so has to get everything.
    pub(super) fn since(&self, before: &Index) -> Option<Vec<Delta>> {
        let index = self.index();
        if exchanges(before, &index) {
            return None;
        }
        let changed = self.entities.iter().filter(|(key, _)| {
            before.get(key).map(|it| it.digest) != index.get(key).map(|it| it.digest)
        });
        let gone = before.keys().filter(|key| !index.contains_key(key));
        let there = changed.map(|(key, entity)| delta(key, Some(entity)));
        Some(gone.map(|key| delta(key, None)).chain(there).collect())
    }
}

fn id_of(entity: &Value) -> String {
    entity["id"].as_str().unwrap_or_default().to_owned()
}

fn delta((kind, id): &Key, entity: Option<&Value>) -> Delta {
    Delta {
        table: kind.table().to_owned(),
        id: id.clone(),
        entity: entity.cloned(),
    }
}

/// Whether an entity has a name now that another, which stays, had before. A data plane that
/// takes one after the other would end with neither.
fn exchanges(before: &Index, now: &Index) -> bool {
    let moved = now.iter().filter_map(|(key, now)| {
        let then = before.get(key)?;
        (then.unique != now.unique).then_some((key, then, now))
    });
    let moved: Vec<_> = moved.collect();
    let left: HashSet<_> = moved
        .iter()
        .flat_map(|((kind, _), then, now)| {
            let left = then.unique.iter().filter(|name| !now.unique.contains(name));
            left.map(move |name| (*kind, name))
        })
        .collect();
    let created = now.iter().filter(|(key, _)| !before.contains_key(*key));
    let taken = moved
        .iter()
        .map(|(key, _, now)| (*key, *now))
        .chain(created);
    let mut names = taken.flat_map(|((kind, _), now)| now.unique.iter().map(move |it| (*kind, it)));
    names.any(|name| left.contains(&name))
}

/// What changed and what is around it, as it was at a revision from which on the changes are known.
pub(super) fn part(around: &Around, revision: u64) -> Entities {
    let mut net: BTreeMap<(Kind, &str), (Option<&Value>, bool)> = BTreeMap::new();
    for (kind, change) in of_entities(&around.changes) {
        let (body, is_later) = net.entry((kind, &change.id)).or_default();
        if change.revision <= revision {
            *body = change.after.as_ref();
        } else if !*is_later {
            *body = change.before.as_ref();
            *is_later = true;
        }
    }
    let mut entities = Entities::new();
    let changed = net
        .into_iter()
        .filter_map(|((kind, _), (body, _))| Some((kind, body?)));
    let others = around.others.iter().map(|(kind, body)| (*kind, body));
    for (kind, body) in changed.chain(others) {
        entities.entry(kind).or_default().push(body.clone());
    }
    entities
}

/// Which entities [`part`] is about, those among them that are gone.
pub(super) fn keys(around: &Around) -> impl Iterator<Item = Key> {
    let changed = of_entities(&around.changes).map(|(kind, change)| (kind, change.id.clone()));
    let others = around.others.iter();
    changed.chain(others.map(|(kind, body)| (*kind, id_of(body))))
}

fn of_entities(changes: &[Change]) -> impl Iterator<Item = (Kind, &Change)> {
    changes
        .iter()
        .filter_map(|change| Some((Kind::from_table(&change.kind)?, change)))
}

#[cfg(test)]
mod tests;
