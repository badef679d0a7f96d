//! What happens before it is known who calls.
//!
//! Whoever reaches the port can make this much happen, so it is the same for everybody, however many
//! control planes, pins, entities and links there are: [`Handshakes`] has no way to the database, to
//! the audit log or to an API. A hello ends after 64 KiB (rustls), and the whole
//! after [`HANDSHAKE_SECS_MAX`] seconds; see [`super::room`] for how many there can be at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use sallyport_runtime::tls::explain;
use sallyport_wire::config_sync::SHARED_SERVER_NAME;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::config_sync::Host;

/// From the first byte to the end of the handshake.
pub(super) const HANDSHAKE_SECS_MAX: u64 = 10;

/// All that a handshake may use.
pub(crate) struct Handshakes {
    /// Of the API.
    pub(crate) api: Arc<ServerConfig>,
    /// Of data planes, which demands a certificate.
    pub(crate) node: Arc<ServerConfig>,
    /// Of ingress controllers, which demands a certificate too.
    pub(crate) kic: Arc<ServerConfig>,
    /// Of Kong's shared mode, if there is a certificate for it.
    pub(crate) shared: Option<Arc<ServerConfig>>,
    pub(crate) base_domain: String,
    /// Geos whose data planes are served here.
    pub(crate) geos: Vec<String>,
}

/// Whom a server name leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Api,
    Node {
        host: Host,
        prefix: String,
    },
    /// Kong's shared mode: the certificate alone says which control plane.
    Shared,
    Ingress,
    OtherGeo(String),
}

/// Reads a server name. Names that the contract gives to data planes lead to them, whatever the
/// control plane; every other name, or none, is the API.
fn destination(base_domain: &str, geos: &[String], name: Option<&str>) -> Destination {
    if name.is_some_and(|name| name.eq_ignore_ascii_case(SHARED_SERVER_NAME)) {
        return Destination::Shared;
    }
    let found = name.and_then(|name| sallyport_contract::catalogue().match_host(base_domain, name));
    let Some(found) = found else {
        return Destination::Api;
    };
    let host = match found.entry.id.as_str() {
        "config_sync" => Host::Configuration,
        "telemetry" => Host::Telemetry,
        "kic" => {
            return match found.geo {
                Some(other) if !geos.contains(&other) => Destination::OtherGeo(other),
                _ => Destination::Ingress,
            };
        }
        _ => return Destination::Api,
    };
    match (found.geo, found.prefix) {
        (Some(other), _) if !geos.contains(&other) => Destination::OtherGeo(other),
        (_, Some(prefix)) => Destination::Node { host, prefix },
        (_, None) => Destination::Api,
    }
}

/// A connection past its handshake.
pub(super) struct Arrival<S> {
    pub(super) tls: TlsStream<S>,
    /// The server name it asked for.
    pub(super) name: Option<String>,
    pub(super) destination: Destination,
}

impl Handshakes {
    /// The TLS handshake, with what the server name calls for; a failure is logged here.
    pub(super) async fn meet<S>(&self, stream: S, peer: SocketAddr) -> Option<Arrival<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = Duration::from_secs(HANDSHAKE_SECS_MAX);
        let met = timeout(limit, self.handshake(stream, peer)).await;
        met.unwrap_or_else(|_| {
            debug!(%peer, "no TLS handshake in time");
            None
        })
    }

    async fn handshake<S>(&self, stream: S, peer: SocketAddr) -> Option<Arrival<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = match LazyConfigAcceptor::new(Acceptor::default(), stream).await {
            Ok(hello) => hello,
            Err(error) => {
                debug!(%peer, %error, "no TLS handshake");
                return None;
            }
        };
        let name = hello.client_hello().server_name().map(str::to_owned);
        let destination = destination(&self.base_domain, &self.geos, name.as_deref());
        let config = match destination {
            Destination::Api => &self.api,
            Destination::Ingress => &self.kic,
            Destination::Node { .. } | Destination::OtherGeo(_) => &self.node,
            Destination::Shared => match &self.shared {
                Some(shared) => shared,
                None => {
                    let reason =
                        "it dialled in Kong's shared mode, for which --cluster-cert is needed";
                    warn!(%peer, reason, "data plane refused");
                    return None;
                }
            },
        };
        match hello.into_stream(Arc::clone(config)).await {
            Ok(tls) => Some(Arrival {
                tls,
                name,
                destination,
            }),
            Err(error) => {
                let reason = explain(&error, &peer.to_string());
                match destination {
                    Destination::Api => debug!(%peer, reason, "TLS handshake failed"),
                    _ => warn!(%peer, server_name = name, reason, "data plane refused"),
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
