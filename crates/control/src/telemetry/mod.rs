//! `telemetry`: what data planes report about requests.
//!
//! Gateways send aggregates as OTLP to `<prefix>.<geo>.tp0.<base>` ([`serve`]). They are folded into
//! minutes and hours in a database file of their own ([`Telemetry`]), from where the console reads
//! them (`api`), and pushed on to Prometheus and OpenTelemetry collectors (`export`). What enterprise
//! gateways send by WebSocket has no public format: it is taken and thrown away (`discard`).
//! docs/telemetry.md has formats and promises.

mod api;
mod database;
mod discard;
mod export;
mod query;
mod receive;
mod rollup;
mod settings;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use axum::extract::FromRef;
use rusqlite::Connection;
use sallyport_plugins::metrics::{Exposition, Family, Kind};
use sallyport_runtime::Tasks;
use sallyport_store::Store;
use sallyport_wire::telemetry::{Batch, BatchId, Record};
use tokio::sync::{Semaphore, oneshot};
use tracing::error;
use uuid::Uuid;

pub(crate) use api::routes;
pub(crate) use receive::serve;
pub use settings::{TelemetryError, TelemetrySettings};

use crate::app::App;
use rollup::Rollup;
use writer::{Job, Taken, Writer};

/// Batches that wait for the writer; gateways keep what comes then, and try again.
const QUEUE_MAX: usize = 1_024;
/// Requests of gateways whose bodies are read at one time.
const BODIES_MAX: usize = 64;

/// What was added, for those who push it on.
type Added = Arc<Vec<(Uuid, Record)>>;

/// Counts of what came and went.
#[derive(Default)]
struct Counters {
    batches: AtomicU64,
    duplicates: AtomicU64,
    records: AtomicU64,
    /// Records that went to the overflow series for want of room.
    overflowed: AtomicU64,
    /// Records that are older than anything that is kept.
    late: AtomicU64,
    refused: AtomicU64,
    postponed: AtomicU64,
    commits_failed: AtomicU64,
    /// Requests that gateways say they dropped.
    gateway_dropped: AtomicU64,
    series: AtomicU64,
    discarded_frames: AtomicU64,
}

/// The telemetry of this installation; clones are handles to the same.
#[derive(Clone)]
pub(crate) struct Telemetry(Arc<Inner>);

struct Inner {
    queue: Mutex<Option<SyncSender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    reader: Mutex<Connection>,
    counters: Arc<Counters>,
    exports: Vec<Arc<export::Counters>>,
    bodies: Semaphore,
}

impl FromRef<App> for Telemetry {
    fn from_ref(app: &App) -> Telemetry {
        app.telemetry.clone()
    }
}

/// Why something was not stored or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("too much telemetry at once")]
    Busy,
    #[error("the control plane is stopping")]
    Closed,
    #[error(
        "the query covers {0}; a shorter time, more filters or fewer dimensions make it smaller"
    )]
    TooMuch(String),
    #[error("the telemetry database: {0}")]
    Engine(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Engine(error.to_string())
    }
}

