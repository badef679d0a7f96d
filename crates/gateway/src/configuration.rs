//! A configuration made ready to serve: immutable, swapped as a whole.
//!
//! It is made of a whole document, or of the one before and a few edits; both share with the one
//! before what did not change.

mod alone;
mod edit;
#[cfg(test)]
pub(crate) mod edit_tests;
mod links;
mod routes;
mod services;
mod unservable;
mod upstreams;

use std::collections::HashMap;
use std::sync::Arc;

use sallyport_model::declarative::Declared;
use sallyport_model::entities;
use sallyport_model::{Kind, RouterFlavor};
use sallyport_plugins::Identities;
use sallyport_plugins::ids::{Ids, Pages};
use sallyport_wire::ConfigHash;
use uuid::Uuid;

use crate::balancer::{Balancer, Balancers};
use crate::certificates::{self, Made, Named, TlsDefaults, UpstreamTlsMaker};
use crate::chain::{Chain, Chains, Handlers};
use crate::closed::Closed;
use crate::conf::Dns;
use crate::entities::{Entities, unix_secs};
use crate::proxy::Streams;
use crate::router::{Match, Query, Router, Work, is_stream};
use crate::vaults::{NamedVaults, Resolved, Vaults};
pub(crate) use alone::is_bad_alone;
pub(crate) use edit::Edits;
use links::Links;
pub(crate) use routes::ServedRoute;
use routes::{fits, served_route};
pub(crate) use services::ServedService;
use services::{Authorities, services};
pub use unservable::Unservable;
use upstreams::upstreams;

/// A configuration made ready to serve.
pub struct Configuration {
    /// Its hash; all zeros before the first one.
    pub hash: ConfigHash,
    pub(crate) identities: Arc<Identities>,
    pub(crate) handlers: Arc<Handlers>,
    /// The plugins that are for all requests.
    pub(crate) global_chain: Arc<Chain>,
    /// And for all streams.
    pub(crate) global_streams: Arc<Chain>,
    /// What vault references stand for.
    vaults: Vaults,
    /// Vaults that are entities, and what has references through them.
    named_vaults: NamedVaults,
    /// Whether there are references, or perhaps were.
    has_references: bool,
    authorities: Authorities,
    /// Those of all upstreams, by id, whether a service uses them or not.
    pub(crate) balancers: Ids<Arc<Balancer>>,
    links: Links,
    /// Whether the Admin API shows the entities.
    keeps_all: bool,
    /// How upstreams are spoken to where a service says nothing.
    tls_defaults: Arc<TlsDefaults>,
    upstream_tls: Made,
    /// The certificates, read.
    loaded: certificates::Identities,
    /// What listeners show, by server name.
    pub(crate) named: Arc<Named>,
    /// Routes of what is not HTTP.
    pub(crate) streams: Arc<Streams>,
    /// What the APIs and log plugins show, as far as somebody may ask.
    pub(crate) entities: Entities,
    router: Router,
    /// By the slots of the router.
    routes: Pages<Option<ServedRoute>>,
    services: Ids<Arc<ServedService>>,
    /// The slots of the routes of each service.
    routes_of: Ids<Arc<Vec<u32>>>,
    work: Work,
}

impl Configuration {
    /// What a gateway serves before it has a configuration: nothing.
    pub fn empty(flavor: RouterFlavor) -> Configuration {
        Configuration {
            hash: ConfigHash::ZERO,
            identities: Arc::default(),
            handlers: Arc::default(),
            global_chain: Arc::default(),
            global_streams: Arc::default(),
            vaults: Vaults::default(),
            named_vaults: NamedVaults::default(),
            has_references: false,
            authorities: Authorities::default(),
            keeps_all: false,
            tls_defaults: Arc::default(),
            upstream_tls: Made::default(),
            loaded: certificates::Identities::default(),
            named: Arc::default(),
            streams: Arc::default(),
            entities: Entities::new(&serde_json::Value::Null, &ALWAYS, 0),
            router: Router::new(flavor),
            balancers: Ids::default(),
            links: Links::default(),
            routes: Pages::default(),
            services: Ids::default(),
            routes_of: Ids::default(),
            work: Work::default(),
        }
    }

    /// Makes a checked configuration, which holds nothing disabled, ready to serve in place of
    /// this one; what did not change is shared with it.
    ///
    /// # Errors
    /// Everything in it that this gateway cannot serve.
    pub fn next(
        &self,
        declared: &Declared,
        hash: ConfigHash,
    ) -> Result<Configuration, Vec<Unservable>> {
        self.next_with(declared, hash, &Balancers::new(Dns::default()), &[])
    }

