//! What belongs to what in a configuration, so that one of them can change alone.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::{ConfigTable, Foreign};
use sallyport_plugins::ids::Ids;
use uuid::Uuid;

use super::ServedService;

/// What belongs to what, so that one of them can change alone.
#[derive(Clone, Default)]
pub(super) struct Links {
    /// Upstreams by name.
    pub(super) upstreams: Ids<Uuid, Box<str>>,
    /// The upstreams of targets.
    pub(super) upstream_of: Ids<Uuid>,
    /// Services by their `host`.
    pub(super) services: Ids<Arc<Vec<Uuid>>, Box<str>>,
    /// What shows a certificate: services and upstreams.
    pub(super) shown: Ids<Arc<Vec<(Kind, Uuid)>>>,
    /// The services that believe a CA certificate.
    pub(super) trusted: Ids<Arc<Vec<Uuid>>>,
}

impl Links {
    pub(super) fn new(table: &ConfigTable) -> Links {
        let mut services: HashMap<&str, Vec<Uuid>> = HashMap::new();
        for service in &table.services {
            let of_host = services.entry(&service.host).or_default();
            of_host.push(service.id);
        }
        let upstreams = table.upstreams.iter();
        let mut shown: HashMap<Uuid, Vec<(Kind, Uuid)>> = HashMap::new();
        let by_services = table.services.iter();
        let by_services = by_services.map(|it| (Kind::Service, it.id, it.client_certificate));
        let by_upstreams = upstreams.clone();
        let by_upstreams = by_upstreams.map(|it| (Kind::Upstream, it.id, it.client_certificate));
        for (kind, id, certificate) in by_services.chain(by_upstreams) {
            if let Some(certificate) = certificate {
                shown.entry(certificate.0).or_default().push((kind, id));
            }
        }
        let mut trusted: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
        for service in &table.services {
            for authority in &service.ca_certificates {
                trusted.entry(*authority).or_default().push(service.id);
            }
        }
        let targets = table.targets.iter();
        Links {
            upstreams: upstreams
                .map(|it| (it.name.as_str().into(), it.id))
                .collect(),
            upstream_of: targets.map(|it| (it.id, it.upstream.0)).collect(),
            services: services
                .into_iter()
                .map(|(host, ids)| (host.into(), Arc::new(ids)))
                .collect(),
            shown: of_each(shown),
            trusted: of_each(trusted),
        }
    }

    /// A service that is there from now on.
    pub(super) fn join(&mut self, service: &ServedService) {
        let id = service.id;
        join(&mut self.services, service.upstream.clone(), id);
        if let Some(certificate) = service.shows {
            join(&mut self.shown, certificate, (Kind::Service, id));
        }
        for authority in &service.trusts {
            join(&mut self.trusted, *authority, id);
        }
    }

    /// A service that is gone, or will be another.
    pub(super) fn leave(&mut self, service: &ServedService) {
        let id = service.id;
        leave(&mut self.services, &service.upstream, &id);
        if let Some(certificate) = service.shows {
            leave(&mut self.shown, &certificate, &(Kind::Service, id));
        }
        for authority in &service.trusts {
            leave(&mut self.trusted, authority, &id);
        }
    }

    /// What an upstream shows, in the place of what it did.
    pub(super) fn show(&mut self, id: Uuid, before: Option<Foreign>, now: Option<Foreign>) {
        let key = (Kind::Upstream, id);
        if let Some(Foreign(certificate)) = before {
            leave(&mut self.shown, &certificate, &key);
        }
        if let Some(Foreign(certificate)) = now {
            join(&mut self.shown, certificate, key);
        }
    }
}

fn of_each<T>(all: HashMap<Uuid, Vec<T>>) -> Ids<Arc<Vec<T>>> {
    let all = all.into_iter();
    all.map(|(id, list)| (id, Arc::new(list))).collect()
}

fn join<K, T>(map: &mut Ids<Arc<Vec<T>>, K>, at: K, item: T)
where
    K: Clone + Eq + Hash,
    T: Clone,
{
    let mut list = map.remove(&at).unwrap_or_default();
    Arc::make_mut(&mut list).push(item);
    map.insert(at, list);
}

fn leave<K, T>(map: &mut Ids<Arc<Vec<T>>, K>, at: &K, item: &T)
where
    K: Clone + Eq + Hash,
    T: Clone + PartialEq,
{
    if let Some(mut list) = map.remove(at) {
        Arc::make_mut(&mut list).retain(|own| own != item);
        if !list.is_empty() {
            map.insert(at.clone(), list);
        }
    }
}
