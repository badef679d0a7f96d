//! Edits of routes, and what edits of others mean for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::AHashSet;
use sallyport_model::Kind;
use sallyport_model::entities::Route;
use sallyport_plugins::ids::{Ids, Pages};
use uuid::Uuid;

use super::Edits;
use super::services::ChangedServices;
use crate::chain::{Chains, Handlers, Touched};
use crate::configuration::routes::{fits, leave, served_route};
use crate::configuration::{Configuration, ServedRoute, Unservable};
use crate::proxy::Streams;
use crate::router::{Router, is_stream};

/// The routes of the next configuration.
pub(super) struct ChangedRoutes {
    /// By the slots of its router.
    pub(super) all: Pages<Option<ServedRoute>>,
    /// The slots of the routes of each service.
    pub(super) of: Ids<Arc<Vec<u32>>>,
    /// Whether any that is new, other or gone is or was for streams.
    pub(super) are_streams: bool,
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
        let mut are_streams = false;
        for id in gone {
            let Some(slot) = self.router.slot(id) else {
                continue;
            };
            are_streams |= is_for_streams(self.routes.get(slot));
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
            let streams = route.protocols.iter().copied().any(is_stream);
            let service = service.filter(|service| fits(route, service, streams));
            let slot = router.slot(route.id).expect("every route got a slot");
            let service_id = service.as_ref().map(|service| service.id);
            are_streams |= streams || is_for_streams(routes.get(slot));
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
        // routes that fitted a service do not fit it any more, and have to be among the edits;
        // those that did not and do now are put there with them
        let edited: AHashSet<Uuid> = match services.switched.is_empty() {
            true => AHashSet::new(),
            false => edits.routes.iter().map(|it| it.id).collect(),
        };
        let is_edited = |slot: &u32| {
            let route = routes.get(*slot as usize).and_then(Option::as_ref);
            route.is_some_and(|route| edited.contains(&route.id))
        };
        for id in &services.switched {
            if !routes_of
                .get(id)
                .is_none_or(|slots| slots.iter().all(is_edited))
            {
                return None;
            }
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
            are_streams |= route.streams;
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
            are_streams,
        })
    }

    /// The routes of streams, all of which are made ready again: there are few.
    pub(super) fn edited_streams(
        &self,
        edits: &Edits,
        handlers: &Handlers,
        services: &ChangedServices,
    ) -> Result<Arc<Streams>, Vec<Unservable>> {
        let put = edits.routes.iter().map(|it| it.id);
        let edited: AHashSet<Uuid> = put.chain(edits.gone(Kind::Route)).collect();
        let stay = self.streams.source().iter();
        let stay = stay.filter(|it| !edited.contains(&it.id));
        let is_ours = |route: &&Route| route.protocols.iter().copied().any(is_stream);
        let mut all: Vec<Route> = stay
            .chain(edits.routes.iter().filter(is_ours))
            .cloned()
            .collect();
        all.sort_by_key(|route| route.id);
        let served = |id: Uuid| services.all.get(&id).filter(|it| it.is_stream).cloned();
        let mut chains = Chains::new(handlers);
        let mut chain = |route: Uuid, service: Option<Uuid>| chains.of(route, service, true);
        let next = self.streams.next(self.flavor(), &all, served, &mut chain);
        next.map(Arc::new).map_err(|bad| {
            let unservable = |(index, reason): (usize, String)| {
                let Route { id, name, .. } = &all[index];
                Unservable::new(Kind::Route, *id, name.as_deref(), reason)
            };
            bad.into_iter().map(unservable).collect()
        })
    }
}

fn is_for_streams(route: Option<&Option<ServedRoute>>) -> bool {
    route.is_some_and(|route| route.as_ref().is_some_and(|route| route.streams))
}
