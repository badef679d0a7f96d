//! Sessions over UDP: what one client address sends to a listener goes to one peer, until it has
//! been silent for long.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use sallyport_runtime::datagrams::connect_datagrams;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::super::worker::Worker;
use super::session::{Ends, Reached, Refused, Session, Tries};
use crate::balancer::Report;

/// Largest datagram, bytes.
const DATAGRAM_BYTES_MAX: usize = 65_535;

thread_local! {
    /// Room for one answer. A session that waits needs none.
    static ANSWER: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM_BYTES_MAX]);
}

/// Sessions of one listener on one worker; clients beyond them are not served until others end.
const SESSIONS_MAX: usize = 8192;
/// Datagrams of one session that wait to be passed on; more are dropped, as a network would.
const QUEUED_MAX: usize = 64;

/// Serves a listener until `stop`, then lets sessions go on within `grace`.
pub(in crate::proxy) async fn run(
    worker: Rc<Worker>,
    socket: std::net::UdpSocket,
    destination: SocketAddr,
    stop: CancellationToken,
    grace: std::time::Duration,
) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Rc::new(socket),
        Err(error) => return warn!(%error, address = %destination, "listener lost"),
    };
    let mut sessions = Sessions {
        worker,
        socket,
        destination,
        queues: HashMap::new(),
        addresses: HashMap::new(),
        tasks: JoinSet::new(),
        told_full: None,
    };
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut ends_at = None;
    loop {
        let ended = async {
            match ends_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => stop.cancelled().await,
            }
        };
        tokio::select! {
            () = ended => match ends_at {
                None => ends_at = Some(Instant::now() + grace),
                Some(_) => break,
            },
            received = sessions.socket.recv_from(&mut buffer) => match received {
                Ok((length, client)) => sessions.take(client, &buffer[..length], ends_at.is_none()),
                // an answer could not be delivered: the client has gone
                Err(error) => debug!(%error, address = %destination, "receive failed"),
            },
            Some(ended) = sessions.tasks.join_next_with_id() => sessions.ended(ended),
        }
        if ends_at.is_some() && sessions.tasks.is_empty() {
            break;
        }
    }
    sessions.tasks.shutdown().await;
}

struct Sessions {
    worker: Rc<Worker>,
    socket: Rc<UdpSocket>,
    destination: SocketAddr,
    queues: HashMap<SocketAddr, mpsc::Sender<Bytes>>,
    addresses: HashMap<Id, SocketAddr>,
    tasks: JoinSet<()>,
    /// When it was last said that there are too many sessions.
    told_full: Option<Instant>,
}

impl Sessions {
    /// Gives a datagram to the session of its client; starts one if newcomers are `welcome`.
    fn take(&mut self, client: SocketAddr, datagram: &[u8], welcome: bool) {
        let datagram = Bytes::copy_from_slice(datagram);
        let datagram = match self.queues.get(&client) {
            None => datagram,
            Some(queue) => match queue.try_send(datagram) {
                // dropped, as a network would
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => return,
                // its session is just ending
                Err(mpsc::error::TrySendError::Closed(datagram)) => datagram,
            },
        };
        if !welcome {
            return;
        }
        if self.tasks.len() >= SESSIONS_MAX {
            let now = Instant::now();
            let pause = std::time::Duration::from_secs(10);
            if self.told_full.is_none_or(|told| now - told > pause) {
                self.told_full = Some(now);
                let address = self.destination;
                warn!(%address, most = SESSIONS_MAX, "too many UDP sessions: newcomers are dropped");
            }
            return;
        }
        let (sender, queue) = mpsc::channel(QUEUED_MAX);
        // there is room for one in a new queue
        _ = sender.try_send(datagram);
        let ends = Ends {
            source: client,
            destination: self.destination,
        };
        let (worker, socket) = (self.worker.clone(), self.socket.clone());
        let task = self.tasks.spawn_local(session(worker, socket, ends, queue));
        self.queues.insert(client, sender);
        self.addresses.insert(task.id(), client);
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        if let Some(client) = self.addresses.remove(&id)
            && self
                .queues
                .get(&client)
                .is_some_and(mpsc::Sender::is_closed)
        {
            self.queues.remove(&client);
        }
        if let Err(error) = ended
            && error.is_panic()
        {
            warn!(%error, "the task of a UDP session panicked");
        }
    }
}

