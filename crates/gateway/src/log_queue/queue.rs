//! One queue: what requests put in, and the task that takes it out.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_plugins::log_queue::{
    Destination, Limits, LogQueue, Pushed, Queue, QueueSpec, Step, Tries,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::outgoing::{Failure, Outgoing};
use super::{Loss, Ways, lock};

/// Entries under way beside each other, where the configuration wants no limit.
const CONCURRENT_MAX: usize = 64;
/// Part of a queue that is full when a warning is due. Source: Kong's queue.
const FILLING: f64 = 0.8;

/// A queue, shared by those who put in and its task.
pub(super) struct Inner {
    plugin: &'static str,
    state: Mutex<State>,
    wake: Notify,
    ways: Arc<Ways>,
}

struct State {
    queue: Queue,
    destination: Arc<Destination>,
    /// Entries that left the queue and are not sent yet.
    under_way: usize,
    /// Entries that gave way since the sink took the last one.
    dropped: usize,
    /// Whether somebody was told that the queue fills.
    warned: bool,
}

/// What configurations hold. The queue ends once nobody holds it.
pub(super) struct Handle(pub(super) Arc<Inner>);

impl Handle {
    /// Goes on with another configuration.
    pub(super) fn renew(&self, spec: &QueueSpec) {
        let mut state = lock(&self.0.state);
        state.queue.set_limits(spec.limits.clone());
        state.destination = spec.destination.clone();
    }

    /// Entries that are not sent yet.
    pub(super) fn waiting(&self) -> usize {
        let state = lock(&self.0.state);
        state.queue.len() + state.under_way
    }
}

