//! What a control plane has published, entity by entity, and what of it is served.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ahash::AHashSet;
use sallyport_model::{Kind, RouterFlavor};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{Delta, Refused, SyncVersion};
use sallyport_wire::config_sync::digest::{EntityDigest, SetDigest};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::edits::RefusalChanges;
use super::refusals::{Held, Judge, Key, Refusals, Rejected, references};
use crate::enabled::Enabled;

/// Member of a stored table with what is served in the place of refused entities.
const KEPT: &str = "_kept";
/// The same with the digests of entities of kinds that this build does not know: without them its
/// hash would be another after a start, and everything would come once more.
const OTHERS: &str = "_others";

/// All entities of one version.
#[derive(Clone, Default)]
pub(super) struct Source {
    version: Option<SyncVersion>,
    published: SetDigest,
    entities: HashMap<Key, Held>,
    /// Entities of kinds that this build does not know, by list and id.
    others: HashMap<(String, String), EntityDigest>,
    /// Entities that are not served as published.
    refusals: Refusals,
    /// Routes and plugins of services, and plugins of routes, as published.
    hanging: HashMap<Uuid, AHashSet<Key>>,
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
        self.refusals.served(self.published).hash()
    }

    /// What is told of the entities that are not served as published.
    pub(super) fn refused(&self) -> Vec<Refused> {
        let told = |(_, rejected): (&Key, &Rejected)| rejected.told.clone();
        self.refusals.iter().map(told).collect()
    }

    /// The entities that are not served as published.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Whether the entity is served, as published or as it was.
    pub(super) fn is_served(&self, key: Key) -> bool {
        match self.refusals.get(&key) {
            Some(rejected) => rejected.kept.is_some(),
            None => self.entities.contains_key(&key),
        }
    }

    /// An entity as published.
    pub(super) fn published_value(&self, key: Key) -> Option<Value> {
        serde_json::from_str(&self.entities.get(&key)?.text).ok()
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
        match key_of(delta) {
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
            let told = refused
                .iter()
                .find(|told| key_of_told(told) == key_of(delta));
            let kept = key_of(delta).filter(|_| told.is_some_and(|told| told.kept));
            let kept = kept.and_then(|key| self.served(key));
            self.publish(delta);
            let Some(key) = key_of(delta) else { continue };
            match told {
                Some(told) => self.reject(key, Rejected::told(told.clone(), kept)),
                None => self.refusals.remove(&key),
            }
        }
        self.version = Some(version);
    }

    /// Takes changes over that were an edit.
    pub(super) fn take_edited(
        &mut self,
        version: SyncVersion,
        changes: &[Delta],
        refusals: RefusalChanges,
    ) {
        for key in &refusals.touched {
            self.refusals.remove(key);
        }
        for delta in changes {
            self.publish(delta);
        }
        for (key, rejected) in refusals.rejected {
            self.reject(key, rejected);
        }
        for (key, closes) in refusals.closes {
            self.refusals.set_closes(&key, closes);
        }
        self.version = Some(version);
    }

    fn reject(&mut self, key: Key, rejected: Rejected) {
        let published = self.entities.get(&key).map(|held| held.digest);
        self.refusals.insert(key, rejected, published);
    }

    fn publish(&mut self, delta: &Delta) {
        if let Some(old) = self.digest_of(delta) {
            self.published.remove(&delta.table, old);
        }
        if let Some(key) = key_of(delta).filter(|(kind, _)| hangs(*kind)) {
            let old = self.published_value(key);
            for id in old.iter().flat_map(|old| hangs_on(key.0, old)) {
                if let Some(keys) = self.hanging.get_mut(&id) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        self.hanging.remove(&id);
                    }
                }
            }
            if let Some(entity) = &delta.entity {
                self.hang(key, entity);
            }
        }
        let text = delta.entity.as_ref().map(Value::to_string);
        let Some(key) = key_of(delta) else {
            let key = (delta.table.clone(), delta.id.clone());
            match text.map(|text| EntityDigest::of(&delta.table, &text)) {
                Some(digest) => {
                    self.published.add(&delta.table, digest);
                    self.others.insert(key, digest);
                }
                None => _ = self.others.remove(&key),
            }
            return;
        };
        match text.map(|text| Held::new(key.0, &text)) {
            Some(held) => {
                self.published.add(&delta.table, held.digest);
                self.entities.insert(key, held);
            }
            None => _ = self.entities.remove(&key),
        }
    }

    fn hang(&mut self, key: Key, entity: &Value) {
        for id in hangs_on(key.0, entity) {
            self.hanging.entry(id).or_default().insert(key);
        }
    }

    /// The routes and plugins of a service, or the plugins of a route, as published.
    pub(super) fn hanging_on(&self, id: Uuid) -> impl Iterator<Item = Key> {
        let keys = self.hanging.get(&id).into_iter();
        keys.flat_map(|keys| keys.iter().copied())
    }

    /// What is served of an entity.
    fn served(&self, key: Key) -> Option<Held> {
        match self.refusals.get(&key) {
            Some(rejected) => rejected.kept.clone(),
            None => self.entities.get(&key).cloned(),
        }
    }

    /// The same as JSON.
    pub(super) fn served_value(&self, kind: Kind, id: Uuid) -> Option<Value> {
        serde_json::from_str(&self.served((kind, id))?.text).ok()
    }

    /// What came of serving everything anew: these are refused, with what is served instead.
    pub(super) fn set_refused(
        &mut self,
        refused: Vec<Refused>,
        served: &Value,
        (plugins, flavor): (&Enabled, RouterFlavor),
    ) {
        self.refusals = Refusals::default();
        let told = refused.into_iter();
        let told: BTreeMap<Key, Refused> = told
            .filter_map(|told| Some((key_of_told(&told)?, told)))
            .collect();
        let kept = kept(&told, served);
        let services = |host: &str| {
            let all = served[Kind::Service.table()].as_array();
            let all = all.into_iter().flatten();
            all.filter(|it| it["host"] == host).cloned().collect()
        };
        let judge = Judge {
            plugins,
            flavor,
            is_served: &|key| match told.contains_key(&key) {
                true => kept.contains_key(&key),
                false => self.entities.contains_key(&key),
            },
            services_at: &|host| Value::Array(services(host)),
        };
        let mut rejected = Vec::new();
        for (key, told) in &told {
            let published = self.published_value(*key).unwrap_or_default();
            let kept = kept.get(key).copied();
            rejected.push((*key, judge.refuse(key.0, told.clone(), &published, kept)));
        }
        for (key, rejected) in rejected {
            self.reject(key, rejected);
        }
    }

    /// Everything published, as a `config_table`.
    pub(super) fn table(&self) -> Value {
        self.lists(self.entities.iter().map(|(key, held)| (*key, &*held.text)))
    }

    /// Everything served, as a `config_table`.
    pub(super) fn served_table(&self) -> Value {
        let published = self.entities.iter().filter_map(|(key, held)| {
            let is_served = self.refusals.get(key).is_none();
            is_served.then_some((*key, &*held.text))
        });
        let kept = self.refusals.iter();
        let kept = kept.filter_map(|(key, it)| Some((*key, &*it.kept.as_ref()?.text)));
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
        if !self.refusals.is_empty() {
            let kept: Vec<Value> = (self.refusals.iter())
                .map(|(_, it)| json!([it.told, it.kept_value().unwrap_or(Value::Null)]))
                .collect();
            table[KEPT] = Value::Array(kept);
        }
        if !self.others.is_empty() {
            let others = self.others.iter();
            let others = others.map(|((table, id), digest)| json!([table, id, digest.to_string()]));
            table[OTHERS] = Value::Array(others.collect());
        }
        table
    }

    /// Reads what [`to_stored`](Source::to_stored) wrote; then the table is as
    /// [`table`](Source::table) gives it.
    pub(super) fn from_stored(version: SyncVersion, table: &mut Value) -> Source {
        let mut taken = |member| table.as_object_mut().and_then(|table| table.remove(member));
        let (kept, others) = (taken(KEPT), taken(OTHERS));
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
                source.hang((kind, id), entity);
                let held = Held::new(kind, &entity.to_string());
                source.published.add(kind.table(), held.digest);
                source.entities.insert((kind, id), held);
            }
        }
        for other in others.iter().filter_map(Value::as_array).flatten() {
            let text = |at: usize| other[at].as_str();
            let digest = text(2).and_then(|it| it.parse().ok());
            // one of a kind that is known by now is missing, and the hash has to say so
            let is_known = |table| Kind::from_table(table).is_some();
            if let (Some(table), Some(id), Some(digest)) = (text(0), text(1), digest)
                && !is_known(table)
            {
                source.published.add(table, digest);
                let key = (table.to_owned(), id.to_owned());
                source.others.insert(key, digest);
            }
        }
        for pair in kept.iter().filter_map(Value::as_array).flatten() {
            let told: Refused = serde_json::from_value(pair[0].clone()).unwrap_or_default();
            let instead = &pair[1];
            if let Some(key) = key_of_told(&told) {
                let kept = (!instead.is_null()).then(|| Held::new(key.0, &instead.to_string()));
                source.reject(key, Rejected::told(told, kept));
            }
        }
        source
    }
}

