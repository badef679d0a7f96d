//! The listener, and one task for each connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sallyport_runtime::tls::{CertDigest, ClientAuth, Identity, leaf_digest, server_config};
use sallyport_runtime::{ListenError, ListenOptions, Tasks, listen};
use sallyport_wire::appliance_cli::{
    ALPN, Command, Kind, REQUEST_BYTES_MAX, Reply, Request, check_arguments, split, write,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{AllowedKeys, Call, Called, Entry, Outlet, Recorder, Sent};

/// Connections at a time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a request that has begun may take to come, and an answer to be taken.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long a connection may wait for its next request.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// How the listener is to run.
pub struct Settings {
    /// Where.
    pub listen: SocketAddr,
    /// Name of the setting behind `listen`, for error messages.
    pub listen_setting: String,
    /// What the node shows; clients know it by its digest, so it has to last.
    pub identity: Identity,
    /// Who may give commands.
    pub keys: AllowedKeys,
    /// The commands.
    pub commands: Vec<Entry>,
    /// Where calls are recorded.
    pub recorder: Arc<dyn Recorder>,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate cannot be used.
    #[error("the certificate of the command line cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// The running listener.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    fingerprint: CertDigest,
}

/// What all connections share.
struct Shared {
    keys: AllowedKeys,
    entries: Vec<Entry>,
    list: Reply,
    recorder: Arc<dyn Recorder>,
}

impl Server {
    /// Starts to listen; what runs is in `tasks`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: Settings, tasks: &mut Tasks) -> Result<Server, StartError> {
        let tls = server_config(&settings.identity, ClientAuth::Presented, &[ALPN])?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let (listen_on, setting) = (settings.listen, &settings.listen_setting);
        let listener = listen(
            "appliance_cli",
            listen_on,
            setting,
            ListenOptions::default(),
        )?;
        let address = listener.local_addr().unwrap_or(listen_on);
        let certificate = settings.identity.chain().first();
        let fingerprint = certificate.map_or(CertDigest([0; 32]), |it| leaf_digest(it));
        let commands: Vec<&Command> = settings.commands.iter().map(|it| &it.command).collect();
        let commands = serde_json::to_value(commands).unwrap_or_default();
        let shared = Arc::new(Shared {
            list: Reply::new("commands of this node").with("commands", commands),
            keys: settings.keys,
            entries: settings.commands,
            recorder: settings.recorder,
        });
        tasks.spawn("appliance_cli", |stop| {
            accept(listener, acceptor, shared, stop)
        });
        info!(%address, %fingerprint, "command line started");
        Ok(Server {
            address,
            fingerprint,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients know the node by.
    pub fn fingerprint(&self) -> CertDigest {
        self.fingerprint
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a connection of the command line panicked");
                }
            }
            accepted = listener.accept() => match accepted {
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok((stream, peer)) => {
                    let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                        warn!(%peer, "too many connections of the command line");
                        continue;
                    };
                    let (acceptor, shared, stop) = (acceptor.clone(), shared.clone(), stop.clone());
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(reason) = connection(stream, peer, acceptor, shared, stop).await {
                            debug!(%peer, reason, "a connection of the command line was closed");
                        }
                    });
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Who is at the other end.
struct Client {
    peer: SocketAddr,
    key: CertDigest,
    name: String,
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> Result<(), String> {
    _ = stream.set_nodelay(true);
    let handshake = timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await;
    let handshake = handshake.map_err(|_| "the handshake took too long".to_owned())?;
    let stream = handshake.map_err(|error| error.to_string())?;
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let key = leaf_digest(shown.ok_or("no certificate was shown")?);
    let mut stream = Frames {
        stream,
        read: Vec::new(),
    };
    let allowed = match shared.keys.everywhere() {
        Ok(all) => all.into_iter().find(|allowed| allowed.digest == key),
        Err(error) => {
            warn!(%error, "nobody may give commands");
            None
        }
    };
    let Some(allowed) = allowed else {
        let reason = "the key is not allowed on this node".to_owned();
        shared.recorder.refused(peer, key, reason).await;
        let told = format!(
            "this node does not know your key; an administrator allows it with `sallyport keys allow \
             'sallyport-cli-key {key} NAME'`"
        );
        // After the client has asked: an answer that nobody waits for may be lost.
        _ = timeout(STALL_MAX, stream.request()).await;
        return stream.reply(&Reply::refused("unknown_key", told)).await;
    };
    let client = Client {
        peer,
        key,
        name: allowed.name,
    };
    loop {
        let payload = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            payload = stream.request() => payload?,
        };
        let Some(payload) = payload else {
            return Ok(());
        };
        let request = match Request::decode(&payload) {
            Ok(request) => request,
            Err(error) => {
                let refused = Reply::refused("bad_request", error.to_string());
                stream.reply(&refused).await?;
                return Err(error.to_string());
            }
        };
        answer(&mut stream, &client, request, &shared).await?;
    }
}

/// Carries out one request, records it and answers.
async fn answer(
    stream: &mut Frames,
    client: &Client,
    request: Request,
    shared: &Shared,
) -> Result<(), String> {
    if request.command == "commands" {
        return stream.reply(&shared.list).await;
    }
    let entry = shared
        .entries
        .iter()
        .find(|it| it.command.name == request.command);
    let mut called = Called {
        peer: client.peer,
        key_name: client.name.clone(),
        key: client.key,
        arguments: shown(&request, entry.map(|entry| &entry.command)),
        command: request.command.clone(),
        outcome: None,
    };
    if let Err(reason) = shared.recorder.ready().await {
        let refused = format!("nothing was done: calls cannot be recorded now ({reason})");
        return stream.reply(&Reply::refused("not_recorded", refused)).await;
    }
    let (reply, left) = match entry {
        None => {
            let known: Vec<&str> = shared.entries.iter().map(|it| &*it.command.name).collect();
            let told = format!(
                "this node has no command {:?}; it has {}",
                request.command,
                known.join(", ")
            );
            (Reply::refused("unknown_command", told), None)
        }
        Some(entry) => match check_arguments(&entry.command, &request.arguments) {
            Err(told) => (Reply::refused("bad_arguments", told), None),
            Ok(()) => carry_out(stream, entry, request).await,
        },
    };
    called.outcome = match (&left, &reply.error) {
        (Some(_), _) => None,
        (None, None) => Some(Ok(())),
        (None, Some(word)) => Some(Err(word.clone())),
    };
    let recorded = shared.recorder.called(called).await;
    if let Some(left) = left {
        return Err(left);
    }
    match recorded {
        Ok(()) => stream.reply(&reply).await,
        Err(reason) => {
            let told = format!(
                "{} (but this could not be recorded: {reason})",
                reply.message
            );
            stream.reply(&Reply::refused("not_recorded", told)).await
        }
    }
}

/// Runs a command and passes on what it sends; the second part says that the client left.
async fn carry_out(
    stream: &mut Frames,
    entry: &Entry,
    request: Request,
) -> (Reply, Option<String>) {
    let (outlet, mut sent) = Outlet::new();
    let mut running = (entry.run)(Call {
        arguments: request.arguments,
        outlet,
    });
    let (mut reply, mut open) = (None, true);
    loop {
        // What the command sent goes before its reply; it may have let go of its outlet long before.
        if !open && let Some(reply) = reply.take() {
            return (reply, None);
        }
        tokio::select! {
            biased;
            some = sent.recv(), if open => match some {
                Some(sent) => {
                    if let Err(left) = stream.pass_on(sent).await {
                        return (Reply::new(""), Some(left));
                    }
                }
                None => open = false,
            },
            done = &mut running, if reply.is_none() => {
                reply = Some(done);
                running = Box::pin(std::future::pending());
            }
        }
    }
}

/// The arguments of a request in the form that is recorded.
fn shown(request: &Request, command: Option<&Command>) -> String {
    let secret = |name: &str| {
        let arguments = command.map(|it| &it.arguments[..]).unwrap_or_default();
        // What nobody knows may be a secret in the wrong place.
        arguments
            .iter()
            .find(|it| it.name == name)
            .is_none_or(|it| it.secret)
    };
    let one = |(name, value): (&String, &String)| match secret(name) {
        true => format!("{name}=***"),
        false => format!("{name}={value}"),
    };
    let all: Vec<String> = request.arguments.iter().map(one).collect();
    all.join("&")
}

/// A connection that frames go over.
struct Frames {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Frames {
    /// The payload of the next request; `None` if the client has ended.
    async fn request(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(frame) =
                split(&self.read, REQUEST_BYTES_MAX).map_err(|error| error.to_string())?
            {
                if frame.kind != Kind::Request {
                    return Err("a frame that only a node sends".to_owned());
                }
                let (payload, bytes) = (frame.payload.to_vec(), frame.bytes);
                self.read.drain(..bytes);
                return Ok(Some(payload));
            }
            let begun = !self.read.is_empty();
            let most = if begun { STALL_MAX } else { IDLE_MAX };
            let read = timeout(most, self.stream.read_buf(&mut self.read)).await;
            let read = read.map_err(|_| "it took too long to ask".to_owned())?;
            match read.map_err(|error| error.to_string())? {
                0 if begun => return Err("a request was cut short".to_owned()),
                0 => return Ok(None),
                _ => {}
            }
        }
    }

    async fn pass_on(&mut self, sent: Sent) -> Result<(), String> {
        match sent {
            Sent::Progress(progress) => {
                let text = serde_json::to_vec(&progress).unwrap_or_default();
                self.write(Kind::Progress, &text).await
            }
            Sent::Data(bytes) => self.write(Kind::Data, &bytes).await,
        }
    }

    async fn reply(&mut self, reply: &Reply) -> Result<(), String> {
        let text = serde_json::to_vec(reply).unwrap_or_default();
        self.write(Kind::Reply, &text).await
    }

    async fn write(&mut self, kind: Kind, payload: &[u8]) -> Result<(), String> {
        let mut frame = Vec::with_capacity(payload.len() + 5);
        write(kind, payload, &mut frame);
        let written = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        let written = timeout(STALL_MAX, written).await;
        let written = written.map_err(|_| "an answer was not taken".to_owned())?;
        written.map_err(|error| error.to_string())
    }
}