async fn session(
    worker: Rc<Worker>,
    socket: Rc<UdpSocket>,
    ends: Ends,
    queue: mpsc::Receiver<Bytes>,
) {
    let mut session = Session::new(&worker, ends, true);
    if let Err(refused) = serve(&mut session, &socket, queue).await {
        session.refused(&refused);
    }
}

async fn serve(
    session: &mut Session,
    socket: &UdpSocket,
    mut queue: mpsc::Receiver<Bytes>,
) -> Result<(), Refused> {
    let configuration = session.configuration.clone();
    let route = session.route(&configuration, (false, None))?;
    let service = session.access(&configuration, route).await?;
    let client = session.ends.source;
    let mut tries = Tries::default();
    let mut unanswered: Option<Bytes> = None;
    loop {
        let open =
            async |address: SocketAddr, _: &[u8]| connect_datagrams("upstream", address).await;
        let reached = session.reach(service, &mut tries, open).await?;
        let Reached {
            to,
            lease,
            address,
            watched,
        } = reached;
        if let Some(datagram) = &unanswered {
            _ = to.send(datagram).await;
        }
        let mut until = Instant::now() + service.read_timeout;
        let failed = loop {
            tokio::select! {
                datagram = timeout_at(until, queue.recv()) => {
                    let Ok(Some(datagram)) = datagram else {
                        drop(lease);
                        return Ok(());
                    };
                    add(&session.received, datagram.len());
                    let sent = timeout(service.write_timeout, to.send(&datagram)).await;
                    if session.sent.get() == 0 {
                        unanswered = Some(datagram);
                    }
                    match sent {
                        Ok(Err(error)) if is_refusal(&error) => break error,
                        // a network may lose a datagram, and so may this
                        _ => {}
                    }
                },
                passed = pass_back(&to, socket, client) => match passed {
                    Ok(length) => {
                        if session.sent.get() == 0 && let Some(watched) = &watched {
                            service.peers.report(watched, Report::Connected);
                        }
                        unanswered = None;
                        add(&session.sent, length);
                    }
                    Err(error) => break error,
                },
            }
            until = Instant::now() + service.read_timeout;
        };
        debug!(%failed, %client, upstream = %address, "an upstream refuses datagrams");
        if let Some(watched) = &watched {
            service.peers.report(watched, Report::TcpFailure);
        }
        tries.failed(address);
        // whoever has answered once is known to the client
        if unanswered.is_none() || !tries.may_go_on(service) {
            return Err(Refused::Connect(failed));
        }
    }
}

/// Passes the next datagram of the upstream back; its length in bytes. One that there is no room
/// for is lost, as in a network.
async fn pass_back(from: &UdpSocket, to: &UdpSocket, client: SocketAddr) -> io::Result<usize> {
    loop {
        // that nobody listens there makes no socket readable
        let ready = from.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            let told = from.try_io(Interest::ERROR, || match from.take_error()? {
                Some(error) => Err::<(), _>(error),
                None => Err(io::ErrorKind::WouldBlock.into()),
            });
            if let Err(error) = told
                && error.kind() != io::ErrorKind::WouldBlock
            {
                return Err(error);
            }
        }
        let passed: io::Result<usize> = ANSWER.with_borrow_mut(|answer| {
            let length = from.try_recv(answer)?;
            _ = to.try_send_to(&answer[..length], client);
            Ok(length)
        });
        match passed {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            passed => return passed,
        }
    }
}

/// Whether the far end, or the way there, said no.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}

fn add(count: &std::cell::Cell<u64>, bytes: usize) {
    count.set(count.get() + bytes as u64);
}
