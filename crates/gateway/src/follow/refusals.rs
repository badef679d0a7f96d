//! Entities that are not served as published, and what they depend on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sallyport_model::schema::{self, Mode, Type, parse_entity_in};
use sallyport_model::{Kind, RouterFlavor};
use sallyport_wire::config_sync::delta::Refused;
use sallyport_wire::config_sync::digest::{EntityDigest, SetDigest};
use serde_json::Value;
use uuid::Uuid;

use crate::closed::{Closed, Refusal};
use crate::configuration::is_bad_alone;
use crate::enabled::Enabled;

pub(super) type Key = (Kind, Uuid);

/// A value that is unique among the entities of a kind, and its field.
pub(super) type Claim = (Kind, &'static str, String);

/// One entity as text, which is the smallest form of it.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) text: Arc<str>,
    pub(super) digest: EntityDigest,
}

impl Held {
    pub(super) fn new(kind: Kind, text: &str) -> Held {
        Held {
            text: text.into(),
            digest: EntityDigest::of(kind.table(), text),
        }
    }
}

/// An entity that is not served as published.
#[derive(Clone)]
pub(super) struct Rejected {
    pub(super) told: Refused,
    /// What is served in its place.
    pub(super) kept: Option<Held>,
    /// What is closed because of it.
    pub(super) closes: Vec<Closed>,
    cause: Cause,
    /// What the kept version refers to.
    leans_on: Vec<Key>,
    /// Unique values of what was published and of what is kept.
    claims: Vec<Claim>,
}

/// What would have to change so that it can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// Nothing but the entity.
    Itself,
    /// These would have to be there.
    Missing(Vec<Key>),
    /// Nobody knows.
    Unclear,
}

/// What is known when an entity is refused.
pub(super) struct Judge<'a> {
    pub(super) plugins: &'a Enabled,
    pub(super) flavor: RouterFlavor,
    /// Whether an entity is served, as published or as it was.
    pub(super) is_served: &'a dyn Fn(Key) -> bool,
    /// The services with a `host`, as a list in JSON.
    pub(super) services_at: &'a dyn Fn(&str) -> Value,
}

impl Judge<'_> {
    /// Refuses what was published; `told` says why.
    pub(super) fn refuse(
        &self,
        kind: Kind,
        told: Refused,
        published: &Value,
        kept: Option<&Value>,
    ) -> Rejected {
        let closes = self.closes(kind, published, kept);
        let kept_refers = kept.and_then(|kept| references(kind, kept));
        let parsed =
            |value: &Value| parse_entity_in(kind, value.clone(), Mode::Payload, self.plugins).ok();
        let (own, old) = (parsed(published), kept.and_then(parsed));
        let claims = [&own, &old].into_iter().flatten();
        let claims = claims.flat_map(|it| claims_of(kind, it));
        Rejected {
            told: Refused {
                kept: kept.is_some(),
                closed: !closes.is_empty(),
                ..told
            },
            kept: kept.map(|kept| Held::new(kind, &kept.to_string())),
            closes,
            cause: self.cause(kind, published, own.as_ref()),
            leans_on: kept_refers.into_iter().flatten().map(|it| it.to).collect(),
            claims: claims.collect(),
        }
    }

    /// What is closed because an entity is refused.
    pub(super) fn closes(
        &self,
        kind: Kind,
        published: &Value,
        kept: Option<&Value>,
    ) -> Vec<Closed> {
        let services = match (kind, published["name"].as_str()) {
            (Kind::Upstream, Some(name)) => (self.services_at)(name),
            _ => Value::Null,
        };
        let refusal = Refusal {
            kind,
            published,
            kept,
        };
        refusal.closes(&services)
    }

    fn cause(&self, kind: Kind, published: &Value, parsed: Option<&Value>) -> Cause {
        let Some(references) = references(kind, published) else {
            return Cause::Unclear;
        };
        let Some(parsed) = parsed else {
            return Cause::Itself;
        };
        let missing = references.into_iter().map(|it| it.to);
        let missing: Vec<Key> = missing.filter(|key| !(self.is_served)(*key)).collect();
        match missing.is_empty() {
            false => Cause::Missing(missing),
            true if is_bad_alone(kind, parsed, self.flavor) => Cause::Itself,
            true => Cause::Unclear,
        }
    }
}

/// A field that refers to an entity.
pub(super) struct Reference {
    pub(super) field: &'static str,
    pub(super) to: Key,
}

/// What an entity refers to; `None` if it does so in another way than by ids.
pub(super) fn references(kind: Kind, entity: &Value) -> Option<Vec<Reference>> {
    let mut found = Vec::new();
    for field in &schema::of(kind).record.fields {
        let Type::Foreign(foreign) = &field.ty else {
            continue;
        };
        let (Some(kind), value) = (foreign.kind, &entity[field.name]) else {
            continue;
        };
        if value.is_null() {
            continue;
        }
        let to = (kind, schema::reference(value)?);
        let field = field.name;
        found.push(Reference { field, to });
    }
    Some(found)
}

