//! Edits of routes, and what edits of others mean for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::Route;
use sallyport_plugins::ids::{Ids, Pages};
use uuid::Uuid;

use super::Edits;
use super::services::ChangedServices;
use crate::chain::{Chains, Handlers, Touched};
use crate::configuration::routes::{fits, leave, served_route};
use crate::configuration::{Configuration, ServedRoute};
use crate::router::{Router, is_stream};

/// The routes of the next configuration.
pub(super) struct ChangedRoutes {
    /// By the slots of its router.
    pub(super) all: Pages<Option<ServedRoute>>,
    /// The slots of the routes of each service.
    pub(super) of: Ids<Arc<Vec<u32>>>,
}

impl Configuration {
    /// The routes by the slots of the next router.
    pub(super) fn edited_routes(
        &self,
        edits: &Edits,
        router: &Router,
        handlers: &Handlers,
        (services, touched): (&ChangedServices, &Touched),
    ) -> Option<ChangedRoutes> {
        let gone = edits.gone(Kind::Route);
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
        let mut chains = Chains::new(handlers);
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
        let closed = touched.closed_routes.iter();
        slots.extend(closed.filter_map(|id| Some(router.slot(*id)? as u32)));
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
        Some(ChangedRoutes {
            all: routes,
            of: routes_of,
        })
    }

    /// Whether a route among these is for streams, or was.
    pub(super) fn are_streams(&self, routes: &[Route], gone: &[Uuid]) -> bool {
        let was = |id: Uuid| {
            let slot = self.router.slot(id);
            let route = slot.and_then(|slot| self.routes.get(slot)?.as_ref());
            route.is_some_and(|route| route.streams)
        };
        let is = |route: &Route| route.protocols.iter().copied().any(is_stream);
        let touched = routes.iter().map(|route| route.id);
        routes.iter().any(is) || touched.chain(gone.iter().copied()).any(was)
    }
}
