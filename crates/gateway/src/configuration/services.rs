//! Services made ready to serve.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use http::uri::Scheme;
use sallyport_model::Kind;
use sallyport_model::entities::{ConfigTable, Protocol, Service};
use tracing::warn;
use uuid::Uuid;

use super::Unservable;
use crate::balancer::{Balancer, Balancers, Peers};
use crate::certificates::{self, UpstreamTls, UpstreamTlsMaker, Wanted};
use crate::router::is_stream;

/// What of a service matters for a request.
#[derive(Debug)]
pub(crate) struct ServedService {
    pub(crate) id: Uuid,
    /// `host`: an upstream's name, or that of a machine.
    pub(crate) upstream: Box<str>,
    pub(crate) scheme: Scheme,
    /// Whether it is spoken to in HTTP/2.
    pub(crate) http2: bool,
    pub(crate) path: Box<str>,
    /// Further tries after the first.
    pub(crate) retries: u16,
    pub(crate) connect_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) read_timeout: Duration,
    /// How the upstream is spoken to over TLS, if it is.
    pub(crate) tls: Option<Arc<UpstreamTls>>,
    /// Whether it is for streams, not for requests.
    pub(crate) is_stream: bool,
    pub(crate) peers: Peers,
}

impl ServedService {
    /// The same with other targets behind it.
    pub(super) fn with(&self, balancer: &Arc<Balancer>) -> ServedService {
        ServedService {
            id: self.id,
            upstream: self.upstream.clone(),
            scheme: self.scheme.clone(),
            http2: self.http2,
            path: self.path.clone(),
            retries: self.retries,
            connect_timeout: self.connect_timeout,
            write_timeout: self.write_timeout,
            read_timeout: self.read_timeout,
            tls: self.tls.clone(),
            is_stream: self.is_stream,
            peers: Peers::Many(balancer.clone()),
        }
    }
}

/// Every service, with its peers.
pub(super) fn services(
    table: &ConfigTable,
    upstreams: &HashMap<&str, Arc<Balancer>>,
    balancers: &Balancers,
    (loaded, maker): (&certificates::Identities, &mut UpstreamTlsMaker<'_>),
    problems: &mut Vec<Unservable>,
) -> HashMap<Uuid, Arc<ServedService>> {
    let mut served = HashMap::new();
    for service in &table.services {
        let upstream = upstreams.get(service.host.as_str());
        let tls = service_tls(table, loaded, (service, upstream), maker);
        match served_service(service, upstream, balancers, tls) {
            Ok(made) => _ = served.insert(service.id, Arc::new(made)),
            Err(unservable) => problems.push(unservable),
        }
    }
    served
}

pub(super) fn served_service(
    service: &Service,
    upstream: Option<&Arc<Balancer>>,
    balancers: &Balancers,
    tls: Result<Option<Arc<UpstreamTls>>, String>,
) -> Result<ServedService, Unservable> {
    let made = scheme(service).and_then(|(scheme, http2)| {
        Ok(ServedService {
            id: service.id,
            upstream: service.host.as_str().into(),
            scheme,
            http2,
            path: service.path.as_deref().unwrap_or("/").into(),
            retries: service.retries,
            connect_timeout: Duration::from_millis(service.connect_timeout.into()),
            write_timeout: Duration::from_millis(service.write_timeout.into()),
            read_timeout: Duration::from_millis(service.read_timeout.into()),
            tls: tls?,
            is_stream: is_stream(service.protocol),
            peers: Peers::new(service, upstream, balancers)?,
        })
    });
    made.map_err(|reason| {
        Unservable::new(Kind::Service, service.id, service.name.as_deref(), reason)
    })
}

/// Plain or TLS, and whether HTTP/2 is spoken over it.
fn scheme(service: &Service) -> Result<(Scheme, bool), String> {
    match service.protocol {
        Protocol::Http => Ok((Scheme::HTTP, false)),
        Protocol::Https => Ok((Scheme::HTTPS, false)),
        Protocol::Grpc => Ok((Scheme::HTTP, true)),
        Protocol::Grpcs => Ok((Scheme::HTTPS, true)),
        // no request gets there
        Protocol::Tcp | Protocol::Tls | Protocol::TlsPassthrough | Protocol::Udp => {
            Ok((Scheme::HTTP, false))
        }
        other => Err(format!("protocol {other:?} is not supported by this build")),
    }
}

/// TLS towards a service, if it wants that. Its own certificate comes before that of its upstream.
fn service_tls(
    table: &ConfigTable,
    loaded: &certificates::Identities,
    (service, upstream): (&Service, Option<&Arc<Balancer>>),
    maker: &mut UpstreamTlsMaker<'_>,
) -> Result<Option<Arc<UpstreamTls>>, String> {
    let known: AHashMap<Uuid, &str> = match service.ca_certificates.is_empty() {
        true => AHashMap::new(),
        false => table
            .ca_certificates
            .iter()
            .map(|it| (it.id, it.cert.as_str()))
            .collect(),
    };
    for id in &service.ca_certificates {
        if service.protocol.is_tls() && !known.contains_key(id) {
            warn!(service = %service.id, ca_certificate = %id, "the CA certificate of a service is not there, so nobody is believed because of it");
        }
    }
    tls_of(loaded, (service, upstream), &known, maker)
}

pub(super) fn tls_of(
    loaded: &certificates::Identities,
    (service, upstream): (&Service, Option<&Arc<Balancer>>),
    known: &AHashMap<Uuid, &str>,
    maker: &mut UpstreamTlsMaker<'_>,
) -> Result<Option<Arc<UpstreamTls>>, String> {
    if !service.protocol.is_tls() {
        return Ok(None);
    }
    let of_upstream = || upstream?.source().0.client_certificate;
    let shown = service.client_certificate.or_else(of_upstream);
    let wanted = Wanted {
        verify: service.tls_verify,
        depth: service.tls_verify_depth,
        authorities: service.ca_certificates.clone(),
    };
    let shown = shown.and_then(|id| Some(&loaded.get(&id.0)?.first));
    maker.of(&wanted, shown, known).map(Some)
}
