//! A configuration out of the one before and a few entities: what it costs depends on these.
//!
//! `None` says everywhere that it takes a look at the whole: what depends on an authority, on a
//! vault or on a route of streams is not followed here, nor what does not fit together.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::AHashMap;
use sallyport_model::Kind;
use sallyport_model::config_table::flatten;
use sallyport_model::entities::{
    Certificate, Foreign, Plugin, Route, Service, Sni, Target, Upstream,
};
use sallyport_plugins::ids::Ids;
use sallyport_plugins::{Identities, IdentityEdits};
use sallyport_wire::ConfigHash;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::{
    Configuration, Links, ServedRoute, ServedService, Unservable, fits, served_route,
    served_service, tls_of,
};
use crate::balancer::{Balancer, Balancers};
use crate::certificates::{self, Made, Named, UpstreamTlsMaker};
use crate::chain::{Chains, Handlers, Touched};
use crate::entities::unix_secs;
use crate::router::is_stream;
use crate::vaults::{has_reference, inner};

/// Entities that are new or other than before, and those that are gone.
#[derive(Default)]
pub(crate) struct Edits {
    routes: Vec<Route>,
    services: Vec<Service>,
    plugins: Vec<Plugin>,
    upstreams: Vec<Upstream>,
    targets: Vec<Target>,
    certificates: Vec<Certificate>,
    snis: Vec<Sni>,
    identities: IdentityEdits,
    /// All of them as flat values.
    values: Vec<(Kind, Uuid, Value)>,
    gone: Vec<(Kind, Uuid)>,
}

fn read<T: DeserializeOwned>(value: &Value, list: &mut Vec<T>) -> bool {
    let typed = serde_json::from_value(value.clone());
    typed.map(|it| list.push(it)).is_ok()
}

impl Edits {
    /// Adds an entity that passed the schema; `false` if it takes more than an edit.
    #[must_use]
    pub(crate) fn put(&mut self, kind: Kind, id: Uuid, entity: &Value) -> bool {
        let mut value = entity.clone();
        flatten(kind, &mut value);
        if kind == Kind::ConsumerGroupMember {
            value["id"] = Value::String(id.to_string());
        }
        let is_read = match kind {
            // what hangs on it goes or comes with it
            Kind::Service if entity["enabled"] == false => return false,
            Kind::Service => read(&value, &mut self.services),
            Kind::Route => read(&value, &mut self.routes),
            // one that is switched off is none
            Kind::Plugin if entity["enabled"] == false => {
                self.gone.push((kind, id));
                return true;
            }
            Kind::Plugin if has_reference(&value["config"]) => return false,
            Kind::Plugin => read(&value, &mut self.plugins),
            Kind::Upstream => read(&value, &mut self.upstreams),
            Kind::Target => read(&value, &mut self.targets),
            Kind::Certificate if !is_plain(&value) => return false,
            Kind::Certificate => read(&value, &mut self.certificates),
            Kind::Sni => read(&value, &mut self.snis),
            // nothing here reads them
            Kind::Key | Kind::KeySet => true,
            _ => self.identities.put(kind, id, value.clone()),
        };
        self.values.push((kind, id, value));
        is_read
    }

    /// Adds one that is gone; `false` if that takes more than an edit.
    #[must_use]
    pub(crate) fn remove(&mut self, kind: Kind, id: Uuid) -> bool {
        self.gone.push((kind, id));
        match kind {
            Kind::Vault | Kind::CaCertificate => false,
            kind if IdentityEdits::takes(kind) => {
                self.identities.remove(kind, id);
                true
            }
            _ => true,
        }
    }

    fn gone(&self, kind: Kind) -> Vec<Uuid> {
        let of_kind = self.gone.iter().filter(|(own, _)| *own == kind);
        of_kind.map(|(_, id)| *id).collect()
    }
}