/// Brings a `config_table` with lists in the order of ids to what is published after changes.
pub(super) fn patch(table: &mut Value, changes: Vec<Delta>) {
    let mut kinds: BTreeMap<Kind, HashMap<Uuid, Option<Value>>> = BTreeMap::new();
    for delta in changes {
        if let Some((kind, id)) = key_of(&delta) {
            kinds.entry(kind).or_default().insert(id, delta.entity);
        }
    }
    for (kind, mut changed) in kinds {
        let id = |entity: &Value| entity["id"].as_str()?.parse::<Uuid>().ok();
        let mut list = match table[kind.table()].take() {
            Value::Array(list) => list,
            _ => Vec::new(),
        };
        list.retain_mut(|entity| {
            let now = id(entity).and_then(|id| changed.remove(&id));
            now.is_none_or(|now| now.map(|now| *entity = now).is_some())
        });
        list.extend(changed.into_values().flatten());
        list.sort_by_cached_key(id);
        match list.is_empty() {
            true => _ = table.as_object_mut().map(|it| it.remove(kind.table())),
            false => table[kind.table()] = Value::Array(list),
        }
    }
}

/// The entity that a delta is about, if this build knows its kind.
pub(super) fn key_of(delta: &Delta) -> Option<Key> {
    Some((Kind::from_table(&delta.table)?, delta.id.parse().ok()?))
}

