//! The routes of what is not HTTP, as one configuration has them.

use std::sync::Arc;

use sallyport_model::RouterFlavor;
use sallyport_model::entities::{Protocol, Route};
use uuid::Uuid;

use crate::chain::Chain;
use crate::configuration::ServedService;
use crate::router::{StreamQuery, StreamRouter, is_stream};

/// The routes of streams, immutable.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    router: Arc<StreamRouter>,
    /// What the router was made of, and in which flavour.
    source: Arc<(RouterFlavor, Vec<Route>)>,
    /// In the order of `source`.
    routes: Vec<StreamRoute>,
}

/// What of a route matters once it matched.
#[derive(Debug)]
pub(crate) struct StreamRoute {
    pub(crate) id: Uuid,
    /// Whether TLS is passed through as it comes.
    pub(crate) passes_through: bool,
    pub(crate) service: Option<Arc<ServedService>>,
    pub(crate) chain: Arc<Chain>,
}

impl Streams {
    /// Those of the next configuration. The router is taken over if no route of streams changed.
    ///
    /// # Errors
    /// What cannot be used, with the index of its route.
    pub(crate) fn next(
        &self,
        flavor: RouterFlavor,
        all: &[Route],
        service: impl Fn(Uuid) -> Option<Arc<ServedService>>,
        chain: &mut dyn FnMut(Uuid, Option<Uuid>) -> Arc<Chain>,
    ) -> Result<Streams, Vec<(usize, String)>> {
        let is_ours = |route: &Route| route.protocols.iter().copied().any(is_stream);
        let ours = || all.iter().enumerate().filter(|(_, route)| is_ours(route));
        let same = self.source.0 == flavor && self.source.1.iter().eq(ours().map(|(_, it)| it));
        let (router, source) = match same {
            true => (self.router.clone(), self.source.clone()),
            false => {
                let own: Vec<Route> = ours().map(|(_, route)| route.clone()).collect();
                let router = StreamRouter::new(flavor, &own).map_err(|bad| {
                    let places: Vec<usize> = ours().map(|(index, _)| index).collect();
                    let named = |(at, error): (usize, crate::router::PatternError)| {
                        (places[at], error.to_string())
                    };
                    bad.into_iter().map(named).collect::<Vec<_>>()
                })?;
                (Arc::new(router), Arc::new((flavor, own)))
            }
        };
        let routes = source.1.iter().map(|route| {
            let service = route.service.and_then(|id| service(id.0));
            StreamRoute {
                id: route.id,
                passes_through: route.protocols.contains(&Protocol::TlsPassthrough),
                chain: chain(route.id, service.as_ref().map(|service| service.id)),
                service,
            }
        });
        let routes = routes.collect();
        Ok(Streams {
            router,
            source,
            routes,
        })
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn all(&self) -> &[StreamRoute] {
        &self.routes
    }

    /// What these were made of.
    pub(crate) fn source(&self) -> &[Route] {
        &self.source.1
    }

    /// The route of a connection.
    pub(crate) fn find(&self, query: &StreamQuery<'_>) -> Option<&StreamRoute> {
        self.router.find(query).map(|at| &self.routes[at])
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.routes.len()
    }
}