/// Whether no part of a certificate is in a vault.
fn is_plain(certificate: &Value) -> bool {
    let texts = ["cert", "key", "cert_alt", "key_alt"];
    let mut texts = texts
        .iter()
        .filter_map(|field| certificate[*field].as_str());
    texts.all(|text| inner(text).is_none())
}

impl Configuration {
    /// This configuration with some edits; `None` if they take more than that.
    ///
    /// # Errors
    /// Everything among the edits that this gateway cannot serve.
    pub(crate) fn edited(
        &self,
        edits: &Edits,
        hash: ConfigHash,
        balancers: &Balancers,
    ) -> Option<Result<Configuration, Vec<Unservable>>> {
        let identities = self.edited_identities(edits)?;
        let (handlers, touched) = self.edited_handlers(edits, &identities)?;
        let (loaded, named) = self.edited_certificates(edits)?;
        let mut links = self.links.clone();
        let changed = self.edited_balancers(edits, &loaded, balancers, &mut links)?;
        let mut problems = Vec::new();
        let behind = (&changed, &loaded, balancers);
        let (services, upstream_tls) =
            self.edited_services(edits, behind, &mut links, &mut problems)?;
        let gone = edits.gone(Kind::Route);
        if self.are_streams(&edits.routes, &gone) {
            return None;
        }
        let (router, work) = match self.router.edited(&edits.routes, &gone) {
            Ok(edited) => edited,
            Err(bad) => {
                problems.extend(bad.into_iter().map(|(index, error)| {
                    let Route { id, name, .. } = &edits.routes[index];
                    Unservable::new(Kind::Route, *id, name.as_deref(), error.to_string())
                }));
                return Some(Err(problems));
            }
        };
        if !problems.is_empty() {
            return Some(Err(problems));
        }
        let mut routes = self.routes.clone();
        while routes.len() < router.slots() {
            routes.push(None);
        }
        let mut routes_of = self.routes_of.clone();
        for id in gone {
            let Some(slot) = self.router.slot(id) else {
                continue;
            };
            leave(&mut routes_of, self.routes.get(slot), slot);
            routes.set(slot, None);
        }
        let mut chains = Chains::new(&handlers);
        for route in &edits.routes {
            let service = match route.service {
                // one that is switched off, or not there
                Some(id) => Some(services.all.get(&id.0)?.clone()),
                None => None,
            };
            let service = service.filter(|service| fits(route, service, false));
            let slot = router.slot(route.id).expect("every route got a slot");
            let service_id = service.as_ref().map(|service| service.id);
            let before = routes.get(slot).and_then(Option::as_ref);
            let stays = before.is_some_and(|route| {
                route.service.as_ref().map(|service| service.id) == service_id
            });
            if !stays {
                leave(&mut routes_of, routes.get(slot), slot);
            }
            if let Some(id) = service_id.filter(|_| !stays) {
                let mut slots = routes_of.remove(&id).unwrap_or_default();
                Arc::make_mut(&mut slots).push(slot as u32);
                routes_of.insert(id, slots);
            }
            let chain = chains.of(route.id, service_id, false);
            let served = served_route(router.flavor(), route, service, chain);
            routes.set(slot, Some(served));
        }
        for id in edits.gone(Kind::Service) {
            if routes_of.get(&id).is_some_and(|slots| !slots.is_empty()) {
                return None;
            }
            routes_of.remove(&id);
        }
        // routes of services that are other than before, and of plugins
        let of_service = |id: &Uuid| routes_of.get(id).cloned().unwrap_or_default();
        let slots = services.changed.iter().chain(&touched.services);
        let slots: Vec<_> = slots.map(of_service).collect();
        let slots = slots.iter().flat_map(|slots| slots.iter().copied());
        let mut slots: BTreeSet<u32> = slots.collect();
        for id in &touched.routes {
            match router.slot(*id) {
                Some(slot) => _ = slots.insert(slot as u32),
                // the plugin went with the route
                None if self.router.slot(*id).is_some() => {}
                None => return None,
            }
        }
        for slot in slots {
            let slot = slot as usize;
            let Some(Some(route)) = routes.get(slot) else {
                continue;
            };
            if route.streams {
                return None;
            }
            let service = route.service.as_ref();
            let service = service.and_then(|it| services.all.get(&it.id)).cloned();
            let chain = chains.of(route.id, service.as_ref().map(|it| it.id), false);
            let route = ServedRoute {
                service,
                chain,
                ..route.clone()
            };
            routes.set(slot, Some(route));
        }
        let (global_chain, global_streams) = match Arc::ptr_eq(&handlers, &self.handlers) {
            true => (self.global_chain.clone(), self.global_streams.clone()),
            false => (
                Arc::new(handlers.global_chain(false)),
                Arc::new(handlers.global_chain(true)),
            ),
        };
        Some(Ok(Configuration {
            hash,
            identities,
            global_chain,
            global_streams,
            balancers: changed.all,
            links,
            closed: self.closed.clone(),
            keeps_all: self.keeps_all,
            // what is in a vault is not edited
            vaults: self.vaults.clone(),
            has_references: self.has_references,
            tls_defaults: self.tls_defaults.clone(),
            upstream_tls,
            loaded,
            named,
            streams: self.streams.clone(),
            entities: self.entities.edited(&edits.values, &edits.gone),
            handlers,
            router,
            routes,
            services: services.all,
            routes_of,
            work,
        }))
    }

