//! Deltas as edits of the configuration in force.
//!
//! What the whole would be is made of the change alone: entities that are bad are refused, and
//! stay as they were or are left out with what hangs on them; what they were to guard is closed;
//! those that were refused because something was missing come back with it. `None` says that it
//! takes a look at the whole.

use std::collections::{BTreeMap, HashSet};

use sallyport_model::Kind;
use sallyport_model::declarative::label;
use sallyport_model::schema::{self, Mode, parse_entity_in};
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
            Err(bad) => edit.refuse(&bad)?,
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

    /// Adds what has to be made again with what is there.
    fn add_dependents(&mut self, items_max: usize) -> Option<()> {
        let source = self.before.source;
        let mut queue: Vec<Key> = self.items.keys().copied().collect();
        while let Some(key) = queue.pop() {
            for dependent in self.dependents(key) {
                if self.items.contains_key(&dependent) {
                    continue;
                }
                match source.refusals().get(&dependent) {
                    Some(rejected) if rejected.kept.is_none() => continue,
                    // what is kept may be about something else
                    Some(_) => return None,
                    None => {}
                }
                if self.items.len() >= items_max {
                    return None;
                }
                let published = Some(source.published_value(dependent)?);
                let item = Item::new(dependent, published, self.before.plugins)?;
                self.items.insert(dependent, item);
                queue.push(dependent);
            }
        }
        Some(())
    }

    /// What has to be made again with an entity, although it did not change.
    fn dependents(&self, (kind, id): Key) -> Vec<Key> {
        let Before {
            source, current, ..
        } = self.before;
        let Some(item) = self.items.get(&(kind, id)).filter(|it| it.bad.is_none()) else {
            return Vec::new();
        };
        let is_gone = item.published.is_none();
        let services = |ids: Vec<Uuid>| ids.into_iter().map(|id| (Kind::Service, id)).collect();
        match kind {
            Kind::Certificate => current.showing(id).to_vec(),
            Kind::CaCertificate => services(current.trusting(id).to_vec()),
            Kind::Upstream => {
                let before = current.upstream_says(id);
                let shown = schema::reference(&item.entity["client_certificate"]);
                let name = item.entity["name"].as_str();
                let is_new = |id: Uuid| self.items.contains_key(&(Kind::Certificate, id));
                let same = before == name.map(|name| (name, shown));
                if same && !shown.is_some_and(is_new) {
                    return Vec::new();
                }
                let names = [before.map(|(name, _)| name), name].into_iter().flatten();
                services(names.flat_map(|name| current.services_at(name)).collect())
            }
            // one that is switched on or off takes along what hangs on it
            Kind::Service if is_gone || !source.is_served((kind, id)) => Vec::new(),
            Kind::Service => {
                let is_on = item.entity["enabled"] != false;
                match is_on == current.has_service(id) {
                    true => Vec::new(),
                    false => self.hanging_on((kind, id)),
                }
            }
            Kind::Route if is_gone || !source.is_served((kind, id)) => Vec::new(),
            Kind::Route => match self.is_off(item) != current.has_route(id) {
                true => Vec::new(),
                false => self.hanging_on((kind, id)),
            },
            _ => Vec::new(),
        }
    }

    fn hanging_on(&self, key: Key) -> Vec<Key> {
        let source = self.before.source;
        let kept = source.refusals().leaning_on(&key);
        let published = source.hanging_on(key.1);
        published.chain(kept.iter().copied()).collect()
    }

    /// Whether the service or the route of an entity is switched off.
    fn is_off(&self, item: &Item) -> bool {
        item.references.iter().any(|it| self.is_switched_off(it.to))
    }

    /// Whether a service or a route is switched on or off by this edit.
    fn is_switched(&self, key: Key) -> bool {
        let current = self.before.current;
        let was_off = match key.0 {
            Kind::Service => !current.has_service(key.1),
            Kind::Route => !current.has_route(key.1),
            _ => false,
        };
        was_off != self.is_switched_off(key)
    }

    fn is_switched_off(&self, key: Key) -> bool {
        let Before {
            source, current, ..
        } = self.before;
        let (kind, id) = key;
        match (kind, self.items.get(&key)) {
            (Kind::Service, Some(item)) if item.published.is_some() && item.bad.is_none() => {
                item.entity["enabled"] == false
            }
            (Kind::Service, _) => source.is_served(key) && !current.has_service(id),
            (Kind::Route, Some(item)) if item.published.is_some() && item.bad.is_none() => {
                self.is_off(item)
            }
            (Kind::Route, _) => source.is_served(key) && !current.has_route(id),
            _ => false,
        }
    }

    /// Whether an entity will be served, as published or as it was.
    fn is_served(&self, key: Key) -> bool {
        match self.items.get(&key) {
            Some(Item {
                published: None, ..
            }) => false,
            Some(Item { bad: None, .. }) => true,
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
                }
            }
        }
    }

    /// Refuses what turned out to be bad; `None` if that is not among the changes.
    fn refuse(&mut self, bad: &[Unservable]) -> Option<()> {
        for unservable in bad {
            let key = (unservable.kind, unservable.id?);
            let item = self.items.get_mut(&key)?;
            if item.bad.is_some() || item.published.is_none() {
                return None;
            }
            item.refuse(key, String::new(), unservable.reason.clone());
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
                let kept = source.served_value(key.0, key.1);
                let rejected = judge.refuse(key.0, told.clone(), published, kept.as_ref());
                // the same cannot be kept
                if kept.as_ref() == Some(published) {
                    return None;
                }
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
        if item.published.is_none() {
            let leaning = source.refusals().leaning_on(&(kind, id));
            if leaning.iter().any(|own| !self.items.contains_key(own)) {
                return None;
            }
            return (!was_served || edits.remove(kind, id)).then_some(());
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
        let taken = match is_live {
            true => edits.put(kind, id, &item.entity),
            false => edits.remove(kind, id),
        };
        taken.then_some(())
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
