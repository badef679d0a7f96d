//! The one thread that writes. It puts together what came within a moment, stores it, and only then
//! says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sallyport_wire::telemetry::{Batch, BatchId};
use tokio::sync::oneshot;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::export::Feed;
use super::rollup::{Entry, Rollup, count};
use super::{Added, Counters, Failure};

/// How long the writer waits for more, to store it together.
const GATHER: Duration = Duration::from_millis(200);
/// Batches stored together.
const BATCHES_MAX: usize = 512;
/// How often what is too old is let go.
const TIDY: Duration = Duration::from_secs(60);

/// A batch that waits to be stored.
pub(super) struct Job {
    pub(super) control_plane: Uuid,
    pub(super) id: BatchId,
    pub(super) batch: Batch,
    pub(super) done: oneshot::Sender<Result<Taken, Failure>>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Stored,
    /// It was stored before.
    Known,
}

pub(super) struct Writer {
    rollup: Rollup,
    feeds: Vec<Feed>,
    counters: Arc<Counters>,
    failing: bool,
}

impl Writer {
    pub(super) fn new(rollup: Rollup, feeds: Vec<Feed>, counters: Arc<Counters>) -> Writer {
        Writer {
            rollup,
            feeds,
            counters,
            failing: false,
        }
    }

    /// Stores what comes until nobody can hand in more.
    pub(super) fn work(mut self, jobs: &Receiver<Job>) {
        let mut tidied: Option<Instant> = None;
        loop {
            match jobs.recv_timeout(Duration::from_secs(1)) {
                Ok(first) => {
                    let all = gather(first, jobs);
                    if catch_unwind(AssertUnwindSafe(|| self.store(all))).is_err() {
                        error!("storing telemetry panicked");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if tidied.is_none_or(|at| at.elapsed() >= TIDY) {
                tidied = Some(Instant::now());
                if let Err(error) = self.rollup.tidy(now()) {
                    warn!(%error, "old telemetry could not be let go");
                }
            }
        }
        if let Err(error) = self.rollup.close() {
            warn!(%error, "could not fold the telemetry's write-ahead log into its file");
        }
    }

    fn store(&mut self, jobs: Vec<Job>) {
        let entry = |job: &Job| (job.control_plane, job.id);
        let entries: Vec<Entry<'_>> = jobs
            .iter()
            .map(|job| Entry {
                control_plane: entry(job).0,
                id: entry(job).1,
                batch: &job.batch,
            })
            .collect();
        let stored = self.rollup.add(&entries, now());
        let counters = &self.counters;
        match stored {
            Err(error) => {
                count(&counters.commits_failed, 1);
                if !std::mem::replace(&mut self.failing, true) {
                    error!(%error, "telemetry cannot be stored; gateways keep it");
                }
                for job in jobs {
                    _ = job.done.send(Err(Failure::Engine(error.to_string())));
                }
            }
            Ok(new) => {
                if std::mem::take(&mut self.failing) {
                    info!("telemetry is stored again");
                }
                let mut added = Vec::new();
                for (job, new) in jobs.into_iter().zip(new) {
                    let taken = match new {
                        true => Taken::Stored,
                        false => Taken::Known,
                    };
                    if new {
                        count(&counters.batches, 1);
                        count(&counters.records, job.batch.records.len());
                        count(&counters.gateway_dropped, job.batch.dropped as usize);
                        if !self.feeds.is_empty() {
                            let records = job.batch.records.into_iter();
                            added.extend(records.map(|record| (job.control_plane, record)));
                        }
                    } else {
                        count(&counters.duplicates, 1);
                    }
                    // a gateway that went away sends it again, and learns it then
                    _ = job.done.send(Ok(taken));
                }
                let added: Added = Arc::new(added);
                if !added.is_empty() {
                    self.feeds.iter().for_each(|feed| feed.add(&added));
                }
            }
        }
    }
}

/// What comes within a moment after the first.
fn gather(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let until = Instant::now() + GATHER;
    let mut all = vec![first];
    while all.len() < BATCHES_MAX {
        match jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(job) => all.push(job),
            Err(_) => break,
        }
    }
    all
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