    /// [`next`](Configuration::next) with the balancers of a running gateway, whose state goes on,
    /// and with what is closed because it is not in the configuration as it should be.
    ///
    /// # Errors
    /// Everything in it that this gateway cannot serve.
    pub(crate) fn next_with(
        &self,
        declared: &Declared,
        hash: ConfigHash,
        balancers: &Balancers,
        closed: &[Closed],
    ) -> Result<Configuration, Vec<Unservable>> {
        let table = &declared.table;
        let mut problems = Vec::new();
        let mut named_vaults = NamedVaults::new(&table.vaults);
        let plugins = table.plugins.iter();
        plugins.for_each(|plugin| named_vaults.note_plugin(plugin));
        let certificates = table.certificates.iter();
        certificates.for_each(|it| named_vaults.note_certificate(it));
        let resolver = self.vaults.of(&named_vaults);
        let resolved = resolver.plugins(&table.plugins);
        let (handlers, mut has_references) = match resolved {
            Ok(resolved) => {
                let handlers = handlers(&resolved, closed, &self.handlers, &mut problems);
                (Arc::new(handlers), resolved.has_references())
            }
            Err(bad) => {
                problems.extend(bad.into_iter().map(|(id, name, reason)| {
                    Unservable::new(Kind::Plugin, id, Some(&name), reason)
                }));
                (Arc::default(), true)
            }
        };
        let resolved = resolver.certificates(&table.certificates);
        let loaded = resolved.and_then(|resolved| {
            has_references |= resolved.is_some();
            let certificates = resolved.as_ref().unwrap_or(&table.certificates);
            certificates::load(certificates, &self.loaded)
        });
        let loaded = loaded.unwrap_or_else(|bad| {
            problems.extend(
                bad.into_iter()
                    .map(|(id, reason)| Unservable::new(Kind::Certificate, id, None, reason)),
            );
            certificates::Identities::default()
        });
        let upstreams = upstreams(table, &loaded, balancers, &mut problems);
        let mut upstream_tls = UpstreamTlsMaker::new(&self.tls_defaults, &self.upstream_tls);
        let authorities = table.ca_certificates.iter();
        let authorities = authorities
            .map(|it| (it.id, it.cert.as_str().into()))
            .collect();
        let services = {
            let tls = (&loaded, &authorities);
            let behind = (&upstreams, balancers);
            services(table, behind, tls, &mut upstream_tls, &mut problems)
        };
        let (router, work) = self.router.updated(&table.routes).unwrap_or_else(|bad| {
            problems.extend(bad.into_iter().map(|(index, error)| {
                let route = &table.routes[index];
                Unservable::new(
                    Kind::Route,
                    route.id,
                    route.name.as_deref(),
                    error.to_string(),
                )
            }));
            (Router::default(), Work::default())
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut chains = Chains::new(&handlers);
        let mut routes: Pages<Option<ServedRoute>> = Pages::default();
        (0..router.slots()).for_each(|_| routes.push(None));
        let mut routes_of: HashMap<Uuid, Vec<u32>> = HashMap::new();
        for route in &table.routes {
            let service = route.service.and_then(|id| services.get(&id.0).cloned());
            let streams = route.protocols.iter().copied().any(is_stream);
            let service = service.filter(|service| fits(route, service, streams));
            let slot = router.slot(route.id).expect("every route got a slot");
            if let Some(service) = &service {
                routes_of.entry(service.id).or_default().push(slot as u32);
            }
            let chain = chains.of(route.id, service.as_ref().map(|s| s.id), false);
            routes.set(
                slot,
                Some(served_route(router.flavor(), route, service, chain)),
            );
        }
        let served = |id: Uuid| {
            services
                .get(&id)
                .filter(|service| service.is_stream)
                .cloned()
        };
        let mut chain = |route: Uuid, service: Option<Uuid>| chains.of(route, service, true);
        let streams = (self.streams)
            .next(router.flavor(), &table.routes, served, &mut chain)
            .map_err(|bad| {
                let unservable = |(index, reason): (usize, String)| {
                    let route: &entities::Route = &table.routes[index];
                    Unservable::new(Kind::Route, route.id, route.name.as_deref(), reason)
                };
                bad.into_iter().map(unservable).collect::<Vec<_>>()
            })?;
        Ok(Configuration {
            hash,
            identities: Arc::new(Identities::new(table, unix_secs())),
            tls_defaults: self.tls_defaults.clone(),
            upstream_tls: upstream_tls.finish(),
            named: Arc::new(Named::new(&table.snis, &loaded)),
            loaded,
            streams: Arc::new(streams),
            global_chain: Arc::new(handlers.global_chain(false)),
            global_streams: Arc::new(handlers.global_chain(true)),
            keeps_all: self.keeps_all,
            vaults: self.vaults.clone(),
            named_vaults,
            has_references,
            authorities,
            entities: entities(
                declared,
                match (self.keeps_all, handlers.read_entities()) {
                    (true, _) => &Kind::ALL,
                    (false, true) => &LOGGED,
                    (false, false) => &ALWAYS,
                },
            ),
            handlers,
            links: Links::new(table),
            balancers: upstreams.into_values().map(|it| (it.id, it)).collect(),
            router,
            routes,
            services: services.into_iter().collect(),
            routes_of: routes_of
                .into_iter()
                .map(|(id, slots)| (id, Arc::new(slots)))
                .collect(),
            work,
        })
    }

    /// The same, and those that come after it keep all entities for the Admin API.
    #[must_use]
    pub(crate) fn keeping_all(mut self, keeps_all: bool) -> Configuration {
        self.keeps_all = keeps_all;
        if keeps_all {
            self.entities.keep(&Kind::ALL);
        }
        self
    }

    /// The same, and those that come after it resolve references by these vaults.
    #[must_use]
    pub(crate) fn with_vaults(mut self, vaults: Vaults) -> Configuration {
        self.vaults = vaults;
        self
    }

    /// Where 503 is answered because something is missing.
    pub(crate) fn closed(&self) -> Vec<Closed> {
        self.handlers.closed().cloned().collect()
    }

    /// How its router reads routes.
    pub(crate) fn flavor(&self) -> RouterFlavor {
        self.router.flavor()
    }

    /// The name of an upstream and the certificate that it shows.
    pub(crate) fn upstream_says(&self, id: Uuid) -> Option<(&str, Option<Uuid>)> {
        let (upstream, _) = self.balancers.get(&id)?.source();
        let shown = upstream.client_certificate.map(|it| it.0);
        Some((&upstream.name, shown))
    }

    /// The services and upstreams that show a certificate.
    pub(crate) fn showing(&self, certificate: Uuid) -> &[(Kind, Uuid)] {
        let shown = self.links.shown.get(&certificate);
        shown.map_or(&[], |keys| keys.as_slice())
    }

    /// The server names that stand for a certificate.
    pub(crate) fn names_of(&self, certificate: Uuid) -> Vec<(Kind, Uuid)> {
        let names = self.named.names_of(certificate).iter();
        names.map(|id| (Kind::Sni, *id)).collect()
    }

    /// The services that name a CA certificate.
    pub(crate) fn trusting(&self, authority: Uuid) -> &[Uuid] {
        let trusted = self.links.trusted.get(&authority);
        trusted.map_or(&[], |ids| ids.as_slice())
    }

    /// Whether this service is served; one that is switched off is not.
    pub(crate) fn has_service(&self, id: Uuid) -> bool {
        self.services.get(&id).is_some()
    }

    /// Whether this service is served, and for streams.
    pub(crate) fn has_stream_service(&self, id: Uuid) -> bool {
        self.services.get(&id).is_some_and(|it| it.is_stream)
    }

    /// Whether this route is served; one of a service that is switched off is not.
    pub(crate) fn has_route(&self, id: Uuid) -> bool {
        self.router.slot(id).is_some()
    }

    /// The services with this `host`.
    pub(crate) fn services_at(&self, host: &str) -> impl Iterator<Item = Uuid> {
        let services = self.links.services.get(host).into_iter();
        services.flat_map(|ids| ids.iter().copied())
    }

    /// Whether something in it is in a vault, and may be another when it is read anew.
    pub(crate) fn has_references(&self) -> bool {
        self.has_references
    }

    /// The same, and those that come after it speak to upstreams like this.
    #[must_use]
    pub(crate) fn speaking_tls(mut self, defaults: TlsDefaults) -> Configuration {
        self.tls_defaults = Arc::new(defaults);
        self
    }

    /// The route of a request, and its match.
    pub(crate) fn find(&self, query: &Query<'_>) -> Option<(&ServedRoute, Match<'_>)> {
        let found = self.router.find(query)?;
        let route = self.routes.get(found.slot)?.as_ref();
        Some((route.expect("no list has a route that is gone"), found))
    }

    /// Where the requests of a route go, by the slot that its match had: the service's `host`.
    pub(crate) fn upstream(&self, slot: usize) -> Option<&str> {
        let route = self.routes.get(slot)?.as_ref()?;
        route.service.as_ref().map(|service| &*service.upstream)
    }

    /// The `host` of a service.
    pub(crate) fn upstream_of(&self, service: Uuid) -> Option<&str> {
        let service = self.services.get(&service)?;
        Some(&service.upstream)
    }

    /// Routes served.
    pub fn routes(&self) -> usize {
        self.router.len() // all that have a slot
    }

    /// What had to be done with the routes to get here from the configuration before.
    pub fn work(&self) -> Work {
        self.work
    }
}

fn handlers(
    resolved: &Resolved<'_>,
    closed: &[Closed],
    before: &Handlers,
    problems: &mut Vec<Unservable>,
) -> Handlers {
    Handlers::new(&resolved.plugins, closed, before).unwrap_or_else(|bad| {
        problems.extend(bad.into_iter().map(|(id, name, reason)| {
            Unservable::new(Kind::Plugin, id, Some(&name), resolved.hide(reason))
        }));
        Handlers::default()
    })
}

/// What the Status API shows.
const ALWAYS: [Kind; 2] = [Kind::Upstream, Kind::Target];
/// And what log plugins tell.
const LOGGED: [Kind; 5] = [
    Kind::Upstream,
    Kind::Target,
    Kind::Route,
    Kind::Service,
    Kind::Consumer,
];

fn entities(declared: &Declared, kinds: &[Kind]) -> Entities {
    Entities::new(&declared.value, kinds, unix_secs())
}
