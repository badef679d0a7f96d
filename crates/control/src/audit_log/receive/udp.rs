//! Datagrams: one message each. What does not arrive shows in the sequence numbers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport_wire::audit_log::{Event, Sequences, Step, What};
use tokio::net::UdpSocket;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::log::own;
use super::{Receiver, reason};

/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Datagrams that are recorded together.
const BATCH_MAX: usize = 256;
/// Senders whose sequence is followed.
const SENDERS_MAX: usize = 4_096;

type Sender = (SocketAddr, Option<String>);

pub(super) async fn serve(receiver: Arc<Receiver>, socket: UdpSocket, stop: CancellationToken) {
    let mut sequences: Sequences<Sender> = Sequences::new(SENDERS_MAX);
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => break,
            first = socket.recv_from(&mut buffer) => first,
        };
        let mut events = Vec::new();
        let mut received = first;
        // counted with those that are refused, so that they do not keep this task busy for ever
        let mut taken = 0;
        loop {
            match received {
                Ok((length, peer)) => {
                    take(
                        &receiver,
                        &mut sequences,
                        &buffer[..length],
                        peer,
                        &mut events,
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    warn!(%error, "could not receive a datagram");
                    sleep(Duration::from_millis(100)).await;
                    break;
                }
            }
            taken += 1;
            if taken >= BATCH_MAX {
                break;
            }
            received = socket.try_recv_from(&mut buffer);
        }
        if events.is_empty() {
            continue;
        }
        let count = events.len();
        if let Err(error) = receiver.append(events).await {
            warn!(count, %error, "datagrams were not recorded");
            receiver.refuse(
                std::net::IpAddr::from([0; 4]),
                "datagrams that could not be recorded",
            );
        }
    }
}

fn take(
    receiver: &Receiver,
    sequences: &mut Sequences<Sender>,
    bytes: &[u8],
    peer: SocketAddr,
    events: &mut Vec<Event>,
) {
    let address = peer.ip();
    // an empty datagram is how somebody asks whether the port is open
    if bytes.is_empty() {
        return;
    }
    if !receiver.settings.allows(address) {
        return receiver.refuse(
            address,
            "a datagram from an address that receive.allow lacks",
        );
    }
    if bytes.len() > receiver.settings.message_bytes_max {
        return receiver.refuse(address, "a datagram longer than receive.message_bytes_max");
    }
    if !receiver.buckets.take(address, Instant::now()) {
        return receiver.refuse(address, "datagrams beyond receive.records_per_second_max");
    }
    let event = match receiver.read(bytes, peer, "udp", None) {
        Ok(event) => event,
        Err(error) => return receiver.refuse(address, reason(error)),
    };
    if let What::Received(received) = &event.what
        && let Some(number) = received.message.sequence()
    {
        let sender = (peer, received.message.hostname.clone());
        if let Step::Gap { from, to } = sequences.step(&sender, number) {
            let (host, count) = (sender.1.unwrap_or_default(), to - from + 1);
            let detail = format!(
                "{count} datagrams of {host:?} ({peer}) are missing: sequenceId {from} to {to}"
            );
            events.push(Event {
                src: Some(address),
                ..own("Log.Gap", 6, detail)
            });
        }
    }
    events.push(event);
}
