//! `appliance_cli`: administration of a node from other machines, on port 10121.
//!
//! Clients prove themselves by a key that an administrator allowed on the node ([`AllowedKeys`]),
//! the node by a certificate that clients know. The node tells its commands, so older clients use
//! newer ones. Every call is recorded before it is answered; while that cannot be done none is
//! carried out. See `docs/appliance_cli.md`; the bytes are in `sallyport_wire::appliance_cli`.

pub mod commands;
mod keys;
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use sallyport_runtime::tls::CertDigest;
use sallyport_wire::appliance_cli::{Command, Progress, Reply};
use tokio::sync::mpsc;

pub use keys::{AllowedKey, AllowedKeys, KeysError};
pub use server::{Server, Settings, StartError};

/// Frames that wait for the client.
const OUTLET_MAX: usize = 4;

/// Something that takes its time.
pub type Later<'l, T> = Pin<Box<dyn Future<Output = T> + Send + 'l>>;

/// A command, and what carries it out.
#[derive(Clone)]
pub struct Entry {
    /// What clients are told of it.
    pub command: Command,
    /// Carries it out; its arguments were checked against the command.
    pub run: Arc<dyn Fn(Call) -> Later<'static, Reply> + Send + Sync>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.command.name).finish()
    }
}

/// A command being carried out.
#[derive(Debug)]
pub struct Call {
    /// Arguments by name.
    pub arguments: BTreeMap<String, String>,
    /// What goes to the client before the reply.
    pub outlet: Outlet,
}

impl Call {
    /// An argument, if it was given and is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.arguments.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }
}

/// The way to the client while a command runs. It waits while the client does not take more.
#[derive(Clone, Debug)]
pub struct Outlet(mpsc::Sender<Sent>);

#[derive(Debug)]
enum Sent {
    Progress(Progress),
    Data(Vec<u8>),
}

/// The client has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Outlet {
    /// An outlet, and what comes out of it.
    fn new() -> (Outlet, mpsc::Receiver<Sent>) {
        let (sender, receiver) = mpsc::channel(OUTLET_MAX);
        (Outlet(sender), receiver)
    }

    /// Says how far the command is.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn progress(&self, done: u64, total: u64, unit: &str) -> Result<(), Gone> {
        let unit = unit.to_owned();
        let progress = Progress { done, total, unit };
        let sent = self.0.send(Sent::Progress(progress)).await;
        sent.map_err(|_| Gone)
    }

    /// Sends bytes of a file, fewer than [`sallyport_wire::appliance_cli::FRAME_BYTES_MAX`].
    ///
    /// # Errors
    /// The client has gone.
    pub async fn data(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        self.0.send(Sent::Data(bytes)).await.map_err(|_| Gone)
    }
}

/// A call, as it is recorded.
#[derive(Clone, Debug)]
pub struct Called {
    /// From where.
    pub peer: SocketAddr,
    /// The name under which the key is allowed.
    pub key_name: String,
    /// The key.
    pub key: CertDigest,
    /// The command.
    pub command: String,
    /// Its arguments, without secrets.
    pub arguments: String,
    /// What came of it; `None` if the client left before it was over.
    pub outcome: Option<Result<(), String>>,
}

/// Where calls are recorded.
pub trait Recorder: Send + Sync {
    /// Whether a call could be recorded now; why not otherwise.
    fn ready(&self) -> Later<'_, Result<(), String>>;

    /// Records a call; it is kept for good when this succeeds.
    fn called(&self, called: Called) -> Later<'_, Result<(), String>>;

    /// Records that a client was sent away.
    fn refused(&self, peer: SocketAddr, key: CertDigest, reason: String) -> Later<'_, ()>;
}
