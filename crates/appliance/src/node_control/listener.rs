//! The one listener between nodes: mTLS, and ALPN chooses what is spoken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use rustls::server::Acceptor;
use sallyport_runtime::tls::explain;
use sallyport_store::Member;
use sallyport_wire::node_control::{COMMANDS, GOSSIP, JOIN};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::gossip::{Heard, hear};
use super::tls::{Stranger, recognise};
use super::{Refusals, Tls, commands, converse, join};
use crate::node::{Fatal, Plane, State};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// From the first byte to the end of the handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// For a machine to join.
const JOIN_TIME_MAX: Duration = Duration::from_secs(20);
/// For a command; draining takes a while.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(120);

/// What is behind the listener.
pub(crate) struct Door {
    pub(crate) state: Arc<State>,
    pub(crate) tls: Tls,
    /// Messages of the membership protocol go here.
    pub(crate) heard: mpsc::Sender<Heard>,
    /// Commands of other nodes.
    commands: Router,
    joining: Router,
    refused: Refusals,
}

impl Door {
    pub(crate) fn new(
        state: &Arc<State>,
        plane: Arc<dyn Plane>,
        tls: Tls,
        heard: mpsc::Sender<Heard>,
    ) -> Door {
        Door {
            state: Arc::clone(state),
            tls,
            heard,
            commands: commands::router(Arc::clone(state), plane),
            joining: join::router(Arc::clone(state)),
            refused: Refusals::default(),
        }
    }

    fn refuse(&self, peer: SocketAddr, why: &str) {
        self.refused.note(&peer.ip().to_string(), why);
    }
}

/// Accepts until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    door: Arc<Door>,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => if let Err(error) = ended && error.is_panic() {
                error!(%error, "a connection between nodes ended with a panic");
            },
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(welcome(Arc::clone(&door), stream, peer));
                }
                Err(error) => {
                    warn!(%error, "could not accept a connection between nodes");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    connections.shutdown().await;
    Ok(())
}

async fn welcome(door: Arc<Door>, stream: TcpStream, peer: SocketAddr) {
    let Ok(arrived) = timeout(HANDSHAKE_TIME_MAX, handshake(&door, stream, peer)).await else {
        return debug!(%peer, "no TLS handshake in time");
    };
    let Some((tls, joining)) = arrived else {
        return;
    };
    let (alpn, known) = {
        let connection = tls.get_ref().1;
        let chain = connection.peer_certificates();
        let leaf = chain.and_then(|chain| chain.first());
        (
            connection.alpn_protocol().map(<[u8]>::to_vec),
            recognise(&door.state.roster(), leaf),
        )
    };
    if joining {
        return converse(tls, door.joining.clone(), JOIN_TIME_MAX).await;
    }
    match (known, alpn.as_deref()) {
        (Ok(member), Some(GOSSIP)) => hear(&door, member, tls).await,
        (Ok(member), Some(COMMANDS)) => {
            let router = door.commands.clone().layer(Extension(Peer(member)));
            converse(tls, router, COMMAND_TIME_MAX).await;
        }
        // The doctor shakes hands and says no more.
        (Ok(member), _) => debug!(node = member.name, "no protocol named (ALPN)"),
        (Err(stranger @ (Stranger::Removed(_) | Stranger::Unknown)), _) => {
            door.refuse(peer, &stranger.to_string());
        }
    }
}

/// The node that sent a command.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) Member);

/// The TLS handshake, and whether the machine wants to join.
async fn handshake(
    door: &Door,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<TcpStream>, bool)> {
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
    let offered = hello.client_hello().alpn();
    let joining = offered.is_some_and(|mut offered| offered.any(|it| it == JOIN));
    let config = match joining {
        true => &door.tls.joining,
        false => &door.tls.nodes,
    };
    match hello.into_stream(Arc::clone(config)).await {
        Ok(tls) => Some((tls, joining)),
        Err(error) => {
            door.refuse(peer, &explain(&error, &peer.ip().to_string()));
            None
        }
    }
}
