//! The API without TLS, for the same machine only, when it is asked for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// As [`serve_plain`], with TLS.
pub(crate) async fn serve_tls(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    api: Router,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(super::CONNECTIONS_MAX));
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => super::report(ended),
            accepted = super::accept(&listener, &room) => {
                let Some((stream, peer, permit)) = accepted else { continue };
                let (acceptor, api, stop) = (acceptor.clone(), api.clone(), stop.clone());
                connections.spawn(async move {
                    let limit = Duration::from_secs(super::HANDSHAKE_SECS_MAX);
                    match timeout(limit, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => super::serve_api(api, stream, peer, stop).await,
                        Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => debug!(%peer, "no TLS handshake in time"),
                    }
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    super::finish(connections).await;
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
