//! What a control plane has published, entity by entity, and what of it is served.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{Delta, Refused, SyncVersion};
use sallyport_wire::config_sync::digest::{EntityDigest, SetDigest};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Member of a stored table with what is served in the place of refused entities.
const KEPT: &str = "_kept";

type Key = (Kind, Uuid);

/// One entity. Text is the smallest form of it.
#[derive(Clone)]
struct Held {
    /// As published.
    text: Arc<str>,
    digest: EntityDigest,
}

/// All entities of one version.
#[derive(Clone, Default)]
pub(super) struct Source {
    version: Option<SyncVersion>,
    published: SetDigest,
    entities: HashMap<Key, Held>,
    /// Entities of kinds that this build does not know, by list and id.
    others: HashMap<(String, String), EntityDigest>,
    /// Entities that are not served as published, with what is served instead.
    refused: BTreeMap<Key, (Refused, Option<Arc<str>>)>,
}

impl Source {
    /// The version.
    pub(super) fn version(&self) -> SyncVersion {
        self.version.unwrap_or(SyncVersion::NONE)
    }

    /// The hash of what was published.
    pub(super) fn published_hash(&self) -> ConfigHash {
        self.published.hash()
    }

    /// The hash of what is served.
    pub(super) fn served_hash(&self) -> ConfigHash {
        let mut served = self.published;
        for (key, (_, instead)) in &self.refused {
            let table = key.0.table();
            if let Some(held) = self.entities.get(key) {
                served.remove(table, held.digest);
            }
            if let Some(instead) = instead {
                served.add(table, EntityDigest::of(table, instead));
            }
        }
        served.hash()
    }

    /// What is not served as published.
    pub(super) fn refused(&self) -> Vec<Refused> {
        self.refused
            .values()
            .map(|(told, _)| told.clone())
            .collect()
    }

    /// Whether everything is served as published.
    pub(super) fn is_whole(&self) -> bool {
        self.refused.is_empty()
    }

    /// Whether the entity is there, served or not.
    pub(super) fn has(&self, kind: Kind, id: Uuid) -> bool {
        self.entities.contains_key(&(kind, id))
    }

    /// The hash that the published entities will have after these changes.
    pub(super) fn hash_after(&self, changes: &[Delta]) -> ConfigHash {
        let mut after = self.published;
        for delta in changes {
            if let Some(old) = self.digest_of(delta) {
                after.remove(&delta.table, old);
            }
            if let Some(entity) = &delta.entity {
                after.add(
                    &delta.table,
                    EntityDigest::of(&delta.table, &entity.to_string()),
                );
            }
        }
        after.hash()
    }

    fn digest_of(&self, delta: &Delta) -> Option<EntityDigest> {
        match key(delta) {
            Some(key) => self.entities.get(&key).map(|held| held.digest),
            None => {
                let key = (delta.table.clone(), delta.id.clone());
                self.others.get(&key).copied()
            }
        }
    }

    /// Takes changes over. Entities in `refused` go on being served as they were, others are
    /// served as published.
    pub(super) fn take(&mut self, version: SyncVersion, changes: &[Delta], refused: &[Refused]) {
        for delta in changes {
            let old = self.digest_of(delta);
            if let Some(old) = old {
                self.published.remove(&delta.table, old);
            }
            let text = delta.entity.as_ref().map(Value::to_string);
            let digest = text
                .as_ref()
                .map(|text| EntityDigest::of(&delta.table, text));
            if let Some(digest) = digest {
                self.published.add(&delta.table, digest);
            }
            let Some(key) = key(delta) else {
                let key = (delta.table.clone(), delta.id.clone());
                match digest {
                    Some(digest) => _ = self.others.insert(key, digest),
                    None => _ = self.others.remove(&key),
                }
                continue;
            };
            let told = refused.iter().find(|told| told_of(told) == Some(key));
            match told {
                Some(told) => {
                    let instead = match told.kept {
                        true => self.served(key),
                        false => None,
                    };
                    self.refused.insert(key, (told.clone(), instead));
                }
                None => _ = self.refused.remove(&key),
            }
            match (text, digest) {
                (Some(text), Some(digest)) => {
                    let text = text.into();
                    self.entities.insert(key, Held { text, digest });
                }
                _ => _ = self.entities.remove(&key),
            }
        }
        self.version = Some(version);
    }

