//! The API without TLS, for the same machine only, when it is asked for.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

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
