//! Connections to the first host that is fit for writing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_util::task::TaskTracker;

use super::address::Address;
use super::session::Session;
use super::tls::{self, Handshake};
use super::told;
use crate::OpenError;

/// How long one host may take, unless `connect_timeout` says otherwise.
const HOST_TIME_MAX: Duration = Duration::from_secs(5);
/// A server that is silent for so long while it owes an answer is gone.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Notifications that may wait; more are not needed, as each asks for the same look.
const NOTIFICATIONS_MAX: usize = 64;

/// Makes connections.
pub(crate) struct Dialler {
    address: Address,
    tls: Arc<ClientConfig>,
    tasks: TaskTracker,
}

/// What came of one host.
enum Refusal {
    LogIn(String),
    Other(String),
}

impl Dialler {
    pub(crate) fn new(address: Address, tasks: TaskTracker) -> Result<Dialler, OpenError> {
        let tls = tls::config(&address).map_err(OpenError::Address)?;
        Ok(Dialler {
            address,
            tls,
            tasks,
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// A connection for operations.
    pub(crate) async fn connect(&self) -> Result<Session, OpenError> {
        Ok(Session::new(self.first_host(None).await?))
    }

    /// A connection with the notifications that come on it.
    pub(super) async fn listening(&self) -> Result<(Session, mpsc::Receiver<String>), OpenError> {
        let (sender, notifications) = mpsc::channel(NOTIFICATIONS_MAX);
        let client = self.first_host(Some(sender)).await?;
        Ok((Session::new(client), notifications))
    }

    async fn first_host(&self, heard: Option<mpsc::Sender<String>>) -> Result<Client, OpenError> {
        let limit = self.address.config.get_connect_timeout();
        let limit = limit.copied().unwrap_or(HOST_TIME_MAX);
        let mut refusals = Vec::new();
        for (host, port) in self.address.hosts() {
            let tried = self.try_host(&host, port, heard.clone(), limit);
            match timeout(limit, tried).await {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(refusal)) => refusals.push(refusal),
                Err(_) => refusals.push(Refusal::Other(format!(
                    "{} did not answer within {} ms",
                    host_name(&host),
                    limit.as_millis()
                ))),
            }
        }
        let log_in = refusals.iter().find_map(|refusal| match refusal {
            Refusal::LogIn(detail) => Some(detail.clone()),
            Refusal::Other(_) => None,
        });
        let database = self.address.shown.clone();
        if let Some(detail) = log_in {
            return Err(OpenError::LogIn { database, detail });
        }
        let details: Vec<String> = refusals
            .into_iter()
            .map(|(Refusal::LogIn(detail) | Refusal::Other(detail))| detail)
            .collect();
        let detail = details.join("; ");
        Err(OpenError::Unreachable { database, detail })
    }

    async fn try_host(
        &self,
        host: &Host,
        port: u16,
        heard: Option<mpsc::Sender<String>>,
        limit: Duration,
    ) -> Result<Client, Refusal> {
        let client = match host {
            Host::Tcp(name) => {
                let dialled = sallyport_runtime::dial("database.external", name, port, limit);
                let stream = dialled
                    .await
                    .map_err(|error| Refusal::Other(error.to_string()))?;
                keep_alive(&stream);
                let handshake = Handshake {
                    config: Arc::clone(&self.tls),
                    host: name.clone(),
                };
                self.log_in(stream, handshake, false, heard).await
            }
            Host::Unix(directory) => {
                let stream = unix(directory, port).await?;
                self.log_in(stream, NoTls, true, heard).await
            }
        };
        let client = client.map_err(|error| refusal(host, port, &error))?;
        self.check_session(&client, host, port).await?;
        Ok(client)
    }

    /// Logs in and starts the task that drives the connection; it ends with the client.
    async fn log_in<S, T>(
        &self,
        stream: S,
        tls: T,
        local: bool,
        heard: Option<mpsc::Sender<String>>,
    ) -> Result<Client, tokio_postgres::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: TlsConnect<S>,
        T::Stream: Send + 'static,
    {
        let mut config = self.address.config.clone();
        if local {
            // As libpq: nobody is between the two ends of a local socket.
            config.ssl_mode(SslMode::Disable);
        }
        let (client, connection) = config.connect_raw(stream, tls).await?;
        self.tasks.spawn(drive(connection, heard));
        Ok(client)
    }

    /// Passes over hosts that only serve reads. Of several hosts one that takes writes is wanted,
    /// whether the address says so or not: this program is of no use on a standby.
    async fn check_session(&self, client: &Client, host: &Host, port: u16) -> Result<(), Refusal> {
        let wanted = match self.address.config.get_target_session_attrs() {
            TargetSessionAttrs::ReadOnly => "on",
            TargetSessionAttrs::ReadWrite => "off",
            _ if self.address.hosts().len() > 1 => "off",
            _ => return Ok(()),
        };
        let shown = client.simple_query("SHOW transaction_read_only").await;
        let shown = shown.map_err(|error| refusal(host, port, &error))?;
        let value = shown.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        match value {
            Some(value) if value == wanted => Ok(()),
            _ => Err(Refusal::Other(format!(
                "{}:{port} is {}",
                host_name(host),
                if wanted == "off" {
                    "read-only"
                } else {
                    "not read-only"
                }
            ))),
        }
    }
}

/// Moves the bytes of one connection, and passes on what the server says by itself.
async fn drive<S, T>(mut connection: Connection<S, T>, heard: Option<mpsc::Sender<String>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => {
                if let Some(heard) = &heard {
                    // Full means that the listener is about to look anyway.
                    _ = heard.try_send(notification.payload().to_owned());
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(error = told(&error), "a connection to the database ended");
                return;
            }
            None => return,
        }
    }
}

/// Notices a server that is gone without a word, such as one that lost power.
fn keep_alive(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new()
        .with_time(SILENCE_MAX / 2)
        .with_interval(SILENCE_MAX / 8)
        .with_retries(4);
    // Without it a lost server is noticed later, by the limit of the operation.
    _ = socket.set_tcp_keepalive(&probes);
    #[cfg(target_os = "linux")]
    {
        _ = socket.set_tcp_user_timeout(Some(SILENCE_MAX));
    }
}

async fn unix(directory: &Path, port: u16) -> Result<UnixStream, Refusal> {
    let path = directory.join(format!(".s.PGSQL.{port}"));
    let stream = UnixStream::connect(&path).await;
    stream.map_err(|error| Refusal::Other(format!("{}: {error}", path.display())))
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

fn refusal(host: &Host, port: u16, error: &tokio_postgres::Error) -> Refusal {
    let detail = format!("{}:{port}: {}", host_name(host), told(error));
    let log_in = [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    // Without a password where one is wanted, the library gives up by itself.
    let no_password = error.as_db_error().is_none() && detail.contains("password missing");
    if no_password || error.code().is_some_and(|code| log_in.contains(code)) {
        Refusal::LogIn(detail)
    } else {
        Refusal::Other(detail)
    }
}
