//! The one TLS listener: the server name of the handshake decides who is served and how.

mod plain;
mod shown;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use sallyport_runtime::tls::explain;
use sallyport_wire::config_sync::SHARED_SERVER_NAME;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

pub(crate) use plain::{serve_plain, serve_tls};
pub(crate) use shown::Shown;

use crate::audit_log::{Peer, Recorder};
use crate::config_sync::{self, Dialled, Host, Links};
use crate::kic;
use crate::telemetry::{self, Telemetry};

/// Connections open at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
/// From the first byte to the end of the handshake.
const HANDSHAKE_SECS_MAX: u64 = 10;
/// For the head of an API request to arrive.
const HEAD_SECS_MAX: u64 = 30;
/// For open connections to finish when the control plane stops.
const GRACE: Duration = Duration::from_secs(5);

/// What is behind the listener.
pub(crate) struct Doors {
    /// For names that are not of data planes.
    pub(crate) api: Router,
    /// The handshake of the API.
    pub(crate) api_tls: Arc<ServerConfig>,
    /// The handshake of data planes, which demands a certificate.
    pub(crate) node_tls: Arc<ServerConfig>,
    /// For ingress controllers.
    pub(crate) kic: Router,
    /// The handshake of ingress controllers, which demands a certificate too.
    pub(crate) kic_tls: Arc<ServerConfig>,
    pub(crate) links: Links,
    pub(crate) telemetry: Telemetry,
    pub(crate) recorder: Recorder,
    pub(crate) base_domain: String,
    /// Geos whose data planes are served here.
    pub(crate) geos: Vec<String>,
    /// The handshake of Kong's shared mode, if there is a certificate for it.
    pub(crate) shared_tls: Option<Arc<ServerConfig>>,
}

