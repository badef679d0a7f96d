//! Deltas as edits of the configuration in force.
//!
//! What the whole would be is made of the change alone: entities that are bad are refused, and
//! stay as they were or are left out with what hangs on them; what they were to guard is closed;
//! those that were refused because something was missing come back with it. `None` says that it
//! takes a look at the whole.

mod dependents;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sallyport_model::Kind;
use sallyport_model::declarative::label;
use sallyport_model::schema::{Mode, parse_entity_in};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{Deltas, Refused};
use serde_json::{Value, json};
use uuid::Uuid;

use super::refusals::{Claim, Judge, Key, Reference, Rejected, claims_of, references};
use super::source::{Source, key_of};
use crate::balancer::Balancers;
use crate::closed::Closed;
use crate::configuration::{Configuration, Edits, Unservable};
use crate::enabled::Enabled;

/// How often an edit is tried again without what turned out to be bad.
const ROUNDS_MAX: usize = 6;

/// What there is before an edit.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub(super) source: &'a Source,
    pub(super) current: &'a Configuration,
    pub(super) balancers: &'a Balancers,
    pub(super) plugins: &'a Enabled,
}

/// What came of an edit.
pub(super) struct Edited {
    /// Its hash is not set.
    pub(super) configuration: Configuration,
    pub(super) changes: RefusalChanges,
}

/// What an edit did to the list of refused entities.
#[derive(Default)]
pub(super) struct RefusalChanges {
    /// Entities that were looked at; those that are not in `rejected` are served.
    pub(super) touched: Vec<Key>,
    pub(super) rejected: Vec<(Key, Rejected)>,
    /// Other refused entities that close something else now.
    pub(super) closes: Vec<(Key, Vec<Closed>)>,
}

/// An entity that is looked at.
struct Item {
    /// `None` if it is gone.
    published: Option<Value>,
    /// As the schema gives it; null if it is gone or the schema refuses it.
    entity: Value,
    references: Vec<Reference>,
    bad: Option<Refused>,
    /// Whether it is bad although it is served just so: then no version of it can be served.
    is_lost: bool,
}

/// An edit in the making.
struct Edit<'a> {
    before: Before<'a>,
    items: BTreeMap<Key, Item>,
}

/// The deltas as an edit of the configuration in force, if it looks at no more than `items_max`
/// entities.
pub(super) fn edited(before: Before<'_>, deltas: &Deltas, items_max: usize) -> Option<Edited> {
    if before.source.refusals().are_unclear() {
        return None;
    }
    let mut edit = Edit {
        before,
        items: BTreeMap::new(),
    };
    for delta in &deltas.list {
        if let Some(key) = key_of(delta) {
            edit.add(key, delta.entity.clone(), items_max)?;
        }
    }
    for key in before.source.refusals().secret() {
        if !edit.items.contains_key(&key) {
            edit.add(key, before.source.published_value(key), items_max)?;
        }
    }
    edit.add_dependents(items_max)?;
    for _ in 0..ROUNDS_MAX {
        edit.refuse_what_hangs();
        match edit.tried()? {
            Ok(edited) => return Some(edited),
            Err(bad) => {
                edit.refuse(&bad)?;
                edit.add_dependents(items_max)?;
            }
        }
    }
    None
}

