//! The one TLS listener: the server name of the handshake decides who is served and how.

mod handshake;
mod plain;
mod room;
mod shown;

use std::future::Future;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

pub(crate) use handshake::Handshakes;
use handshake::{Arrival, Destination};
pub(crate) use plain::{serve_plain, serve_tls};
use room::{Place, Room};
pub(crate) use shown::Shown;

use crate::audit_log::{Peer, Recorder};
use crate::config_sync::{self, Dialled, Host, Links};
use crate::kic;
use crate::telemetry::{self, Telemetry};

/// Connections open at once. One more takes the place of the oldest unfinished handshake, or waits.
const CONNECTIONS_MAX: usize = 20_000;
/// For the head of an API request to arrive.
const HEAD_SECS_MAX: u64 = 30;
/// For open connections to finish when the control plane stops.
const GRACE: Duration = Duration::from_secs(5);

/// What is behind the listener.
pub(crate) struct Doors {
    /// All that is used before it is known who calls.
    pub(crate) handshakes: Handshakes,
    /// For names that are not of data planes.
    pub(crate) api: Router,
    /// For ingress controllers.
    pub(crate) kic: Router,
    pub(crate) links: Links,
    pub(crate) telemetry: Telemetry,
    pub(crate) recorder: Recorder,
}

/// Accepts until `stop`, then lets open connections finish.
pub(crate) async fn serve(listener: TcpListener, doors: Arc<Doors>, stop: CancellationToken) {
    let told = stop.clone();
    let welcome = |stream, peer, place| {
        let (doors, stop) = (Arc::clone(&doors), stop.clone());
        async move { welcome(&doors, stream, peer, &place, stop).await }
    };
    accept_all(listener, told, welcome).await;
}

/// Accepts until `stop`, each connection in a task of its own, then lets open ones finish.
async fn accept_all<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    stop: CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr, Place) -> F,
) {
    let room = Room::new(CONNECTIONS_MAX);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let place = tokio::select! {
                        () = stop.cancelled() => break,
                        place = room.enter() => place,
                    };
                    connections.spawn(serve(stream, peer, place));
                }
                Err(error) => {
                    // Mostly "too many open files", which is as true a moment later.
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    finish(connections).await;
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

/// One connection: handshake by server name, then whoever it leads to.
async fn welcome(
    doors: &Doors,
    stream: TcpStream,
    peer: SocketAddr,
    place: &Place,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "could not switch off Nagle's algorithm");
    }
    let handshake = place.unless_pushed_out(doors.handshakes.meet(stream, peer));
    let arrival = tokio::select! {
        () = stop.cancelled() => return,
        arrival = handshake => arrival,
    };
    let Arrival {
        tls,
        name,
        destination,
    } = match arrival {
        Some(Some(arrival)) => arrival,
        Some(None) => return,
        None => return debug!(%peer, "its handshake was not over when its place was needed"),
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
            let reason = format!(
                "it dialled geo {other:?}, this is {:?}",
                doors.handshakes.geos
            );
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
