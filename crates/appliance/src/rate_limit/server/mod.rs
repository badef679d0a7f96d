//! The listener on port 9001: limitd clients, with TLS or without.

mod accept;
mod batch;
mod connection;
mod first_bytes;
mod outbox;
mod owned;
mod reload;
#[cfg(test)]
mod tests;
mod tls;
mod waits;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use sallyport_runtime::{ListenError, ListenOptions, Tasks, listen};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cluster::{Cluster, Peers};
use super::config::{Config, Problem};
use super::limits::{BUCKETS_MAX, Limits};
use super::redis::{self, Redis};
use super::snapshot;

pub(super) use outbox::Outbox;
pub(super) use owned::{OwnedId, OwnedRequest};
pub use tls::TlsError;

/// Connections that are open at a time; further ones are closed at once.
pub const CONNECTIONS_MAX: usize = 10_000;
/// How long a message that has begun may take to come, and an answer to be taken.
const STALL_MAX: Duration = Duration::from_secs(30);
/// All buckets are looked at once in this time, part by part.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How often buckets are written to the file that keeps them.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);
/// How long open connections may take to notice the end.
const GRACE: Duration = Duration::from_secs(5);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Certificates and keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What all connections share.
struct Shared {
    limits: Arc<Limits>,
    cluster: Option<Arc<Cluster>>,
    /// Where buckets are, if not here.
    redis: Option<Arc<Redis>>,
    tls: tls::Accept,
    connections: Arc<Semaphore>,
    /// WAITs under way.
    waiting: AtomicUsize,
}

/// The running service.
pub struct RateLimit {
    address: SocketAddr,
    limits: Arc<Limits>,
    reload: Arc<Notify>,
    tasks: Tasks,
    kept_in: Option<PathBuf>,
}

impl RateLimit {
    /// Starts to listen and to follow the file at `path`, from which `config` was read. `setting`
    /// names what changes the address. `peers` are the nodes that count together, if the file does not
    /// list them. Runs on the current tokio runtime, on all of its threads.
    ///
    /// # Errors
    /// See [`StartError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        config: Config,
        path: PathBuf,
        address: SocketAddr,
        setting: &str,
        peers: Option<Peers>,
    ) -> Result<RateLimit, StartError> {
        let peers = match (&config.cluster, &config.redis) {
            (Some(section), _) => Some(tls::listed(section)?),
            // all nodes share what is there
            (None, Some(_)) => None,
            (None, None) => peers,
        };
        let redis = match &config.redis {
            None => None,
            Some(section) => {
                let tls = tls::to_redis(section)?;
                Some(Arc::new(Redis::new(section.clone(), tls)))
            }
        };
        let tls = tls::Accept::new(&config, peers.clone())?;
        let listener = listen("rate_limit", address, setting, ListenOptions::default())?;
        let address = listener.local_addr().unwrap_or(address);
        warn_of(&config.warnings);
        info!(types = config.types.len(), "bucket configuration read");
        let sections = reload::Sections::of(&config);
        let limits = Arc::new(Limits::new(config.types, BUCKETS_MAX));
        let mut tasks = Tasks::new(CancellationToken::new());
        if let Some(redis) = &redis {
            tasks.spawn("rate_limit redis", |stop| redis::run(redis.clone(), stop));
        }
        let shared = Arc::new(Shared {
            redis,
            limits: limits.clone(),
            cluster: peers.map(|peers| Cluster::start(peers, &limits, &mut tasks)),
            tls,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            waiting: AtomicUsize::new(0),
        });
        let reload = Arc::new(Notify::new());
        tasks.spawn("rate_limit accept", |stop| {
            accept::run(listener, shared, stop)
        });
        tasks.spawn("rate_limit sweep", |stop| sweep(limits.clone(), stop));
        tasks.spawn("rate_limit reload", |stop| {
            reload::run(path, sections, limits.clone(), reload.clone(), stop)
        });
        Ok(RateLimit {
            address,
            limits,
            reload,
            tasks,
            kept_in: None,
        })
    }

    /// Keeps buckets that take an hour or more to fill in a file: reads it now, writes it each
    /// minute and at the end.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is none.
    pub fn keep_in(&mut self, path: PathBuf) -> std::io::Result<()> {
        let (restored, bad) = snapshot::read(&self.limits, &path)?;
        info!(restored, "buckets of an earlier run");
        if bad > 0 {
            warn!(
                bad,
                "buckets in the snapshot have no type any more, or cannot be read"
            );
        }
        let (limits, own) = (self.limits.clone(), path.clone());
        self.tasks
            .spawn("rate_limit snapshot", |stop| keep(limits, own, stop));
        self.kept_in = Some(path);
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The buckets.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Reads the file again now, changed or not.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Stops: nothing new is accepted, what came is answered.
    pub async fn stop(self) {
        let late = self.tasks.finish(GRACE).await;
        if !late.is_empty() {
            warn!(?late, "tasks did not end in time");
        }
        if let Some(path) = self.kept_in {
            write_snapshot(self.limits, path).await;
        }
    }
}

fn warn_of(warnings: &[Problem]) {
    for warning in warnings {
        warn!(%warning, "bucket configuration");
    }
}

async fn keep(limits: Arc<Limits>, path: PathBuf, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SNAPSHOT_EVERY) => {}
        }
        write_snapshot(limits.clone(), path.clone()).await;
    }
}

async fn write_snapshot(limits: Arc<Limits>, path: PathBuf) {
    let shown = path.display().to_string();
    let written = tokio::task::spawn_blocking(move || snapshot::write(&limits, &path)).await;
    match written {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn!(path = shown, %error, "buckets could not be written"),
        Err(error) => warn!(path = shown, %error, "buckets could not be written"),
    }
}

async fn sweep(limits: Arc<Limits>, stop: CancellationToken) {
    let parts = u32::try_from(limits.parts()).expect("a few parts");
    let mut tick = tokio::time::interval(SWEEP_EVERY / parts);
    for part in (0..limits.parts()).cycle() {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => limits.sweep(part),
        }
    }
}