impl Telemetry {
    /// Opens the database and starts what works on it.
    pub(crate) fn start(
        settings: TelemetrySettings,
        store: &Store,
        tasks: &mut Tasks,
    ) -> Result<Telemetry, TelemetryError> {
        let path: PathBuf = settings.directory.join("telemetry.db");
        let bad = |error: rusqlite::Error| TelemetryError::Database {
            path: path.clone(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(&settings.directory).map_err(|error| TelemetryError::Database {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let conn = database::open(&path).map_err(bad)?;
        let reader = database::open_to_read(&path).map_err(bad)?;
        let counters: Arc<Counters> = Arc::default();
        let rollup = Rollup::new(conn, settings.keep, Arc::clone(&counters)).map_err(bad)?;
        let mut feeds = Vec::new();
        let mut exports = Vec::new();
        for destination in settings.destinations {
            let (feed, exporter) = export::Exporter::new(destination, store.clone());
            exports.push(exporter.counters());
            feeds.push(feed);
            tasks.spawn("telemetry.export", |stop| exporter.run(stop));
        }
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let writer = Writer::new(rollup, feeds, Arc::clone(&counters));
        let thread = std::thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(move || writer.work(&jobs))
            .map_err(|error| TelemetryError::Database {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        Ok(Telemetry(Arc::new(Inner {
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(thread)),
            reader: Mutex::new(reader),
            counters,
            exports,
            bodies: Semaphore::new(BODIES_MAX),
        })))
    }

    /// Adds a batch of a gateway of this control plane. When this returns it survives the end of the
    /// process, and is known if it comes again.
    pub(crate) async fn add(
        &self,
        control_plane: Uuid,
        id: BatchId,
        batch: Batch,
    ) -> Result<Taken, Failure> {
        let (done, wait) = oneshot::channel();
        let job = Job {
            control_plane,
            id,
            batch,
            done,
        };
        let queue = self.queue().ok_or(Failure::Closed)?;
        match queue.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Failure::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(Failure::Closed),
        }
        drop(queue);
        wait.await.unwrap_or(Err(Failure::Closed))
    }

    fn queue(&self) -> Option<SyncSender<Job>> {
        let queue = self.0.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a query.
    async fn read<T: Send + 'static>(
        &self,
        op: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let inner = Arc::clone(&self.0);
        let read = move || {
            let conn = inner.reader.lock().unwrap_or_else(PoisonError::into_inner);
            op(&conn)
        };
        let joined = tokio::task::spawn_blocking(read).await;
        joined.unwrap_or_else(|error| Err(Failure::Engine(error.to_string())))
    }

    /// Stores what waits, and closes the database.
    pub(crate) async fn close(&self) {
        let inner = Arc::clone(&self.0);
        let closed = tokio::task::spawn_blocking(move || inner.end_writer()).await;
        if let Err(error) = closed {
            error!(%error, "the telemetry database did not close");
        }
    }

    /// Writes the metrics of this room.
    pub(crate) fn metrics(&self, out: &mut Exposition) {
        let counters = &self.0.counters;
        for (family, value) in [
            (&BATCHES, &counters.batches),
            (&DUPLICATES, &counters.duplicates),
            (&RECORDS, &counters.records),
            (&OVERFLOWED, &counters.overflowed),
            (&LATE, &counters.late),
            (&REFUSED, &counters.refused),
            (&POSTPONED, &counters.postponed),
            (&COMMITS_FAILED, &counters.commits_failed),
            (&GATEWAY_DROPPED, &counters.gateway_dropped),
            (&SERIES, &counters.series),
            (&DISCARDED, &counters.discarded_frames),
        ] {
            out.value(family, &[], load(value));
        }
        export::metrics(&self.0.exports, out);
    }
}

fn load(counter: &AtomicU64) -> f64 {
    counter.load(std::sync::atomic::Ordering::Relaxed) as f64
}

impl Inner {
    fn end_writer(&self) {
        let queue = self.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.writer.lock();
        let writer = writer.unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            error!("the telemetry writer ended with a panic");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end_writer();
    }
}

const fn family(name: &'static str, help: &'static str, kind: Kind) -> Family {
    Family {
        name,
        help,
        kind,
        labels: &[],
    }
}

static BATCHES: Family = family(
    "sallyport_telemetry_batches_total",
    "Batches of gateways that were stored",
    Kind::Counter,
);
static DUPLICATES: Family = family(
    "sallyport_telemetry_duplicate_batches_total",
    "Batches that came again after they had been stored; they count once",
    Kind::Counter,
);
static RECORDS: Family = family(
    "sallyport_telemetry_records_total",
    "Records in the batches that were stored",
    Kind::Counter,
);
static OVERFLOWED: Family = family(
    "sallyport_telemetry_overflow_records_total",
    "Records counted in the overflow series, as a control plane has too many",
    Kind::Counter,
);
static LATE: Family = family(
    "sallyport_telemetry_late_records_total",
    "Records older than anything that is kept, which were not stored",
    Kind::Counter,
);
static REFUSED: Family = family(
    "sallyport_telemetry_refused_batches_total",
    "Requests of gateways that were no telemetry",
    Kind::Counter,
);
static POSTPONED: Family = family(
    "sallyport_telemetry_postponed_batches_total",
    "Batches that gateways were told to send again later",
    Kind::Counter,
);
static COMMITS_FAILED: Family = family(
    "sallyport_telemetry_commits_failed_total",
    "Writes to the telemetry database that failed",
    Kind::Counter,
);
static GATEWAY_DROPPED: Family = family(
    "sallyport_telemetry_gateway_dropped_requests_total",
    "Requests that gateways gave up telling of",
    Kind::Counter,
);
static SERIES: Family = family(
    "sallyport_telemetry_series",
    "Combinations of service, route, consumer, status class and upstream that are known",
    Kind::Gauge,
);
static DISCARDED: Family = family(
    "sallyport_telemetry_discarded_frames_total",
    "Frames of enterprise gateways' analytics that were thrown away",
    Kind::Counter,
);
