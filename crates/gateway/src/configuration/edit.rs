//! A configuration out of the one before and a few entities: what it costs depends on these.

use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::config_table::flat;
use sallyport_model::entities::{Route, Service};
use sallyport_wire::ConfigHash;
use serde_json::Value;
use uuid::Uuid;

use super::{Configuration, ServedRoute, Unservable, fits, served_route, served_service};
use crate::balancer::Balancers;
use crate::ids::Ids;
use crate::router::is_stream;

/// Entities that are new or other than before, and those that are gone.
#[derive(Default)]
pub(crate) struct Edits {
    routes: Vec<Route>,
    services: Vec<Service>,
    /// All of them as flat values.
    values: Vec<(Kind, Uuid, Value)>,
    gone: Vec<(Kind, Uuid)>,
}

impl Edits {
    /// Adds an entity that passed the schema; `false` if it takes more than an edit.
    #[must_use]
    pub(crate) fn put(&mut self, kind: Kind, id: Uuid, entity: &Value) -> bool {
        let value = flat(kind, entity);
        let typed = match kind {
            // what hangs on it goes or comes with it
            Kind::Service if entity["enabled"] == false => return false,
            // certificates and other services have a part in it
            Kind::Service if !matches!(entity["protocol"].as_str(), Some("http" | "grpc")) => {
                return false;
            }
            Kind::Service => serde_json::from_value(value.clone()).map(|it| self.services.push(it)),
            Kind::Route => serde_json::from_value(value.clone()).map(|it| self.routes.push(it)),
            _ => return false,
        };
        self.values.push((kind, id, value));
        typed.is_ok()
    }

    /// Adds one that is gone; `false` if that takes more than an edit.
    #[must_use]
    pub(crate) fn remove(&mut self, kind: Kind, id: Uuid) -> bool {
        self.gone.push((kind, id));
        matches!(kind, Kind::Service | Kind::Route)
    }

    fn gone(&self, kind: Kind) -> Vec<Uuid> {
        let of_kind = self.gone.iter().filter(|(own, _)| *own == kind);
        of_kind.map(|(_, id)| *id).collect()
    }
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
        let mut problems = Vec::new();
        let mut services = self.services.clone();
        for service in &edits.services {
            let upstream = self.balancers.iter().find(|it| *it.name == *service.host);
            match served_service(service, upstream, balancers, Ok(None)) {
                Ok(made) => services.insert(service.id, Arc::new(made)),
                Err(unservable) => problems.push(unservable),
            }
        }
        for id in edits.gone(Kind::Service) {
            services.remove(&id);
        }
        let gone = edits.gone(Kind::Route);
        let was_stream = |id: Uuid| {
            let slot = self.router.slot(id);
            let route = slot.and_then(|slot| self.routes.get(slot)?.as_ref());
            route.is_some_and(|route| route.streams)
        };
        let streams = |route: &Route| route.protocols.iter().copied().any(is_stream);
        let touched = edits
            .routes
            .iter()
            .map(|route| route.id)
            .chain(gone.iter().copied());
        if edits.routes.iter().any(streams) || touched.into_iter().any(was_stream) {
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
        for route in &edits.routes {
            let service = match route.service {
                // one that is switched off, or not there
                Some(id) => Some(services.get(&id.0)?.clone()),
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
            let chain = self.chains.find(&self.handlers, route.id, service_id);
            let served = served_route(router.flavor(), route, service, chain);
            routes.set(slot, Some(served));
        }
        for id in edits.gone(Kind::Service) {
            if routes_of.get(&id).is_some_and(|slots| !slots.is_empty()) {
                return None;
            }
            routes_of.remove(&id);
        }
        for service in &edits.services {
            let made = services.get(&service.id);
            for slot in routes_of
                .get(&service.id)
                .into_iter()
                .flat_map(|all| all.iter())
            {
                let slot = *slot as usize;
                if let Some(Some(route)) = routes.get(slot) {
                    let service = made.cloned();
                    let route = ServedRoute {
                        service,
                        ..route.clone()
                    };
                    routes.set(slot, Some(route));
                }
            }
        }
        Some(Ok(Configuration {
            hash,
            identities: self.identities.clone(),
            handlers: self.handlers.clone(),
            global_chain: self.global_chain.clone(),
            chains: self.chains.clone(),
            plugins: self.plugins.clone(),
            balancers: self.balancers.clone(),
            keeps_all: self.keeps_all,
            // routes and services have none
            vaults: self.vaults.clone(),
            has_references: self.has_references,
            tls_defaults: self.tls_defaults.clone(),
            upstream_tls: self.upstream_tls.clone(),
            loaded: self.loaded.clone(),
            named: self.named.clone(),
            streams: self.streams.clone(),
            entities: self.entities.edited(&edits.values, &edits.gone),
            router,
            routes,
            services,
            routes_of,
            work,
        }))
    }

    /// Whether this service is served; one that is switched off is not.
    pub(crate) fn has_service(&self, id: Uuid) -> bool {
        self.services.get(&id).is_some()
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