/// What of an entity that passed the schema has to be unique among its kind.
pub(super) fn claims_of(kind: Kind, entity: &Value) -> Vec<Claim> {
    let unique = schema::index(kind, entity).unique;
    let claim = |(field, value)| (kind, field, value);
    unique.into_iter().map(claim).collect()
}

/// All of them.
#[derive(Clone, Default)]
pub(super) struct Refusals {
    all: BTreeMap<Key, (Rejected, Option<EntityDigest>)>,
    /// Those that wait for an entity.
    waiting: HashMap<Key, Vec<Key>>,
    /// Those whose kept version refers to an entity.
    leaning: HashMap<Key, Vec<Key>>,
    claiming: HashMap<Claim, Vec<Key>>,
    unclear: usize,
    /// What is to be added to the digest of what was published, for that of what is served.
    difference: SetDigest,
}

impl Refusals {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether there are some of which nobody knows what they depend on.
    pub(super) fn are_unclear(&self) -> bool {
        self.unclear > 0
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Rejected> {
        self.all.get(key).map(|(rejected, _)| rejected)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Rejected)> {
        self.all.iter().map(|(key, (rejected, _))| (key, rejected))
    }

    /// Those of a kind.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Rejected)> {
        let range = self.all.range((kind, Uuid::nil())..=(kind, Uuid::max()));
        range.map(|(key, (rejected, _))| (key, rejected))
    }

    /// Those that could be served if this entity were.
    pub(super) fn waiting_for(&self, key: &Key) -> &[Key] {
        self.waiting.get(key).map_or(&[], Vec::as_slice)
    }

    /// Those whose kept version refers to this entity.
    pub(super) fn leaning_on(&self, key: &Key) -> &[Key] {
        self.leaning.get(key).map_or(&[], Vec::as_slice)
    }

    /// Those that have this value.
    pub(super) fn claiming(&self, claim: &Claim) -> &[Key] {
        self.claiming.get(claim).map_or(&[], Vec::as_slice)
    }

    /// The digest of what is served, of that of what was published.
    pub(super) fn served(&self, published: SetDigest) -> SetDigest {
        published.plus(self.difference)
    }

    /// Adds one that is not there, with the digest of what was published.
    pub(super) fn insert(&mut self, key: Key, rejected: Rejected, published: Option<EntityDigest>) {
        self.remove(&key);
        let table = key.0.table();
        if let Some(digest) = published {
            self.difference.remove(table, digest);
        }
        if let Some(kept) = &rejected.kept {
            self.difference.add(table, kept.digest);
        }
        match &rejected.cause {
            Cause::Itself => {}
            Cause::Missing(missing) => note(&mut self.waiting, missing, key),
            Cause::Unclear => self.unclear += 1,
        }
        note(&mut self.leaning, &rejected.leans_on, key);
        note(&mut self.claiming, &rejected.claims, key);
        self.all.insert(key, (rejected, published));
    }

    /// Takes one out, if it is there.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some((rejected, published)) = self.all.remove(key) else {
            return;
        };
        let table = key.0.table();
        if let Some(digest) = published {
            self.difference.add(table, digest);
        }
        if let Some(kept) = &rejected.kept {
            self.difference.remove(table, kept.digest);
        }
        match &rejected.cause {
            Cause::Itself => {}
            Cause::Missing(missing) => forget(&mut self.waiting, missing, key),
            Cause::Unclear => self.unclear -= 1,
        }
        forget(&mut self.leaning, &rejected.leans_on, key);
        forget(&mut self.claiming, &rejected.claims, key);
    }

    /// What is closed because of one has become another.
    pub(super) fn set_closes(&mut self, key: &Key, closes: Vec<Closed>) {
        if let Some((rejected, _)) = self.all.get_mut(key) {
            rejected.told.closed = !closes.is_empty();
            rejected.closes = closes;
        }
    }
}

impl Rejected {
    /// One of which is known only what was told, until everything is made anew.
    pub(super) fn told(told: Refused, kept: Option<Held>) -> Rejected {
        Rejected {
            told,
            kept,
            closes: Vec::new(),
            cause: Cause::Unclear,
            leans_on: Vec::new(),
            claims: Vec::new(),
        }
    }

    /// What the kept version refers to.
    pub(super) fn leans_on(&self) -> &[Key] {
        &self.leans_on
    }

    /// Unique values of what was published and of what is kept.
    pub(super) fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// The kept version as JSON.
    pub(super) fn kept_value(&self) -> Option<Value> {
        serde_json::from_str(&self.kept.as_ref()?.text).ok()
    }
}

fn note<K: Clone + Eq + std::hash::Hash>(map: &mut HashMap<K, Vec<Key>>, at: &[K], key: Key) {
    for at in at {
        let keys = map.entry(at.clone()).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
}

fn forget<K: Eq + std::hash::Hash>(map: &mut HashMap<K, Vec<Key>>, at: &[K], key: &Key) {
    for at in at {
        if let Some(keys) = map.get_mut(at) {
            keys.retain(|own| own != key);
            if keys.is_empty() {
                map.remove(at);
            }
        }
    }
}
