//! The entities of a configuration as the Admin API and log plugins show them.

use std::collections::BTreeMap;
use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::config_table::with_objects;
use sallyport_model::schema;
use sallyport_plugins::Entity;
use sallyport_plugins::ids::Ids;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use uuid::Uuid;

/// JSON texts of entities, by kind and id. Text is the smallest form that is quick to send.
#[derive(Default)]
pub(crate) struct Entities(BTreeMap<Kind, Ids<Arc<Entry>>>);

/// One of them.
pub(crate) struct Entry {
    pub(crate) id: Uuid,
    /// `name`, or a consumer's `username`.
    name: Option<Box<str>>,
    pub(crate) raw: Box<RawValue>,
}

impl Entities {
    /// Those of some kinds, of a flat `config_table`, with references as objects. Entities that do not say when
    /// they were made were made at `now`, in seconds since the Unix epoch.
    pub(crate) fn new(config_table: &Value, kinds: &[Kind], now: u64) -> Entities {
        let list = |kind: Kind| {
            let all = config_table[kind.table()].as_array();
            let entries = all.into_iter().flatten();
            let entries = entries.filter_map(|entity| entry(kind, entity.clone(), now));
            entries.map(|entry| (entry.id, Arc::new(entry))).collect()
        };
        Entities(kinds.iter().map(|&kind| (kind, list(kind))).collect())
    }

    /// The same, with some that are new or changed (as flat values) and some gone.
    pub(crate) fn edited(
        &self,
        changed: &[(Kind, Uuid, Value)],
        gone: &[(Kind, Uuid)],
    ) -> Entities {
        let mut all = self.0.clone();
        for (kind, id) in gone {
            if let Some(list) = all.get_mut(kind) {
                list.remove(id);
            }
        }
        for (kind, id, value) in changed {
            if let Some(list) = all.get_mut(kind)
                && let Some(entry) = entry(*kind, value.clone(), unix_secs())
            {
                list.insert(*id, Arc::new(entry));
            }
        }
        Entities(all)
    }

    /// Those of these kinds are there from now on, if they come.
    pub(crate) fn keep(&mut self, kinds: &[Kind]) {
        for kind in kinds {
            self.0.entry(*kind).or_default();
        }
    }

    /// Whether those of a kind are there.
    pub(crate) fn keeps(&self, kind: Kind) -> bool {
        self.0.contains_key(&kind)
    }

    /// All of a kind, by id.
    pub(crate) fn all(&self, kind: Kind) -> Vec<&Entry> {
        let list = self.0.get(&kind);
        let mut list: Vec<&Entry> = list
            .into_iter()
            .flat_map(Ids::iter)
            .map(|(_, entry)| &**entry)
            .collect();
        list.sort_unstable_by_key(|entry| entry.id);
        list
    }

    /// One entity.
    pub(crate) fn get(&self, kind: Kind, id: Uuid) -> Option<&RawValue> {
        self.entry(kind, id).map(|entry| &*entry.raw)
    }

    fn entry(&self, kind: Kind, id: Uuid) -> Option<&Entry> {
        self.0.get(&kind)?.get(&id).map(|entry| &**entry)
    }

    /// One entity, as log plugins get it.
    pub(crate) fn logged(&self, kind: Kind, id: Uuid) -> Option<Entity<'_>> {
        let entry = self.entry(kind, id)?;
        Some(Entity {
            name: entry.name.as_deref(),
            json: &entry.raw,
        })
    }

    /// All of them as a declarative document, in JSON (which is YAML too).
    pub(crate) fn document(&self) -> String {
        let mut text = String::from("{\"_format_version\":\"3.0\",\"_transform\":false");
        for kind in Kind::ALL {
            let texts: Vec<&str> = self.all(kind).iter().map(|entry| entry.raw.get()).collect();
            if !texts.is_empty() {
                text.push_str(&format!(",\"{}\":[{}]", kind.table(), texts.join(",")));
            }
        }
        text.push('}');
        text
    }
}

/// Seconds since 1970.
pub(crate) fn unix_secs() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

fn entry(kind: Kind, entity: Value, now: u64) -> Option<Entry> {
    let mut entity = with_objects(kind, entity);
    let id = entity["id"].as_str()?.parse().ok()?;
    for field in &schema::of(kind).record.fields {
        let is_time = matches!(field.name, "created_at" | "updated_at");
        if is_time && entity[field.name].is_null() {
            entity[field.name] = json!(now);
        }
    }
    let name = entity["name"].as_str().or(entity["username"].as_str());
    Some(Entry {
        id,
        name: name.map(Into::into),
        raw: to_raw_value(&entity).ok()?,
    })
}
