//! The open end of a queue: the connection or file that it sends to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sallyport_plugins::log_queue::Sink;
use sallyport_runtime::{dial, dial_datagrams};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::time::timeout;

use super::Ways;
use super::file::Appended;
use super::http::Server;
use super::socket::Connection;

/// For handing a message to the syslog daemon.
const SYSLOG_TIME_MAX: Duration = Duration::from_secs(1);

/// Why a batch was not sent.
#[derive(Debug)]
pub(super) struct Failure {
    /// What went wrong, without secrets.
    pub(super) reason: String,
    /// How many of its payloads, where others were sent.
    pub(super) lost: Option<usize>,
}

impl<T: ToString> From<T> for Failure {
    fn from(reason: T) -> Failure {
        Failure {
            reason: reason.to_string(),
            lost: None,
        }
    }
}

/// What a queue keeps open between two batches.
pub(super) struct Outgoing {
    ways: Arc<Ways>,
    file: Option<Appended>,
    server: Option<Server>,
    connection: Option<Connection>,
    datagrams: Option<UdpSocket>,
}

impl Outgoing {
    pub(super) fn new(ways: Arc<Ways>) -> Outgoing {
        Outgoing {
            ways,
            file: None,
            server: None,
            connection: None,
            datagrams: None,
        }
    }

    /// Sends the payloads of one batch.
    pub(super) async fn send(
        &mut self,
        plugin: &'static str,
        sink: &Sink,
        payloads: &[Bytes],
    ) -> Result<(), Failure> {
        match sink {
            Sink::File { path, reopen } => {
                let kept = self.file.take().filter(|_| !reopen);
                let file = Appended::write(kept, path, &self.ways, payloads.to_vec()).await?;
                self.file = Some(file);
                Ok(())
            }
            Sink::Http(http) => {
                for payload in payloads {
                    let kept = self.server.take();
                    let sent = Server::send(kept, plugin, http, &self.ways, payload.clone());
                    self.server = sent.await?;
                }
                Ok(())
            }
            Sink::Tcp {
                host,
                port,
                timeout,
                keepalive,
                tls,
            } => {
                let kept = self.connection.take();
                let kept = kept.and_then(|kept| kept.if_fit(*keepalive));
                let mut connection = match kept {
                    Some(kept) => kept,
                    None => {
                        let id = contract_id(plugin);
                        let stream = dial(id, host, *port, *timeout).await?;
                        let tls = tls.as_deref().map(|name| (name, &self.ways.unverified));
                        Connection::open(stream, tls, *timeout).await?
                    }
                };
                for payload in payloads {
                    connection.write(payload, *timeout).await?;
                }
                self.connection = Some(connection);
                Ok(())
            }
            Sink::Udp {
                host,
                port,
                timeout: limit,
            } => {
                if self.datagrams.is_none() {
                    let dialled = dial_datagrams(contract_id(plugin), host, *port);
                    let dialled = timeout(*limit, dialled).await;
                    self.datagrams = Some(dialled.map_err(|_| "no address in time")??);
                }
                let Some(socket) = &self.datagrams else {
                    return Ok(());
                };
                let mut failures = Failures::default();
                for payload in payloads {
                    failures.note(socket.send(payload).await.map(drop));
                }
                let result = failures.result();
                if result.is_err() {
                    self.datagrams = None; // the name may have another address by now
                }
                result
            }
            Sink::Syslog => {
                let socket = UnixDatagram::unbound()?;
                let path = &self.ways.syslog;
                socket
                    .connect(path)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                let mut failures = Failures::default();
                for payload in payloads {
                    let sent = timeout(SYSLOG_TIME_MAX, socket.send(payload)).await;
                    let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                    failures.note(sent.map(drop));
                }
                failures.result()
            }
        }
    }
}

/// The contract entry of what a plugin dials.
pub(super) fn contract_id(plugin: &'static str) -> &'static str {
    match plugin {
        "http-log" => "http_log",
        "tcp-log" => "tcp_log",
        "udp-log" => "udp_log",
        other => other,
    }
}

/// Of payloads that are sent each for itself.
#[derive(Default)]
struct Failures {
    count: usize,
    last: Option<io::Error>,
}

impl Failures {
    fn note(&mut self, sent: io::Result<()>) {
        if let Err(error) = sent {
            self.count += 1;
            self.last = Some(error);
        }
    }

    fn result(self) -> Result<(), Failure> {
        match self.last {
            None => Ok(()),
            Some(error) => Err(Failure {
                reason: error.to_string(),
                lost: Some(self.count),
            }),
        }
    }
}
