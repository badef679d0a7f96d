//! What has to be made again with an entity, although it did not change.

use sallyport_model::Kind;
use sallyport_model::schema;
use serde_json::Value;
use uuid::Uuid;

use super::super::refusals::Key;
use super::{Before, Edit, Item};
use crate::router::is_stream;

impl Edit<'_> {
    /// Adds what has to be made again with what is there.
    pub(super) fn add_dependents(&mut self, items_max: usize) -> Option<()> {
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
        let Some(item) = self.items.get(&(kind, id)) else {
            return Vec::new();
        };
        if item.bad.is_some() {
            return match kind {
                // its names go with it
                Kind::Certificate if item.is_lost => current.names_of(id),
                _ => Vec::new(),
            };
        }
        let is_gone = item.published.is_none();
        let services = |ids: Vec<Uuid>| ids.into_iter().map(|id| (Kind::Service, id)).collect();
        match kind {
            Kind::Vault => current.referring_through(id, (!is_gone).then_some(&item.entity)),
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
                let is_switched = is_on != current.has_service(id);
                // routes fit one that is for streams, or one that is not
                let other = is_for_streams(&item.entity) != current.has_stream_service(id);
                match (is_switched, is_on && other) {
                    (true, _) => self.hanging_on((kind, id)),
                    (false, false) => Vec::new(),
                    (false, true) => {
                        let mut hanging = self.hanging_on((kind, id));
                        hanging.retain(|(kind, _)| *kind == Kind::Route);
                        hanging
                    }
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
    pub(super) fn is_off(&self, item: &Item) -> bool {
        item.references.iter().any(|it| self.is_switched_off(it.to))
    }

    /// Whether a service or a route is switched on or off by this edit.
    pub(super) fn is_switched(&self, key: Key) -> bool {
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
}

/// Whether a service is for streams.
fn is_for_streams(service: &Value) -> bool {
    let protocol = serde_json::from_value(service["protocol"].clone());
    protocol.is_ok_and(is_stream)
}