/// Whether entities of this kind go and come with others.
fn hangs(kind: Kind) -> bool {
    matches!(kind, Kind::Route | Kind::Plugin)
}

/// The service and the route that an entity goes and comes with.
fn hangs_on(kind: Kind, entity: &Value) -> impl Iterator<Item = Uuid> {
    let references = hangs(kind).then(|| references(kind, entity)).flatten();
    let references = references.into_iter().flatten().map(|it| it.to);
    let with = |(kind, _): &Key| matches!(kind, Kind::Service | Kind::Route);
    references.filter(with).map(|(_, id)| id)
}

fn key_of_told(told: &Refused) -> Option<Key> {
    Some((
        Kind::from_table(&told.entity_type)?,
        told.entity_id.parse().ok()?,
    ))
}

/// What is served in the place of refused entities.
fn kept<'a>(told: &BTreeMap<Key, Refused>, served: &'a Value) -> HashMap<Key, &'a Value> {
    let kept = told.iter().filter(|(_, told)| told.kept);
    let wanted: BTreeSet<Key> = kept.map(|(key, _)| *key).collect();
    let kinds: BTreeSet<Kind> = wanted.iter().map(|(kind, _)| *kind).collect();
    let of_kind = |kind: Kind| {
        let list = served[kind.table()].as_array().into_iter().flatten();
        let key = move |it: &Value| Some((kind, it["id"].as_str()?.parse().ok()?));
        list.filter_map(move |it| Some((key(it)?, it)))
    };
    let all = kinds.into_iter().flat_map(of_kind);
    all.filter(|(key, _)| wanted.contains(key)).collect()
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
            Source::from_stored(at(2), &mut source.to_stored()).published_hash(),
            foreseen
        );
    }

    #[test]
    fn a_stored_table_follows_changes() {
        let mut source = Source::default();
        let route = |n, path: &str| delta("routes", n, Some(json!({"paths": [path]})));
        let first: Vec<_> = [5, 2, 8].map(|n| route(n, "/a")).into();
        source.take(at(1), &first, &[]);
        source.take(at(1), &[delta("services", 1, Some(json!({})))], &[]);
        let mut table = source.to_stored();
        let changes = vec![
            route(3, "/new"),
            route(5, "/other"),
            route(8, "/for a moment"),
            delta("routes", 8, None),
            delta("services", 1, None),
            delta("routes", 9, None),
            delta("consumers", 4, Some(json!({"username": "u"}))),
            delta("future_things", 6, Some(json!({}))),
        ];
        source.take(at(2), &changes, &[]);
        patch(&mut table, changes);
        assert_eq!(table, source.table());
    }

    #[test]
    fn what_is_not_known_counts_after_a_start_unless_it_is_known_by_then() {
        let mut source = Source::default();
        let list = [
            delta("routes", 1, Some(json!({"paths": ["/a"]}))),
            delta("future_things", 2, Some(json!({"x": 1}))),
        ];
        source.take(at(1), &list, &[]);
        let mut stored = source.to_stored();
        let mut again = Source::from_stored(at(1), &mut stored.clone());
        assert_eq!(again.published_hash(), source.published_hash());
        let gone = [delta("future_things", 2, None)];
        assert_eq!(again.hash_after(&gone), source.hash_after(&gone));
        again.take(at(2), &gone, &[]);
        assert_eq!(again.published_hash(), source.hash_after(&gone));
        // what a later build knows, and an earlier one did not store
        stored[OTHERS][0][0] = json!("consumers");
        let later = Source::from_stored(at(1), &mut stored);
        assert_ne!(later.published_hash(), source.published_hash());
        assert!(stored.get(OTHERS).is_none());
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
        for source in [
            &source,
            &Source::from_stored(at(3), &mut source.to_stored()),
        ] {
            assert!(!source.refusals().is_empty());
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
        assert!(source.refusals().is_empty());
        assert_eq!(source.served_hash(), source.published_hash());
    }
}