    /// Whether a route among these is for streams, or was.
    fn are_streams(&self, routes: &[Route], gone: &[Uuid]) -> bool {
        let was = |id: Uuid| {
            let slot = self.router.slot(id);
            let route = slot.and_then(|slot| self.routes.get(slot)?.as_ref());
            route.is_some_and(|route| route.streams)
        };
        let is = |route: &Route| route.protocols.iter().copied().any(is_stream);
        let touched = routes.iter().map(|route| route.id);
        routes.iter().any(is) || touched.chain(gone.iter().copied()).any(was)
    }

    fn edited_identities(&self, edits: &Edits) -> Option<Arc<Identities>> {
        if edits.identities.is_empty() {
            return Some(self.identities.clone());
        }
        let edited = self.identities.edited(&edits.identities, unix_secs())?;
        Some(Arc::new(edited))
    }

    fn edited_handlers(
        &self,
        edits: &Edits,
        identities: &Identities,
    ) -> Option<(Arc<Handlers>, Touched)> {
        let gone = edits.gone(Kind::Plugin);
        if edits.plugins.is_empty() && gone.is_empty() {
            return Some((self.handlers.clone(), Touched::default()));
        }
        let is_there = |plugin: &Plugin| {
            let consumer = |it: Foreign| identities.consumer_by_id(it.0).is_some();
            plugin.consumer.is_none_or(consumer)
                && plugin
                    .consumer_group
                    .is_none_or(|it| identities.has_group(it.0))
        };
        if !edits.plugins.iter().all(is_there) {
            return None;
        }
        // one that cannot be used is refused with a look at the whole
        let (handlers, touched) = self.handlers.edited(&edits.plugins, &gone)?.ok()?;
        // then other entities are kept
        let same = handlers.read_entities() == self.handlers.read_entities() || self.keeps_all;
        same.then_some((Arc::new(handlers), touched))
    }

    fn edited_certificates(&self, edits: &Edits) -> Option<(certificates::Identities, Arc<Named>)> {
        let (gone, gone_names) = (edits.gone(Kind::Certificate), edits.gone(Kind::Sni));
        let none = edits.certificates.is_empty() && edits.snis.is_empty();
        if none && gone.is_empty() && gone_names.is_empty() {
            return Some((self.loaded.clone(), self.named.clone()));
        }
        let ids: Vec<Uuid> = edits.certificates.iter().map(|it| it.id).collect();
        let is_shown = |id: &Uuid| self.links.shown.get(id).is_some();
        if ids.iter().chain(&gone).any(is_shown) {
            return None;
        }
        let read = certificates::load(&edits.certificates, &self.loaded).ok()?;
        let mut loaded = self.loaded.clone();
        for id in &gone {
            loaded.remove(id);
        }
        for (id, certificate) in read.iter() {
            loaded.insert(*id, certificate.clone());
        }
        let named = self
            .named
            .edited((&ids, &edits.snis), &gone_names, &loaded)?;
        if gone.iter().any(|id| named.uses(*id)) {
            return None;
        }
        Some((loaded, Arc::new(named)))
    }