/// Accepts until `stop`, then lets open connections finish.
pub(crate) async fn serve(listener: TcpListener, doors: Arc<Doors>, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = accept(&listener, &room) => {
                let Some((stream, peer, permit)) = accepted else { continue };
                let (doors, stop) = (Arc::clone(&doors), stop.clone());
                connections.spawn(async move {
                    welcome(&doors, stream, peer, stop).await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    finish(connections).await;
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            // Mostly "too many open files", which is as true a moment later.
            warn!(%error, "could not accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a connection ended with a panic");
    }
}

async fn finish(mut connections: JoinSet<()>) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if timeout(GRACE, all).await.is_err() {
        warn!(
            open = connections.len(),
            "grace period over, closing connections"
        );
        connections.shutdown().await;
    }
}

/// Whom a server name leads to.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
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
struct Arrival {
    tls: TlsStream<TcpStream>,
    /// The server name it asked for.
    name: Option<String>,
    destination: Destination,
}

/// One connection: handshake by server name, then whoever it leads to.
async fn welcome(doors: &Doors, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    let limit = Duration::from_secs(HANDSHAKE_SECS_MAX);
    let arrival = tokio::select! {
        () = stop.cancelled() => return,
        arrival = timeout(limit, handshake(doors, stream, peer)) => arrival,
    };
    let Arrival {
        tls,
        name,
        destination,
    } = match arrival {
        Ok(Some(arrival)) => arrival,
        Ok(None) => return,
        Err(_) => return debug!(%peer, "no TLS handshake in time"),
    };
    match destination {
        Destination::Api => serve_api(doors.api.clone(), tls, peer, stop).await,
        Destination::Ingress => {
            let chain = tls.get_ref().1.peer_certificates();
            let leaf = chain.and_then(|chain| chain.first());
            let leaf = leaf.map(|leaf| leaf.clone().into_owned());
            let api = match leaf {
                Some(leaf) => doors.kic.clone().layer(Extension(kic::Shown(leaf))),
                None => doors.kic.clone(),
            };
            serve_api(api, tls, peer, stop).await;
        }
        Destination::OtherGeo(other) => {
            let reason = format!("it dialled geo {other:?}, this is {:?}", doors.geos);
            warn!(%peer, server_name = name, reason, "data plane refused");
        }
        Destination::Node { .. } | Destination::Shared => {
            let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
            let (host, dialled) = match &destination {
                Destination::Node { host, prefix } => (*host, Dialled::Prefix(prefix)),
                _ => (Host::Configuration, Dialled::Shared),
            };
            let admitted = config_sync::admit(&doors.links.store, dialled, chain, peer.ip()).await;
            let told = match &admitted {
                Ok(guest) => Ok((guest.control_plane.id, guest.control_plane.name.as_str())),
                Err(reason) => Err(reason.to_string()),
            };
            let recorded = doors.recorder.data_plane(peer, name.as_deref(), told);
            recorded.await;
            match admitted {
                Ok(guest) => match host {
                    Host::Configuration => {
                        config_sync::serve(&doors.links, guest, tls, stop).await;
                    }
                    Host::Telemetry => {
                        let store = &doors.links.store;
                        telemetry::serve(&doors.telemetry, store, guest, tls, stop).await;
                    }
                },
                Err(reason) => {
                    warn!(%peer, server_name = name, %reason, "data plane refused");
                }
            }
        }
    }
}

/// The TLS handshake, with what the server name calls for; a failure is logged here.
async fn handshake(doors: &Doors, stream: TcpStream, peer: SocketAddr) -> Option<Arrival> {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "could not switch off Nagle's algorithm");
    }
    let hello = match LazyConfigAcceptor::new(Acceptor::default(), stream).await {
        Ok(hello) => hello,
        Err(error) => {
            debug!(%peer, %error, "no TLS handshake");
            return None;
        }
    };
    let name = hello.client_hello().server_name().map(str::to_owned);
    let destination = destination(&doors.base_domain, &doors.geos, name.as_deref());
    let config = match destination {
        Destination::Api => &doors.api_tls,
        Destination::Ingress => &doors.kic_tls,
        Destination::Node { .. } | Destination::OtherGeo(_) => &doors.node_tls,
        Destination::Shared => match &doors.shared_tls {
            Some(shared) => shared,
            None => {
                let reason = "it dialled in Kong's shared mode, for which --cluster-cert is needed";
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

/// Serves API requests on one connection, HTTP/1.1 or HTTP/2.
async fn serve_api<S>(api: Router, stream: S, peer: SocketAddr, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_SECS_MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256);
    let api = TowerToHyperService::new(api);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        api.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%error, "an API connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: Option<&str>, expected: Destination) {
        assert_eq!(
            destination("sallyport.test", &["eu".to_owned(), "in".to_owned()], name),
            expected,
            "{name:?}"
        );
    }

    #[test]
    fn a_server_name_leads_to_data_planes_or_to_the_api() {
        let node = |host| Destination::Node {
            host,
            prefix: "0123456789".to_owned(),
        };
        check(
            Some("0123456789.eu.cp0.sallyport.test"),
            node(Host::Configuration),
        );
        check(
            Some("0123456789.EU.cp.Sallyport.test"),
            node(Host::Configuration),
        );
        check(
            Some("0123456789.eu.tp0.sallyport.test"),
            node(Host::Telemetry),
        );
        check(
            Some("0123456789.us.cp0.sallyport.test"),
            Destination::OtherGeo("us".to_owned()),
        );
        check(
            Some("0123456789.in.cp0.sallyport.test"),
            node(Host::Configuration),
        );
        check(Some("kong_clustering"), Destination::Shared);
        check(Some("eu.kic.api.sallyport.test"), Destination::Ingress);
        check(
            Some("us.kic.api.sallyport.test"),
            Destination::OtherGeo("us".to_owned()),
        );
        check(Some("eu.api.sallyport.test"), Destination::Api);
        check(Some("0123456789.eu.cp0.other.test"), Destination::Api);
        check(Some("localhost"), Destination::Api);
        check(None, Destination::Api);
    }
}