impl Edit<'_> {
    /// Adds an entity, and those that waited for it.
    fn add(&mut self, key: Key, published: Option<Value>, items_max: usize) -> Option<()> {
        let mut queue = vec![(key, published)];
        while let Some((key, published)) = queue.pop() {
            if self.items.len() >= items_max {
                return None;
            }
            if published.is_some() {
                let waiting = self.before.source.refusals().waiting_for(&key);
                for own in waiting.iter().filter(|own| !self.items.contains_key(own)) {
                    queue.push((*own, self.before.source.published_value(*own)));
                }
            }
            let item = Item::new(key, published, self.before.plugins)?;
            self.items.insert(key, item);
        }
        Some(())
    }

    /// Whether an entity will be served, as published or as it was.
    fn is_served(&self, key: Key) -> bool {
        match self.items.get(&key) {
            Some(Item {
                published: None, ..
            }) => false,
            Some(Item { bad: None, .. }) => true,
            Some(Item { is_lost: true, .. }) => false,
            _ => self.before.source.is_served(key),
        }
    }

    /// Refuses what refers to something that is not served.
    fn refuse_what_hangs(&mut self) {
        loop {
            let hangs = |item: &Item| {
                let good = item.published.is_some() && item.bad.is_none();
                let mut references = item.references.iter().filter(|_| good);
                references.position(|it| !self.is_served(it.to))
            };
            let all = self.items.iter();
            let found: Vec<(Key, usize)> = all
                .filter_map(|(key, item)| Some((*key, hangs(item)?)))
                .collect();
            if found.is_empty() {
                return;
            }
            for (key, at) in found {
                if let Some(item) = self.items.get_mut(&key) {
                    let Reference { field, to } = &item.references[at];
                    let table = to.0.table();
                    let message = format!(
                        "invalid reference '{field}: {}' (no such entry in '{table}')",
                        to.1
                    );
                    let field = (*field).to_owned();
                    item.refuse(key, field, message);
                    item.is_lost = item.is_served_by(self.before.source, key);
                }
            }
        }
    }

    /// Refuses what turned out to be bad; `None` if that is not among the changes.
    fn refuse(&mut self, bad: &[Unservable]) -> Option<()> {
        let mut told = BTreeSet::new();
        for unservable in bad {
            let key = (unservable.kind, unservable.id?);
            if !told.insert(key) {
                continue; // the first reason is told
            }
            let item = self.items.get_mut(&key)?;
            if item.bad.is_some() || item.published.is_none() {
                return None;
            }
            item.refuse(key, String::new(), unservable.reason.clone());
            item.is_lost = item.is_served_by(self.before.source, key);
        }
        Some(())
    }

    /// The services with a `host` after the edit, as a list.
    fn services_at(&self, host: &str) -> Value {
        let before = self.before.current.services_at(host);
        let stays = |id: &Uuid| match self.items.get(&(Kind::Service, *id)) {
            Some(item) => item.published.is_some() && item.bad.is_some(),
            None => true,
        };
        let mut ids: Vec<_> = before.filter(stays).collect();
        let services = self.items.iter().filter(|((kind, _), item)| {
            let is_on = item.bad.is_none() && item.entity["enabled"] != false;
            *kind == Kind::Service && is_on && item.entity["host"] == host
        });
        ids.extend(services.map(|((_, id), _)| *id));
        ids.sort_unstable();
        let service = |id| json!({"id": id, "host": host});
        Value::Array(ids.into_iter().map(service).collect())
    }

    /// Tries the edit without what is known to be bad.
    fn tried(&self) -> Option<Result<Edited, Vec<Unservable>>> {
        let Before {
            source, current, ..
        } = self.before;
        let judge = Judge {
            plugins: self.before.plugins,
            flavor: current.flavor(),
            is_served: &|key| self.is_served(key),
            services_at: &|host| self.services_at(host),
        };
        let mut edits = Edits::default();
        let mut changes = RefusalChanges::default();
        let mut claims: HashSet<&Claim> = HashSet::new();
        for (key, item) in &self.items {
            changes.touched.push(*key);
            if let (Some(published), Some(told)) = (&item.published, &item.bad) {
                // the same cannot be kept
                let kept = source.served_value(key.0, key.1).filter(|_| !item.is_lost);
                if item.is_lost && !goes_alone(key.0) {
                    return None;
                }
                let rejected = judge.refuse(key.0, told.clone(), published, kept.as_ref());
                // what was good before has to be good still, and switched on or off as it was
                let mut leans_on = rejected.leans_on().iter();
                let stays = |to: &Key| self.is_served(*to) && !self.is_switched(*to);
                if !leans_on.all(stays) {
                    return None;
                }
                changes.rejected.push((*key, rejected));
            }
        }
        for (_, rejected) in &changes.rejected {
            claims.extend(rejected.claims());
        }
        let rejected: BTreeMap<&Key, &Rejected> = (changes.rejected.iter())
            .map(|(key, it)| (key, it))
            .collect();
        for (key, item) in &self.items {
            let closed = |it: Option<&'_ Rejected>| it.map_or(Vec::new(), |it| it.closes.clone());
            let before = closed(source.refusals().get(key));
            edits.close(&before, &closed(rejected.get(key).copied()));
            self.put(*key, item, &claims, &mut edits)?;
        }
        if self.items.keys().any(|(kind, _)| *kind == Kind::Service) {
            for (key, rejected) in source.refusals().of(Kind::Upstream) {
                if self.items.contains_key(key) {
                    continue;
                }
                let published = source.published_value(*key)?;
                let closes = judge.closes(key.0, &published, rejected.kept_value().as_ref());
                if closes != rejected.closes {
                    edits.close(&rejected.closes, &closes);
                    changes.closes.push((*key, closes));
                }
            }
        }
        drop(rejected);
        let edited = current.edited(&edits, ConfigHash::ZERO, self.before.balancers)?;
        Some(edited.map(|configuration| Edited {
            configuration,
            changes,
        }))
    }

    /// Puts one entity among the edits.
    fn put(
        &self,
        (kind, id): Key,
        item: &Item,
        claims: &HashSet<&Claim>,
        edits: &mut Edits,
    ) -> Option<()> {
        let source = self.before.source;
        let was_served = source.is_served((kind, id));
        if item.published.is_none() || item.is_lost {
            let leaning = source.refusals().leaning_on(&(kind, id));
            if leaning.iter().any(|own| !self.items.contains_key(own)) {
                return None;
            }
            if was_served {
                edits.remove(kind, id);
            }
            return Some(());
        }
        if item.bad.is_some() {
            return Some(());
        }
        if !source.refusals().is_empty() || !claims.is_empty() {
            for claim in claims_of(kind, &item.entity) {
                let others = source.refusals().claiming(&claim).iter();
                let mut others = others.filter(|own| !self.items.contains_key(own));
                if claims.contains(&claim) || others.next().is_some() {
                    return None;
                }
            }
        }
        let is_live = match kind {
            Kind::Route | Kind::Plugin => !self.is_off(item),
            _ => true,
        };
        if !is_live {
            edits.remove(kind, id);
            return Some(());
        }
        edits.put(kind, id, &item.entity).then_some(())
    }
}