    fn edited_balancers(
        &self,
        edits: &Edits,
        loaded: &certificates::Identities,
        balancers: &Balancers,
        links: &mut Links,
    ) -> Option<ChangedBalancers> {
        let mut all = self.balancers.clone();
        let mut targets: AHashMap<Uuid, Vec<Target>> = AHashMap::new();
        let (gone, gone_targets) = (edits.gone(Kind::Upstream), edits.gone(Kind::Target));
        let of = |id: &Uuid| self.balancers.get(id).map(|it| it.source());
        let has_services = |links: &Links, name: &str| {
            let services = links.services.get(name);
            services.is_some_and(|services| !services.is_empty())
        };
        for id in &gone {
            let (upstream, _) = of(id)?;
            // its name is that of a host from now on
            if has_services(links, &upstream.name) {
                return None;
            }
            all.remove(id);
            links.upstreams.remove(&*upstream.name);
        }
        let members = |id: Uuid| of(&id).map_or_else(Vec::new, |(_, targets)| targets.to_vec());
        let moved = edits.targets.iter().map(|target| target.id);
        for id in gone_targets.into_iter().chain(moved) {
            if let Some(upstream) = links.upstream_of.remove(&id) {
                let list = targets.entry(upstream).or_insert_with(|| members(upstream));
                list.retain(|target| target.id != id);
            }
        }
        for target in &edits.targets {
            let upstream = target.upstream.0;
            let list = targets.entry(upstream).or_insert_with(|| members(upstream));
            list.push(target.clone());
            list.sort_by_key(|target| target.id);
            links.upstream_of.insert(target.id, upstream);
        }
        let mut upstreams: AHashMap<Uuid, Upstream> = AHashMap::new();
        for upstream in &edits.upstreams {
            let before = of(&upstream.id).map(|(before, _)| before);
            let same_name = before.is_some_and(|before| before.name == upstream.name);
            let same_shown =
                before.is_some_and(|it| it.client_certificate == upstream.client_certificate);
            // services that meant a host mean this, or the other way round, or show another
            if !same_name || !same_shown {
                let names = [Some(&upstream.name), before.map(|before| &before.name)];
                if names
                    .into_iter()
                    .flatten()
                    .any(|name| has_services(links, name))
                {
                    return None;
                }
            }
            if !same_name {
                if links.upstreams.get(&*upstream.name).is_some() {
                    return None;
                }
                before.map(|before| links.upstreams.remove(&*before.name));
                links
                    .upstreams
                    .insert(upstream.name.as_str().into(), upstream.id);
            }
            if let Some(Foreign(id)) = upstream.client_certificate {
                loaded.get(&id)?;
                links.shown.insert(id, ());
            }
            upstreams.insert(upstream.id, upstream.clone());
        }
        let mut touched: BTreeSet<Uuid> = targets.keys().copied().collect();
        touched.extend(upstreams.keys());
        let mut changed = Vec::new();
        for id in touched {
            if gone.contains(&id) {
                continue;
            }
            let upstream = match upstreams.get(&id) {
                Some(upstream) => upstream,
                None => of(&id)?.0,
            };
            let list = targets.remove(&id).unwrap_or_else(|| members(id));
            let shown = upstream.client_certificate;
            let shown = shown.and_then(|it| Some(&loaded.get(&it.0)?.first));
            let list: Vec<&Target> = list.iter().collect();
            let balancer = balancers.balancer(upstream, &list, shown).ok()?;
            all.insert(id, balancer.clone());
            changed.push(balancer);
        }
        Some(ChangedBalancers { all, changed })
    }

