//! Log queues of this gateway: emptied in the background, so that no request waits for a sink.
//!
//! Requests on all cores put entries in ([`LogQueue::push`]: a short lock, never a wait). One task
//! a queue takes them out, and ends once no configuration uses the queue any more and all of it
//! was sent or given up. [`supervise`] is the parent of those tasks.

mod file;
mod http;
mod outgoing;
mod queue;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustls::ClientConfig;
use sallyport_plugins::log_queue::{LogQueue, LogQueues, QueueSpec};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use queue::{Handle, Inner, empty};

/// How long what waits may take to be sent once the gateway stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Why an entry was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// Newer ones needed the room.
    Full,
    /// It is larger than the queue.
    TooLarge,
    /// The sink took it at no try.
    GivenUp,
    /// The gateway stopped before the sink took it.
    Stopped,
}

impl Loss {
    /// The word in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Loss::Full => "full",
            Loss::TooLarge => "too_large",
            Loss::GivenUp => "given_up",
            Loss::Stopped => "stopped",
        }
    }
}

/// What queues need of the gateway.
pub(crate) struct Ways {
    /// For servers whose certificate is verified, without ALPN.
    verified: Arc<ClientConfig>,
    /// For those whose is not.
    unverified: Arc<ClientConfig>,
    /// Where the syslog daemon listens.
    syslog: PathBuf,
    /// Grows when files are to be opened anew.
    reopened: AtomicU64,
    lost: Mutex<BTreeMap<(&'static str, Loss), u64>>,
}

impl Ways {
    /// The configurations may offer ALPN; it is taken out.
    pub(crate) fn new(
        verified: &ClientConfig,
        unverified: &ClientConfig,
        syslog: PathBuf,
    ) -> Arc<Ways> {
        let without_alpn = |config: &ClientConfig| {
            let mut config = config.clone();
            config.alpn_protocols.clear();
            Arc::new(config)
        };
        Arc::new(Ways {
            verified: without_alpn(verified),
            unverified: without_alpn(unverified),
            syslog,
            reopened: AtomicU64::new(0),
            lost: Mutex::default(),
        })
    }

    fn lose(&self, plugin: &'static str, loss: Loss, entries: usize) {
        *lock(&self.lost).entry((plugin, loss)).or_default() += entries as u64;
    }
}

/// The queues in use, by plugin and name.
type Known = HashMap<(&'static str, String), Weak<Handle>>;

/// The queues of a gateway; clones are the same.
#[derive(Clone)]
pub(crate) struct Queues {
    ways: Arc<Ways>,
    known: Arc<Mutex<Known>>,
    /// New queues, on their way to their parent: one message a queue.
    new: UnboundedSender<Arc<Inner>>,
}

/// New queues that wait for [`supervise`].
pub(crate) struct NewQueues(UnboundedReceiver<Arc<Inner>>);

impl Queues {
    /// No queue yet.
    pub(crate) fn new(ways: Arc<Ways>) -> (Queues, NewQueues) {
        let (new, arriving) = unbounded_channel();
        let queues = Queues {
            ways,
            known: Arc::default(),
            new,
        };
        (queues, NewQueues(arriving))
    }

    /// Lets every file be opened anew before the next write.
    pub(crate) fn reopen(&self) {
        self.ways.reopened.fetch_add(1, Ordering::Relaxed);
    }

    /// Entries lost so far, by plugin and reason.
    pub(crate) fn lost(&self) -> Vec<(&'static str, Loss, u64)> {
        let lost = lock(&self.ways.lost);
        lost.iter()
            .map(|(&(plugin, loss), &count)| (plugin, loss, count))
            .collect()
    }

    /// Entries that wait, by plugin.
    pub(crate) fn waiting(&self) -> BTreeMap<&'static str, usize> {
        let mut waiting = BTreeMap::new();
        for ((plugin, _), handle) in lock(&self.known).iter() {
            if let Some(handle) = handle.upgrade() {
                *waiting.entry(*plugin).or_default() += handle.waiting();
            }
        }
        waiting
    }
}

impl LogQueues for Queues {
    fn open(&self, spec: &QueueSpec) -> Arc<dyn LogQueue> {
        let key = (spec.plugin, spec.name.clone());
        let mut known = lock(&self.known);
        if let Some(handle) = known.get(&key).and_then(Weak::upgrade) {
            handle.renew(spec);
            return handle;
        }
        known.retain(|_, handle| handle.strong_count() > 0);
        let inner = Arc::new(Inner::new(spec, self.ways.clone()));
        let handle = Arc::new(Handle(inner.clone()));
        known.insert(key, Arc::downgrade(&handle));
        if self.new.send(inner).is_err() {
            warn!(plugin = spec.plugin, "the gateway stops, entries are lost");
        }
        handle
    }
}

/// Empties queues until `stop`, and then what is left within [`DRAIN`]. `stop` must come when
/// nothing is put in any more.
pub(crate) async fn supervise(mut new: NewQueues, ways: Arc<Ways>, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut running: Vec<Weak<Inner>> = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(inner) = new.0.recv() => start(inner, &mut tasks, &mut running, &ways, &stop),
            Some(ended) = tasks.join_next() => report(ended),
        }
    }
    while let Ok(inner) = new.0.try_recv() {
        start(inner, &mut tasks, &mut running, &ways, &stop);
    }
    let finish = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    if timeout(DRAIN, finish).await.is_err() {
        // told by each queue for itself
        for inner in running.iter().filter_map(Weak::upgrade) {
            inner.abandon();
        }
        tasks.shutdown().await;
    }
}

fn start(
    inner: Arc<Inner>,
    tasks: &mut JoinSet<()>,
    running: &mut Vec<Weak<Inner>>,
    ways: &Arc<Ways>,
    stop: &CancellationToken,
) {
    running.retain(|inner| inner.strong_count() > 0);
    running.push(Arc::downgrade(&inner));
    tasks.spawn(empty(inner, ways.clone(), stop.clone()));
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a log queue ended with a panic");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