    /// What is served of an entity.
    fn served(&self, key: Key) -> Option<Arc<str>> {
        match self.refused.get(&key) {
            Some((_, instead)) => instead.clone(),
            None => self.entities.get(&key).map(|held| held.text.clone()),
        }
    }

    /// The same as JSON.
    pub(super) fn served_value(&self, kind: Kind, id: Uuid) -> Option<Value> {
        serde_json::from_str(&self.served((kind, id))?).ok()
    }

    /// What came of serving everything anew: these are refused, with what is served instead.
    pub(super) fn set_refused(&mut self, refused: Vec<Refused>, served: &Value) {
        let mut now = BTreeMap::new();
        for told in refused {
            let Some(key) = told_of(&told) else { continue };
            let list = served[key.0.table()].as_array();
            let entity = list
                .filter(|_| told.kept)
                .and_then(|list| list.iter().find(|it| it["id"] == told.entity_id.as_str()));
            let instead = entity.map(|entity| entity.to_string().into());
            now.insert(key, (told, instead));
        }
        self.refused = now;
    }

    /// Everything published, as a `config_table`.
    pub(super) fn table(&self) -> Value {
        self.lists(self.entities.iter().map(|(key, held)| (*key, &*held.text)))
    }

    /// Everything served, as a `config_table`.
    pub(super) fn served_table(&self) -> Value {
        let published = self.entities.iter().filter_map(|(key, held)| {
            let is_served = !self.refused.contains_key(key);
            is_served.then_some((*key, &*held.text))
        });
        let kept = self.refused.iter();
        let kept = kept.filter_map(|(key, (_, instead))| Some((*key, instead.as_deref()?)));
        self.lists(published.chain(kept))
    }

    fn lists<'a>(&self, entities: impl Iterator<Item = (Key, &'a str)>) -> Value {
        let mut lists: BTreeMap<Kind, Vec<(Uuid, Value)>> = BTreeMap::new();
        for ((kind, id), text) in entities {
            let entity = serde_json::from_str(text).expect("it was JSON when it came");
            lists.entry(kind).or_default().push((id, entity));
        }
        let mut table = Map::new();
        table.insert("_format_version".to_owned(), json!("3.0"));
        table.insert("_transform".to_owned(), json!(false));
        for (kind, mut list) in lists {
            list.sort_unstable_by_key(|(id, _)| *id);
            let list = list.into_iter().map(|(_, entity)| entity).collect();
            table.insert(kind.table().to_owned(), Value::Array(list));
        }
        Value::Object(table)
    }

    /// [`table`](Source::table) with what [`from_stored`](Source::from_stored) needs besides.
    pub(super) fn to_stored(&self) -> Value {
        let mut table = self.table();
        if !self.refused.is_empty() {
            let kept: Vec<Value> = (self.refused.values())
                .map(|(told, instead)| {
                    let instead = instead
                        .as_ref()
                        .and_then(|it| serde_json::from_str(it).ok());
                    json!([told, instead.unwrap_or(Value::Null)])
                })
                .collect();
            table[KEPT] = Value::Array(kept);
        }
        table
    }

    /// Reads what [`to_stored`](Source::to_stored) wrote.
    pub(super) fn from_stored(version: SyncVersion, mut table: Value) -> Source {
        let kept = table.as_object_mut().and_then(|table| table.remove(KEPT));
        let mut source = Source {
            version: Some(version),
            ..Source::default()
        };
        for kind in Kind::ALL {
            let list = table[kind.table()].as_array();
            for entity in list.into_iter().flatten() {
                let Some(id) = entity["id"].as_str().and_then(|id| id.parse().ok()) else {
                    continue;
                };
                let text: Arc<str> = entity.to_string().into();
                let digest = EntityDigest::of(kind.table(), &text);
                source.published.add(kind.table(), digest);
                source.entities.insert((kind, id), Held { text, digest });
            }
        }
        for pair in kept.iter().filter_map(Value::as_array).flatten() {
            let told: Refused = serde_json::from_value(pair[0].clone()).unwrap_or_default();
            let instead = &pair[1];
            let instead = (!instead.is_null()).then(|| instead.to_string().into());
            if let Some(key) = told_of(&told) {
                source.refused.insert(key, (told, instead));
            }
        }
        source
    }
}