impl Item {
    /// `None` if it refers to others in another way than by their ids.
    fn new(key: Key, published: Option<Value>, plugins: &Enabled) -> Option<Item> {
        let mut item = Item {
            published,
            entity: Value::Null,
            references: Vec::new(),
            bad: None,
            is_lost: false,
        };
        let Some(value) = &item.published else {
            return Some(item);
        };
        item.references = references(key.0, value)?;
        match parse_entity_in(key.0, value.clone(), Mode::Payload, plugins) {
            Ok(entity) => item.entity = entity,
            Err(errors) => {
                let first = errors.first();
                let field = first.map(|it| it.path.to_string()).unwrap_or_default();
                let message = first.map(|it| it.message.clone()).unwrap_or_default();
                item.refuse(key, field, message);
            }
        }
        Some(item)
    }

    /// Whether it is served as published.
    fn is_served_by(&self, source: &Source, (kind, id): Key) -> bool {
        self.published.is_some() && source.served_value(kind, id) == self.published
    }

    fn refuse(&mut self, (kind, id): Key, field: String, message: String) {
        let name = self.published.as_ref().and_then(|it| {
            let named = label(kind).and_then(|field| it[field].as_str());
            named.or(it["name"].as_str())
        });
        self.bad = Some(Refused {
            entity_type: kind.table().to_owned(),
            entity_id: id.to_string(),
            entity_name: name.unwrap_or_default().to_owned(),
            field,
            message,
            ..Refused::default()
        });
    }
}

/// Whether nothing but names hangs on entities of a kind.
fn goes_alone(kind: Kind) -> bool {
    matches!(kind, Kind::Plugin | Kind::Certificate | Kind::Sni)
}