impl LogQueue for Handle {
    fn push(&self, entry: Bytes) {
        self.0.push(entry);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Inner {
    pub(super) fn new(spec: &QueueSpec, ways: Arc<Ways>) -> Inner {
        Inner {
            plugin: spec.plugin,
            state: Mutex::new(State {
                queue: Queue::new(spec.limits.clone()),
                destination: spec.destination.clone(),
                under_way: 0,
                dropped: 0,
                warned: false,
            }),
            wake: Notify::new(),
            ways,
        }
    }

    fn push(&self, entry: Bytes) {
        let mut state = lock(&self.state);
        let bytes = entry.len();
        let pushed = state.queue.push(entry, Instant::now());
        let first = pushed.dropped > 0 && state.dropped == 0;
        state.dropped += pushed.dropped;
        let most = state.queue.limits().entries_max as f64;
        let filling = state.queue.len() as f64 >= most * FILLING;
        let warn = filling && !state.warned && most > 1.0;
        state.warned = filling;
        let sink = (first || warn || pushed.too_large).then(|| state.destination.clone());
        drop(state);
        if pushed.wake {
            self.wake.notify_one();
        }
        if let Some(sink) = sink {
            self.tell(&pushed, first, bytes, &sink);
        } else if pushed.dropped > 0 {
            self.ways.lose(self.plugin, Loss::Full, pushed.dropped);
        }
    }

    fn tell(&self, pushed: &Pushed, first: bool, bytes: usize, sink: &Destination) {
        let plugin = self.plugin;
        if pushed.too_large {
            self.ways.lose(plugin, Loss::TooLarge, 1);
            error!(
                plugin,
                ?sink,
                bytes,
                "an entry is larger than queue.max_bytes and is lost"
            );
        } else if first {
            error!(
                plugin,
                ?sink,
                "log queue full, old entries are dropped until the sink takes some"
            );
        } else {
            warn!(plugin, ?sink, "log queue at 80 % of its capacity");
        }
        if pushed.dropped > 0 {
            self.ways.lose(plugin, Loss::Full, pushed.dropped);
        }
    }

    /// Nothing more is put in.
    fn close(&self) {
        lock(&self.state).queue.close();
        self.wake.notify_one();
    }

    fn step(&self) -> Step {
        let mut state = lock(&self.state);
        let step = state.queue.step(Instant::now());
        if let Step::Send(batch) = &step {
            state.under_way += batch.len();
        }
        step
    }

    fn destination(&self) -> (Arc<Destination>, Limits) {
        let state = lock(&self.state);
        (state.destination.clone(), state.queue.limits().clone())
    }

    /// So many entries were sent or given up.
    fn done(&self, entries: usize, sent: bool) {
        let mut state = lock(&self.state);
        state.under_way -= entries;
        if !sent {
            return;
        }
        let dropped = std::mem::take(&mut state.dropped);
        let sink = (dropped > 0).then(|| state.destination.clone());
        drop(state);
        if let Some(sink) = sink {
            let plugin = self.plugin;
            info!(plugin, ?sink, dropped, "log queue is emptied again");
        }
    }

    /// What is not sent yet is lost.
    pub(super) fn abandon(&self) {
        let state = lock(&self.state);
        let entries = state.queue.len() + state.under_way;
        let sink = state.destination.clone();
        drop(state);
        if entries > 0 {
            self.ways.lose(self.plugin, Loss::Stopped, entries);
            let plugin = self.plugin;
            error!(
                plugin,
                ?sink,
                entries,
                "the gateway stops, entries are lost"
            );
        }
    }
}

/// Empties one queue until it ends. At `stop` nothing more is put in.
pub(super) async fn empty(inner: Arc<Inner>, ways: Arc<Ways>, stop: CancellationToken) {
    let mut outgoing = Outgoing::new(ways.clone());
    // beside each other, if that is wanted
    let mut beside = JoinSet::new();
    let mut stopping = false;
    loop {
        match inner.step() {
            Step::Send(batch) => {
                let (destination, limits) = inner.destination();
                if limits.concurrent {
                    if beside.len() >= CONCURRENT_MAX {
                        report(beside.join_next().await);
                    }
                    let (inner, ways) = (inner.clone(), ways.clone());
                    beside.spawn(async move {
                        let mut outgoing = Outgoing::new(ways);
                        deliver(&inner, &mut outgoing, &destination, &limits, batch).await;
                    });
                } else {
                    deliver(&inner, &mut outgoing, &destination, &limits, batch).await;
                }
            }
            Step::Wait(until) => {
                let due = async {
                    match until {
                        Some(until) => sleep_until(until.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = inner.wake.notified() => {}
                    () = due => {}
                    () = stop.cancelled(), if !stopping => {
                        stopping = true;
                        inner.close();
                    }
                    Some(ended) = beside.join_next() => report(Some(ended)),
                }
            }
            Step::End => break,
        }
    }
    while let Some(ended) = beside.join_next().await {
        report(Some(ended));
    }
}

fn report(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        error!(%error, "sending an entry ended with a panic");
    }
}

/// Sends a batch, again where the limits allow it.
async fn deliver(
    inner: &Inner,
    outgoing: &mut Outgoing,
    destination: &Destination,
    limits: &Limits,
    batch: Vec<Bytes>,
) {
    let (plugin, entries) = (inner.plugin, batch.len());
    let payloads = (destination.encode)(&batch);
    drop(batch);
    let mut tries = Tries::begin(Instant::now());
    let mut failed = false;
    loop {
        let Failure { reason, lost } =
            match outgoing.send(plugin, &destination.sink, &payloads).await {
                Ok(()) => break,
                Err(failure) => failure,
            };
        let Some(pause) = tries.failed(limits, Instant::now()) else {
            let entries_lost = lost.unwrap_or(entries).min(entries);
            inner.ways.lose(plugin, Loss::GivenUp, entries_lost);
            error!(plugin, sink = ?destination, reason, entries = entries_lost, "entries are lost");
            inner.done(entries, false);
            return;
        };
        if !failed {
            warn!(plugin, sink = ?destination, reason, "entries could not be sent, trying again");
            failed = true;
        }
        sleep(pause.max(Duration::from_millis(1))).await;
    }
    if failed {
        info!(plugin, sink = ?destination, "entries are sent again");
    }
    inner.done(entries, true);
}
