//! Streams: TLS if the first byte begins a handshake, plain otherwise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use sallyport_runtime::tls::Leaf;
use sallyport_wire::audit_log::{Framer, FramingError};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::bound::Doors;
use super::{Receiver, reason};

/// For the first byte and the handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// For a message that has begun to end.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(60);
/// Between messages.
const IDLE_TIME_MAX: Duration = Duration::from_secs(3600);
/// The longest wait of a sender that is too fast, before its next bytes are read.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

pub(super) async fn serve(
    receiver: Arc<Receiver>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(receiver.settings.connections_max));
    let doors = Arc::new(Doors::default());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => {
                let (stream, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        warn!(%error, "could not accept a connection");
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let address = peer.ip();
                let may_have_certificate = receiver.settings.client_ca.is_some();
                if !may_have_certificate && !receiver.settings.allows(address) {
                    receiver.refuse(address, "a connection from an address that receive.allow lacks");
                    continue;
                }
                let max = receiver.settings.connections_per_address_max;
                let Some(inside) = doors.enter(address, max) else {
                    receiver.refuse(address, "a connection beyond receive.connections_per_address_max");
                    continue;
                };
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                    receiver.refuse(address, "a connection beyond receive.connections_max");
                    continue;
                };
                let (receiver, tls) = (Arc::clone(&receiver), Arc::clone(&tls));
                let stop = stop.clone();
                connections.spawn(async move {
                    tokio::select! {
                        // what was read is recorded; what was not stays with the sender
                        () = stop.cancelled() => {}
                        () = welcome(&receiver, stream, peer, tls) => {}
                    }
                    drop((inside, permit));
                });
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a connection of the audit log ended with a panic");
    }
}

async fn welcome(receiver: &Receiver, stream: TcpStream, peer: SocketAddr, tls: Arc<ServerConfig>) {
    let address = peer.ip();
    let mut first = [0];
    match timeout(
        HANDSHAKE_TIME_MAX.max(IDLE_TIME_MAX),
        stream.peek(&mut first),
    )
    .await
    {
        Ok(Ok(1)) => {}
        _ => return,
    }
    if first[0] != HANDSHAKE {
        if receiver.settings.client_ca.is_some() {
            receiver.refuse(
                address,
                "a connection without the certificate that receive.client_ca asks for",
            );
            return;
        }
        return messages(receiver, stream, peer, "tcp", None).await;
    }
    let handshake = TlsAcceptor::from(tls).accept(stream);
    let stream = match timeout(HANDSHAKE_TIME_MAX, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%peer, %error, "no TLS handshake on the audit log's port");
            receiver.refuse(address, "a TLS handshake that failed");
            return;
        }
        Err(_) => return receiver.refuse(address, "a TLS handshake that took too long"),
    };
    let leaf = stream.get_ref().1.peer_certificates();
    let leaf = leaf.and_then(|chain| Leaf::parse(chain.first()?).ok());
    let certificate = leaf.map(|leaf| {
        let name = leaf.common_name.or_else(|| leaf.names.first().cloned());
        format!("{} sha256:{}", name.unwrap_or_default(), leaf.digest)
    });
    messages(receiver, stream, peer, "tls", certificate).await;
}

/// Records messages until the sender is done or does wrong.
async fn messages(
    receiver: &Receiver,
    mut stream: impl AsyncRead + Unpin,
    peer: SocketAddr,
    transport: &'static str,
    certificate: Option<String>,
) {
    let address = peer.ip();
    let mut framer = Framer::new(receiver.settings.message_bytes_max);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let limit = match framer.is_inside() {
            true => MESSAGE_TIME_MAX,
            false => IDLE_TIME_MAX,
        };
        let length = match timeout(limit, stream.read(&mut buffer)).await {
            Err(_) if framer.is_inside() => {
                return receiver.refuse(address, "a message that did not end in time");
            }
            Err(_) => return,
            Ok(read) => read.unwrap_or(0),
        };
        framer.push(&buffer[..length]);
        let (mut whole, mut fault) = (Vec::new(), None);
        loop {
            match framer.next_message() {
                Ok(Some(message)) => whole.push(message),
                Ok(None) => break,
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        if length == 0 {
            whole.extend(framer.finish().filter(|rest| !rest.is_empty()));
        }
        let count = whole.len();
        let mut events = Vec::new();
        for message in whole {
            match receiver.read(&message, peer, transport, certificate.as_deref()) {
                Ok(event) => events.push(event),
                Err(error) => receiver.refuse(address, reason(error)),
            }
        }
        if !events.is_empty()
            && let Err(error) = receiver.append(events).await
        {
            warn!(%peer, %error, "records of a sender were not taken; its connection is closed");
            return;
        }
        match fault {
            Some(FramingError::TooLong { .. }) => {
                return receiver.refuse(address, "a message longer than receive.message_bytes_max");
            }
            Some(FramingError::Length) => {
                return receiver
                    .refuse(address, "a stream that is not framed as RFC 6587 wants it");
            }
            None => {}
        }
        if length == 0 {
            return;
        }
        let wait = receiver.buckets.owe(address, count, Instant::now());
        if !wait.is_zero() {
            sleep(wait.min(WAIT_MAX)).await;
        }
    }
}
