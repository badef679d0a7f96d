//! Routes made ready to serve.

use std::sync::Arc;

use sallyport_model::RouterFlavor;
use sallyport_model::entities::{self, PathHandling, Protocol};
use sallyport_plugins::ids::Ids;
use tracing::warn;
use uuid::Uuid;

use super::ServedService;
use crate::chain::Chain;
use crate::router::is_stream;

/// What of a route matters once it matched.
#[derive(Clone, Debug)]
pub(crate) struct ServedRoute {
    pub(crate) id: Uuid,
    pub(crate) strip_path: bool,
    pub(crate) preserve_host: bool,
    pub(crate) path_handling: PathHandling,
    /// Status for plain HTTP, if only TLS is served.
    pub(crate) tls_only: Option<u16>,
    /// If it takes gRPC calls, and nothing else.
    pub(crate) grpc: Option<GrpcOnly>,
    /// Whether a request body is awaited before an upstream is asked, as far as that is bounded.
    pub(crate) request_buffering: bool,
    /// Whether it takes streams.
    pub(super) streams: bool,
    pub(crate) service: Option<Arc<ServedService>>,
    pub(crate) chain: Arc<Chain>,
}

/// What a route for gRPC calls takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrpcOnly {
    /// Whether plain connections are refused.
    pub(crate) tls_only: bool,
}

pub(super) fn served_route(
    flavor: RouterFlavor,
    route: &entities::Route,
    service: Option<Arc<ServedService>>,
    chain: Arc<Chain>,
) -> ServedRoute {
    let takes = |protocol| route.protocols.contains(&protocol);
    let tls_only = takes(Protocol::Https) && !takes(Protocol::Http);
    let grpc = (takes(Protocol::Grpc) || takes(Protocol::Grpcs)).then(|| GrpcOnly {
        tls_only: !takes(Protocol::Grpc),
    });
    ServedRoute {
        id: route.id,
        strip_path: route.strip_path,
        preserve_host: route.preserve_host,
        path_handling: match flavor {
            RouterFlavor::Traditional => route.path_handling,
            RouterFlavor::TraditionalCompatible | RouterFlavor::Expressions => PathHandling::V0,
        },
        tls_only: tls_only.then_some(route.https_redirect_status_code),
        grpc,
        request_buffering: route.request_buffering,
        streams: route.protocols.iter().copied().any(is_stream),
        chain,
        service,
    }
}

/// Whether a route and its service are both for streams, or both for requests.
pub(super) fn fits(route: &entities::Route, service: &ServedService, streams: bool) -> bool {
    if service.is_stream != streams {
        warn!(route = %route.id, service = %service.id, "the protocols of a route and of its service do not fit; the route has no service");
    }
    service.is_stream == streams
}

/// The route in this slot is no longer one of its service's.
pub(super) fn leave(
    routes_of: &mut Ids<Arc<Vec<u32>>>,
    route: Option<&Option<ServedRoute>>,
    slot: usize,
) {
    let service = route.and_then(|route| route.as_ref()?.service.as_ref());
    let Some(id) = service.map(|service| service.id) else {
        return;
    };
    if let Some(mut slots) = routes_of.remove(&id) {
        Arc::make_mut(&mut slots).retain(|other| *other as usize != slot);
        routes_of.insert(id, slots);
    }
}
