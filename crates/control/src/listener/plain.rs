//! The API without TLS, for the same machine only, when it is asked for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::handshake::HANDSHAKE_SECS_MAX;
use super::room::Place;

/// As [`serve_plain`], with TLS.
pub(crate) async fn serve_tls(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    api: Router,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let told = stop.clone();
    let serve = |stream, peer, place: Place| {
        let (acceptor, api, stop) = (acceptor.clone(), api.clone(), stop.clone());
        async move {
            let limit = Duration::from_secs(HANDSHAKE_SECS_MAX);
            let handshake = timeout(limit, acceptor.accept(stream));
            match place.unless_pushed_out(handshake).await {
                Some(Ok(Ok(stream))) => super::serve_api(api, stream, peer, stop).await,
                Some(Ok(Err(error))) => debug!(%peer, %error, "TLS handshake failed"),
                Some(Err(_)) | None => debug!(%peer, "no TLS handshake in time"),
            }
        }
    };
    super::accept_all(listener, told, serve).await;
}

/// Accepts until `stop`, then lets open connections finish.
pub(crate) async fn serve_plain(listener: TcpListener, api: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => super::report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(super::serve_api(api.clone(), stream, peer, stop.clone()));
                }
                Err(error) => {
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    super::finish(connections).await;
}
