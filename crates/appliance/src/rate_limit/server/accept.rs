//! Connections, from the first byte to the last.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span, warn};

use super::connection::{Asking, Ended, serve};
use super::first_bytes::{First, Replay, first_bytes};
use super::tls::Accepted;
use super::{STALL_MAX, Shared};

/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// After so long without a word the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Accepts until `stop`, then waits for the connections to end, which see it too.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut full = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Ok(permit) = shared.connections.clone().try_acquire_owned() else {
                        if !full {
                            warn!(open = connections.len(), "too many connections, closing new ones");
                        }
                        full = true;
                        continue;
                    };
                    full = false;
                    let (shared, stop) = (shared.clone(), stop.clone());
                    let span = info_span!("rate_limit", %peer);
                    let connection = async move {
                        let _permit = permit;
                        connection(stream, peer, &shared, &stop).await;
                    };
                    connections.spawn(connection.instrument(span));
                }
                // out of file descriptors, most likely: wait for some to come back
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(ended) = connections.join_next() => report(ended),
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        warn!(%error, "a connection's task panicked");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Shared,
    stop: &CancellationToken,
) {
    match serve_any(stream, peer, shared, stop).await {
        Ok(()) | Err(Ended::Closed) => debug!("connection closed"),
        Err(Ended::Lost(error)) => debug!(%error, "connection lost"),
        Err(Ended::Bad(reason)) => debug!(%reason, "connection closed: bad message"),
        Err(Ended::Slow) => debug!("connection closed: too slow"),
    }
}

async fn serve_any(
    mut stream: TcpStream,
    peer: SocketAddr,
    shared: &Shared,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    // Clients write the length and the body separately: without this each answer would wait for
    // a delayed acknowledgement.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let mut head = Vec::new();
    let first = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        first = first_bytes(&mut stream, &mut head, STALL_MAX) => first?,
    };
    let tls = match first {
        First::Nothing => return Err(Ended::Closed),
        First::Plain => {
            if shared.tls.is_required() {
                return Err(Ended::Bad("TLS is required".to_owned()));
            }
            return serve(stream, head, Asking::Client, shared, stop).await;
        }
        First::Tls => Replay::new(head, stream),
    };
    let peer = peer.ip().to_string();
    let accepted = timeout(HANDSHAKE_MAX, shared.tls.accept(tls, &peer)).await;
    let Accepted {
        stream,
        asking,
        certificate,
    } = match accepted {
        Err(_) => return Err(Ended::Slow),
        Ok(Err(error)) => return Err(Ended::Bad(error)),
        Ok(Ok(accepted)) => accepted,
    };
    tokio::select! {
        ended = serve(stream, Vec::new(), asking, shared, stop) => ended,
        why = shared.tls.cast_out(certificate) => Err(Ended::Bad(why)),
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Lost(error)
    }
}
