//! The membership protocol's messages over mTLS: what `chitchat` sends as datagrams goes in frames
//! over connections between nodes that know each other by their keys.
//!
//! As with datagrams a message may be lost, when its connection breaks or the other node is slow;
//! the protocol repeats itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use rustls::ClientConfig;
use sallyport_runtime::dial;
use sallyport_runtime::tls::connect;
use sallyport_store::{Member, Wanted};
use sallyport_wire::node_control::{decode, encode, name_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream as Outgoing;
use tokio_rustls::server::TlsStream as Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::listener::Door;
use crate::node::State;

/// A message and the address of the node that sent it.
pub(crate) type Heard = (SocketAddr, ChitchatMessage);

/// Messages of all nodes that wait to be looked at; more are lost.
pub(crate) const HEARD_MAX: usize = 256;
/// Messages to one node that wait to be sent; more are lost.
const OUT_MAX: usize = 16;
/// For a connection, and for one message to be taken.
const SEND_TIME_MAX: Duration = Duration::from_secs(2);
/// Nodes gossip twice a second; a connection on which nothing comes is dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Between tries to reach a node.
const AGAIN: Duration = Duration::from_millis(250);

/// Reads what a node sends, until it stops belonging to the cluster.
pub(crate) async fn hear(door: &Door, member: Member, mut tls: Incoming<TcpStream>) {
    let mut bytes = Vec::new();
    loop {
        loop {
            let frame = match decode(&bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    return warn!(node = member.name, %error, "gossip connection closed");
                }
            };
            let address = match current(&door.state, &member) {
                Some(address) => address,
                None => {
                    return info!(
                        node = member.name,
                        "gossip connection of a removed node closed"
                    );
                }
            };
            match ChitchatMessage::deserialize(&mut &frame.body[..]) {
                Ok(message) => drop(door.heard.try_send((address, message))),
                Err(error) => {
                    return warn!(node = member.name, %error, "gossip connection closed");
                }
            }
            let len = frame.len;
            bytes.drain(..len);
        }
        match timeout(SILENCE_MAX, tls.read_buf(&mut bytes)).await {
            Ok(Ok(0)) => return,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return debug!(node = member.name, %error, "gossip connection ended"),
            Err(_) => return debug!(node = member.name, "silent gossip connection closed"),
        }
    }
}

/// Where the roster of this moment says that a node is, if it still belongs.
fn current(state: &State, member: &Member) -> Option<SocketAddr> {
    let roster = state.roster();
    let found = roster.members.iter().find(|it| it.id == member.id)?;
    (found.wanted != Wanted::Removed).then(|| found.address.parse().ok())?
}

/// The transport that `chitchat` is given.
pub(crate) struct Mesh {
    pub(crate) state: Arc<State>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) heard: Mutex<Option<mpsc::Receiver<Heard>>>,
    pub(crate) links: TaskTracker,
    pub(crate) stop: CancellationToken,
}

#[async_trait]
impl Transport for Mesh {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let heard = self
            .heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Ok(Box::new(Links {
            heard: heard.ok_or_else(|| anyhow::anyhow!("the transport is open already"))?,
            out: HashMap::new(),
            state: Arc::clone(&self.state),
            tls: Arc::clone(&self.tls),
            tasks: self.links.clone(),
            stop: self.stop.clone(),
        }))
    }
}

struct Links {
    heard: mpsc::Receiver<Heard>,
    out: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>,
    state: Arc<State>,
    tls: Arc<ClientConfig>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[async_trait]
impl Socket for Links {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let mut frame = Vec::new();
        if !encode(&message.serialize_to_vec(), &mut frame) {
            return Ok(()); // longer than the protocol allows itself
        }
        self.out.retain(|_, link| !link.is_closed());
        if !self.out.contains_key(&to) {
            if at(&self.state, to).is_none() {
                return Ok(()); // an old address, or a node that was removed
            }
            let (link, queue) = mpsc::channel(OUT_MAX);
            let (state, tls, stop) = (self.state.clone(), self.tls.clone(), self.stop.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = drive(state, tls, to, queue) => {}
                }
            });
            self.out.insert(to, link);
        }
        if let Some(link) = self.out.get(&to) {
            let _ = link.try_send(frame); // full: the node is slow or gone, and is asked again
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<Heard> {
        let heard = self.heard.recv().await;
        heard.ok_or_else(|| anyhow::anyhow!("the listener has ended"))
    }
}

/// The node at an address, if it belongs to the cluster.
fn at(state: &State, address: SocketAddr) -> Option<Member> {
    let text = address.to_string();
    let roster = state.roster();
    let mut members = roster.members.iter();
    members
        .find(|it| it.address == text && it.wanted != Wanted::Removed)
        .cloned()
}

/// Sends what is queued for one node, over a connection that is made when it is needed. Ends when
/// nothing comes any more, or no node is at the address.
async fn drive(
    state: Arc<State>,
    tls: Arc<ClientConfig>,
    to: SocketAddr,
    mut queue: mpsc::Receiver<Vec<u8>>,
) {
    let mut stream: Option<Outgoing<TcpStream>> = None;
    let mut told = String::new();
    loop {
        let frame = tokio::select! {
            frame = timeout(SILENCE_MAX, queue.recv()) => match frame {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(_) => return,
            },
            () = closed(&mut stream) => {
                stream = None;
                continue;
            }
        };
        let Some(member) = at(&state, to) else { return };
        let sent = async {
            if stream.is_none() {
                stream = Some(open(&tls, &member, to).await?);
            }
            match &mut stream {
                Some(stream) => {
                    stream
                        .write_all(&frame)
                        .await
                        .map_err(|it| it.to_string())?;
                    stream.flush().await.map_err(|it| it.to_string())
                }
                None => Ok(()),
            }
        };
        let sent = timeout(2 * SEND_TIME_MAX, sent).await;
        match sent.unwrap_or_else(|_| Err("it does not take what is sent".to_owned())) {
            Ok(()) if !told.is_empty() => {
                info!(node = member.name, "node reached again");
                told.clear();
            }
            Ok(()) => {}
            Err(error) => {
                stream = None;
                if told != error {
                    warn!(node = member.name, error, "node not reached");
                    told = error;
                }
                sleep(AGAIN).await;
            }
        }
    }
}

async fn open(
    tls: &Arc<ClientConfig>,
    member: &Member,
    to: SocketAddr,
) -> Result<Outgoing<TcpStream>, String> {
    let host = to.ip().to_string();
    let stream = dial("node_control", &host, to.port(), SEND_TIME_MAX).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let name = name_of(&member.id.to_string());
    let secured = timeout(SEND_TIME_MAX, connect(Arc::clone(tls), &name, stream)).await;
    match secured {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no TLS handshake in time".to_owned()),
    }
}

/// Waits until the other side closes a connection on which it never speaks.
async fn closed(stream: &mut Option<Outgoing<TcpStream>>) {
    match stream {
        Some(stream) => {
            let _ = stream.read_u8().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn hostile_messages_never_panic(mut bytes: Vec<u8>, framed: bool) {
            if framed {
                // the crate's magic number and version, so that more of it is reached
                bytes.splice(0..0, [0x53, 0xb0, 0]);
            }
            let _ = ChitchatMessage::deserialize(&mut &bytes[..]);
        }
    }
}