fn key(delta: &Delta) -> Option<Key> {
    Some((Kind::from_table(&delta.table)?, delta.id.parse().ok()?))
}

fn told_of(told: &Refused) -> Option<Key> {
    Some((
        Kind::from_table(&told.entity_type)?,
        told.entity_id.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(table: &str, n: u128, entity: Option<Value>) -> Delta {
        let id = Uuid::from_u128(n).to_string();
        let entity = entity.map(|mut entity| {
            entity["id"] = json!(id);
            entity
        });
        Delta {
            table: table.to_owned(),
            id,
            entity,
        }
    }

    fn refused(delta: &Delta, kept: bool) -> Refused {
        Refused {
            entity_type: delta.table.clone(),
            entity_id: delta.id.clone(),
            message: "no".to_owned(),
            kept,
            ..Refused::default()
        }
    }

    fn at(revision: u64) -> SyncVersion {
        SyncVersion::new(1, revision)
    }

    #[test]
    fn the_hash_is_foreseen_and_does_not_depend_on_the_way() {
        let mut source = Source::default();
        let first = [
            delta("routes", 1, Some(json!({"paths": ["/a"]}))),
            delta("future_things", 2, Some(json!({"x": 1}))),
        ];
        let foreseen = source.hash_after(&first);
        source.take(at(1), &first, &[]);
        assert_eq!(source.published_hash(), foreseen);
        let second = [
            delta("routes", 1, Some(json!({"paths": ["/b"]}))),
            delta("future_things", 2, None),
        ];
        let foreseen = source.hash_after(&second);
        source.take(at(2), &second, &[]);
        assert_eq!(source.published_hash(), foreseen);
        assert_eq!(source.served_hash(), foreseen);

        let mut straight = Source::default();
        straight.take(at(2), &second[..1], &[]);
        assert_eq!(straight.published_hash(), foreseen);
        assert_eq!(
            Source::from_stored(at(2), source.to_stored()).published_hash(),
            foreseen
        );
    }

    #[test]
    fn a_refused_entity_goes_on_as_it_was_across_a_restart() {
        let mut source = Source::default();
        let good = delta("services", 1, Some(json!({"host": "good"})));
        source.take(at(1), std::slice::from_ref(&good), &[]);
        let served = source.served_hash();
        let bad = delta("services", 1, Some(json!({"host": 7})));
        source.take(at(2), std::slice::from_ref(&bad), &[refused(&bad, true)]);
        // and it gets worse
        let worse = delta("services", 1, Some(json!({"host": 8})));
        source.take(
            at(3),
            std::slice::from_ref(&worse),
            &[refused(&worse, true)],
        );
        for source in [&source, &Source::from_stored(at(3), source.to_stored())] {
            assert!(!source.is_whole());
            assert_eq!(source.served_hash(), served);
            assert_ne!(source.published_hash(), served);
            let value = source
                .served_value(Kind::Service, Uuid::from_u128(1))
                .unwrap();
            assert_eq!(value["host"], "good");
            assert_eq!(source.table()["services"][0]["host"], 8);
        }
        let mended = delta("services", 1, Some(json!({"host": "mended"})));
        source.take(at(4), &[mended], &[]);
        assert!(source.is_whole());
        assert_eq!(source.served_hash(), source.published_hash());
    }
}
