//! Port 8071: records of gateways and clients, as syslog over TCP, TLS and UDP.
//!
//! A stream is read no faster than its records are on disk, which is the only acknowledgement that
//! syslog has: what was not read stays with the sender.

mod bound;
mod tcp;
mod udp;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use sallyport_runtime::tls::{ClientAuth, Identity, server_config};
use sallyport_runtime::{ListenError, ListenOptions, Tasks, listen, listen_datagrams};
use sallyport_wire::audit_log::{Event, Message, Received, SyslogError, What};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::bound::Buckets;
use super::Audit;
use super::database;
use super::error::{AuditLogError, LogFailure};
use super::log::{event, own};
use super::settings::Receive;

const SETTING: &str = "receive.listen in the audit log's settings";
/// Between two records about what was refused.
const TELL_INTERVAL: Duration = Duration::from_secs(10);
/// Addresses and reasons that are told apart in one such record.
const TALLY_MAX: usize = 200;
/// How long the size of the log is believed.
const SIZE_AGE_MAX: Duration = Duration::from_secs(5);

/// Open sockets, not served yet.
pub(super) struct Sockets {
    tcp: TcpListener,
    udp: UdpSocket,
    tls: Arc<ServerConfig>,
    settings: Receive,
}

/// Why port 8071 cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Settings(#[from] AuditLogError),
}

impl Sockets {
    /// Opens the port on TCP and UDP. With port 0 both get the same free one.
    pub(super) fn open(settings: Receive, identity: &Identity) -> Result<Sockets, OpenError> {
        let client_auth = match &settings.client_ca {
            None => ClientAuth::Off,
            Some(roots) => ClientAuth::IssuedBy(Arc::clone(roots)),
        };
        let tls =
            server_config(identity, client_auth, &[]).map_err(|error| AuditLogError::Setting {
                key: "receive.client_ca".to_owned(),
                reason: error.to_string(),
            })?;
        let tcp = listen(
            "audit_log",
            settings.listen,
            SETTING,
            ListenOptions::default(),
        )?;
        let addr = tcp.local_addr().unwrap_or(settings.listen);
        let udp = listen_datagrams("audit_log", addr, SETTING)?;
        Ok(Sockets {
            tcp,
            udp,
            tls: Arc::new(tls),
            settings,
        })
    }

    pub(super) fn addr(&self) -> Option<SocketAddr> {
        self.tcp.local_addr().ok()
    }

    pub(super) fn serve(self, audit: Audit, tasks: &mut Tasks) {
        let receiver = Arc::new(Receiver {
            audit,
            buckets: Buckets::new(self.settings.records_per_second_max),
            settings: self.settings,
            tally: Mutex::default(),
            size: Mutex::new((None, 0)),
        });
        let (own, tcp, tls) = (Arc::clone(&receiver), self.tcp, self.tls);
        tasks.spawn("audit_log.tcp", |stop| tcp::serve(own, tcp, tls, stop));
        let (own, udp) = (Arc::clone(&receiver), self.udp);
        tasks.spawn("audit_log.udp", |stop| udp::serve(own, udp, stop));
        tasks.spawn("audit_log.refusals", |stop| receiver.tell(stop));
    }
}

/// What both transports share.
struct Receiver {
    audit: Audit,
    settings: Receive,
    buckets: Buckets,
    /// What was refused since the last record about it, by sender and reason.
    tally: Mutex<HashMap<(IpAddr, &'static str), u64>>,
    /// When the size of the log was asked for, and what it was.
    size: Mutex<(Option<Instant>, u64)>,
}

impl Receiver {
    /// Reads one message: RFC 5424, or a bare CEF record.
    fn read(
        &self,
        bytes: &[u8],
        peer: SocketAddr,
        transport: &'static str,
        certificate: Option<&str>,
    ) -> Result<Event, SyslogError> {
        let message = match bytes.strip_prefix(b"CEF:") {
            None => Message::parse(bytes)?,
            Some(_) => Message {
                facility: 13,
                severity: 6,
                text: String::from_utf8_lossy(bytes).trim_end().to_owned(),
                ..Message::default()
            },
        };
        Ok(Event {
            src: Some(peer.ip()),
            ..event(What::Received(Received {
                transport,
                certificate: certificate.map(str::to_owned),
                message,
            }))
        })
    }

    /// Records events; they are on disk when this returns.
    async fn append(&self, events: Vec<Event>) -> Result<(), LogFailure> {
        if self.size().await? >= self.settings.log_bytes_max {
            return Err(LogFailure::Quota);
        }
        self.audit.log.ready().await?;
        self.audit.log.append(events).await.map(|_| ())
    }

    async fn size(&self) -> Result<u64, LogFailure> {
        {
            let known = self.size.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(at), size) = *known
                && at.elapsed() < SIZE_AGE_MAX
            {
                return Ok(size);
            }
        }
        let size = self.audit.log.read(database::size).await?;
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = (Some(Instant::now()), size);
        Ok(size)
    }

    /// Counts something refused; a record tells of it soon.
    fn refuse(&self, address: IpAddr, reason: &'static str) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let key = match tally.len() < TALLY_MAX || tally.contains_key(&(address, reason)) {
            true => (address, reason),
            false => (IpAddr::from([0; 4]), reason),
        };
        *tally.entry(key).or_default() += 1;
    }

    /// Tells now and then of what was refused.
    async fn tell(self: Arc<Receiver>, stop: CancellationToken) {
        let mut ticks = interval(TELL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => self.tell_now().await,
            }
        }
        self.tell_now().await;
    }

    async fn tell_now(&self) {
        let refused = {
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tally)
        };
        let events = refused.into_iter().map(|((address, reason), count)| {
            let known = !address.is_unspecified();
            Event {
                src: known.then_some(address),
                ..own("Log.Refused", 6, format!("{count} refused: {reason}"))
            }
        });
        let events: Vec<Event> = events.collect();
        if !events.is_empty()
            && let Err(error) = self.audit.log.append(events).await
        {
            error!(%error, "what was refused on the audit log's port could not be recorded");
        }
    }
}

/// Constant texts for what is wrong with a message, so that a sender cannot invent reasons.
fn reason(error: SyslogError) -> &'static str {
    match error {
        SyslogError::Priority => "a message that does not begin with <PRIORITY>",
        SyslogError::Version => "a message that is not of version 1 (RFC 5424)",
        SyslogError::Field(_) => "a message with a bad field in its head",
        SyslogError::Timestamp => "a message with a bad timestamp",
        SyslogError::Data => "a message with bad structured data",
    }
}