    fn edited_services(
        &self,
        edits: &Edits,
        (behind, loaded, balancers): (&ChangedBalancers, &certificates::Identities, &Balancers),
        links: &mut Links,
        problems: &mut Vec<Unservable>,
    ) -> Option<(ChangedServices, Made)> {
        let mut all = self.services.clone();
        let mut changed = BTreeSet::new();
        let mut maker = UpstreamTlsMaker::new(&self.tls_defaults, &self.upstream_tls);
        for balancer in &behind.changed {
            let services = links.services.get(&*balancer.name).cloned();
            for id in services.iter().flat_map(|ids| ids.iter()) {
                let service = all.get(id)?.with(balancer);
                // these are held elsewhere as well
                if service.is_stream {
                    return None;
                }
                all.insert(*id, Arc::new(service));
                changed.insert(*id);
            }
        }
        for id in edits.gone(Kind::Service) {
            let before = all.remove(&id);
            if before.as_ref().is_some_and(|before| before.is_stream) {
                return None;
            }
            if let Some(before) = before {
                links.leave_host(&before.upstream, id);
            }
        }
        for service in &edits.services {
            let before = all.get(&service.id).cloned();
            let was_stream = before.as_ref().is_some_and(|before| before.is_stream);
            if was_stream || is_stream(service.protocol) || !service.ca_certificates.is_empty() {
                return None;
            }
            if let Some(Foreign(id)) = service.client_certificate {
                loaded.get(&id)?;
                links.shown.insert(id, ());
            }
            let upstream = links.upstreams.get(&*service.host);
            let upstream = upstream.and_then(|id| behind.all.get(id));
            let tls = tls_of(loaded, (service, upstream), &AHashMap::new(), &mut maker);
            match served_service(service, upstream, balancers, tls) {
                Ok(made) => all.insert(service.id, Arc::new(made)),
                Err(unservable) => problems.push(unservable),
            }
            if let Some(before) = before {
                links.leave_host(&before.upstream, service.id);
            }
            links.join_host(&service.host, service.id);
            changed.insert(service.id);
        }
        Some((ChangedServices { all, changed }, maker.finish_with_before()))
    }

    /// Whether this service is served; one that is switched off is not.
    pub(crate) fn has_service(&self, id: Uuid) -> bool {
        self.services.get(&id).is_some()
    }
}

/// The balancers of the next configuration.
struct ChangedBalancers {
    all: Ids<Arc<Balancer>>,
    /// Those among them that are other than before.
    changed: Vec<Arc<Balancer>>,
}

/// The services of the next configuration.
struct ChangedServices {
    all: Ids<Arc<ServedService>>,
    /// Those among them that are other than before.
    changed: BTreeSet<Uuid>,
}

impl Links {
    fn join_host(&mut self, host: &str, service: Uuid) {
        let mut services = self.services.remove(host).unwrap_or_default();
        Arc::make_mut(&mut services).push(service);
        self.services.insert(host.into(), services);
    }

    fn leave_host(&mut self, host: &str, service: Uuid) {
        if let Some(mut services) = self.services.remove(host) {
            Arc::make_mut(&mut services).retain(|own| *own != service);
            if !services.is_empty() {
                self.services.insert(host.into(), services);
            }
        }
    }
}

/// The route in this slot is no longer one of its service's.
fn leave(routes_of: &mut Ids<Arc<Vec<u32>>>, route: Option<&Option<ServedRoute>>, slot: usize) {
    let service = route.and_then(|route| route.as_ref()?.service.as_ref());
    let Some(id) = service.map(|service| service.id) else {
        return;
    };
    if let Some(mut slots) = routes_of.remove(&id) {
        Arc::make_mut(&mut slots).retain(|other| *other as usize != slot);
        routes_of.insert(id, slots);
    }
}
