//! The log itself: one writer thread, which commits what waits for it together.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use sallyport_wire::audit_log::{Event, What, chain};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

use super::database::{self, Head, Range, Stored};
use super::error::{AuditLogError, LogFailure};
use super::key::{Key, verify};

/// Writes that may wait; more callers wait to hand theirs in.
const QUEUE_MAX: usize = 1024;
/// Records that are committed together.
const BATCH_MAX: usize = 512;

/// The append-only log of who did what. Clones are handles to one log.
#[derive(Clone)]
pub(crate) struct AuditLog(Arc<Inner>);

struct Inner {
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    reader: Mutex<Connection>,
    head: watch::Receiver<u64>,
    key: Arc<Key>,
    /// The last append failed.
    failing: Arc<AtomicBool>,
    /// Events that were not recorded since.
    lost: Arc<AtomicU64>,
    _lock: File,
}

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

enum Job {
    Append {
        events: Vec<Event>,
        done: Option<oneshot::Sender<Result<u64, LogFailure>>>,
    },
    Run(Work),
}

impl AuditLog {
    /// Opens the log in a directory, or makes it there: `audit.db` and `audit_log.key`.
    pub(crate) fn open(directory: &Path) -> Result<AuditLog, AuditLogError> {
        std::fs::create_dir_all(directory).map_err(|it| AuditLogError::io(directory, it))?;
        let path = database_path(directory);
        let engine = |error: rusqlite::Error| AuditLogError::engine(&path, &error);
        let lock = database::lock(&path)?;
        let conn = database::open(&path)?;
        let head = database::head(&conn).map_err(engine)?;
        let key = Arc::new(key_of(directory, &conn, head.seq > 0)?);
        let reader = database::open_to_read(&path).map_err(engine)?;
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let (told, heads) = watch::channel(head.seq);
        let failing = Arc::new(AtomicBool::new(false));
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            conn,
            key: Arc::clone(&key),
            head: Some(head),
            told,
            failing: Arc::clone(&failing),
            lost: Arc::clone(&lost),
        };
        let writer = std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || writer.work(jobs))
            .map_err(|it| AuditLogError::io(&path, it))?;
        Ok(AuditLog(Arc::new(Inner {
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            reader: Mutex::new(reader),
            head: heads,
            key,
            failing,
            lost,
            _lock: lock,
        })))
    }

    pub(crate) fn key(&self) -> &Key {
        &self.0.key
    }

    /// The number of the last record, as it grows.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.head.clone()
    }

    /// Records events; they survive the loss of power when this returns. The last one's number.
    pub(crate) async fn append(&self, events: Vec<Event>) -> Result<u64, LogFailure> {
        self.submit(events).await?.await
    }

    /// Hands events to the writer. From then on they are recorded, whoever waits for it; what this
    /// returns waits, as [`AuditLog::append`] does.
    pub(crate) async fn submit(
        &self,
        events: Vec<Event>,
    ) -> Result<impl Future<Output = Result<u64, LogFailure>> + use<>, LogFailure> {
        let (done, wait) = oneshot::channel();
        let job = Job::Append {
            events,
            done: Some(done),
        };
        let queue = self.queue().ok_or(LogFailure::Closed)?;
        let sent = queue.send(job).await;
        sent.map_err(|_| LogFailure::Closed)?;
        Ok(async { wait.await.unwrap_or(Err(LogFailure::Closed)) })
    }

    /// Records an event without waiting, for who cannot wait. What is lost is counted, and said in
    /// a record of its own when the log is well again.
    pub(crate) fn append_later(&self, event: Event) {
        let job = Job::Append {
            events: vec![event],
            done: None,
        };
        let sent = self.queue().map(|queue| queue.try_send(job));
        if !matches!(sent, Some(Ok(()))) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            self.0.failing.store(true, Ordering::Relaxed);
            error!("an event could not be recorded in the audit log: its queue is full");
        }
    }

    /// Whether changes may go on: the last write succeeded, or one does now.
    pub(crate) async fn ready(&self) -> Result<(), LogFailure> {
        if !self.0.failing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let lost = self.0.lost.swap(0, Ordering::Relaxed);
        let detail = format!("the log could not be written; {lost} events are not in it");
        let event = own("Log.Resumed", 8, detail);
        self.append(vec![event]).await.map(|_| ()).inspect_err(|_| {
            // the writer counted the event above as well, which is none that happened
            self.0.lost.fetch_add(lost, Ordering::Relaxed);
            self.0.lost.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// A page of records.
    pub(crate) async fn records(&self, range: Range) -> Result<Vec<Stored>, LogFailure> {
        self.read(move |conn| database::records(conn, &range)).await
    }

    /// Runs a query.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        op: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogFailure> {
        let inner = Arc::clone(&self.0);
        let read = move || {
            let conn = inner.reader.lock().unwrap_or_else(PoisonError::into_inner);
            op(&conn).map_err(LogFailure::from)
        };
        let joined = tokio::task::spawn_blocking(read).await;
        joined.unwrap_or_else(|error| Err(LogFailure::Engine(error.to_string())))
    }

    /// Runs a write beside the records: destinations and how far they are.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        op: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogFailure> {
        let (done, wait) = oneshot::channel();
        let work: Work = Box::new(move |conn| {
            let run = |conn: &mut Connection| {
                let tx = conn.transaction()?;
                let value = op(&tx)?;
                tx.commit()?;
                Ok(value)
            };
            _ = done.send(run(conn).map_err(|error: rusqlite::Error| LogFailure::from(error)));
        });
        let queue = self.queue().ok_or(LogFailure::Closed)?;
        let sent = queue.send(Job::Run(work)).await;
        sent.map_err(|_| LogFailure::Closed)?;
        wait.await.unwrap_or(Err(LogFailure::Closed))
    }

    /// Writes what waits, and ends the writer.
    pub(crate) async fn close(&self) {
        let inner = Arc::clone(&self.0);
        let closed = tokio::task::spawn_blocking(move || inner.end_writer()).await;
        if let Err(error) = closed {
            error!(%error, "the audit log did not close");
        }
    }

    fn queue(&self) -> Option<mpsc::Sender<Job>> {
        let queue = self.0.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inner {
    fn end_writer(&self) {
        let queue = self.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.writer.lock();
        let writer = writer.unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            error!("the audit log's writer ended with a panic");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end_writer();
    }
}

/// The key of a log, which must be the one that its records were signed with.
fn key_of(directory: &Path, conn: &Connection, has_records: bool) -> Result<Key, AuditLogError> {
    let path = key_path(directory);
    let wrong = |what: &str| AuditLogError::Key {
        path: path.clone(),
        detail: format!("{what}; restore it, or move audit.db away to begin a new log"),
    };
    if has_records && !path.exists() {
        return Err(wrong("it is missing, although the log has records"));
    }
    let key = Key::open(&path)?;
    let database = database_path(directory);
    let said = database::state(conn, "head");
    let said = said.map_err(|error| AuditLogError::engine(&database, &error))?;
    match said.as_deref().and_then(chain::unsigned) {
        Some((text, sig)) if !verify(key.public(), text.as_bytes(), &sig) => {
            Err(wrong("it is not the key that signed the log's records"))
        }
        _ => Ok(key),
    }
}

/// `audit.db` of a data directory.
pub(super) fn database_path(directory: &Path) -> PathBuf {
    directory.join("audit.db")
}

/// `audit_log.key` of a data directory.
pub(super) fn key_path(directory: &Path) -> PathBuf {
    directory.join("audit_log.key")
}

/// An event of the log about itself.
pub(crate) fn own(name: &'static str, severity: u8, detail: impl Into<String>) -> Event {
    event(What::Log {
        name,
        severity,
        detail: detail.into(),
    })
}

/// An event of now that nobody caused yet.
pub(crate) fn event(what: What) -> Event {
    Event {
        at_ms: now_ms(),
        src: None,
        org_id: None,
        principal_id: None,
        principal_name: None,
        actor_id: None,
        trace_id: None,
        user_agent: None,
        what,
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

struct Writer {
    conn: Connection,
    key: Arc<Key>,
    /// `None` after a failure: the file knows whether the commit happened.
    head: Option<Head>,
    told: watch::Sender<u64>,
    failing: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

type Waiting = Vec<oneshot::Sender<Result<u64, LogFailure>>>;

impl Writer {
    fn work(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = jobs.blocking_recv();
        while let Some(job) = next.take() {
            match job {
                Job::Run(work) => {
                    if catch_unwind(AssertUnwindSafe(|| work(&mut self.conn))).is_err() {
                        error!("a write beside the audit log panicked and was undone");
                    }
                }
                Job::Append { events, done } => {
                    let (mut batch, mut waiting) = (events, Vec::from_iter(done));
                    while batch.len() < BATCH_MAX {
                        match jobs.try_recv() {
                            Ok(Job::Append { events, done }) => {
                                batch.extend(events);
                                waiting.extend(done);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append(&batch, waiting);
                }
            }
            if next.is_none() {
                next = jobs.blocking_recv();
            }
        }
        if let Err(error) = self.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            warn!(%error, "could not fold the audit log's write-ahead log into its file");
        }
    }

    fn append(&mut self, batch: &[Event], waiting: Waiting) {
        let written = self.try_append(batch);
        let failing = written.is_err();
        if let Err(error) = &written {
            self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
            error!(%error, events = batch.len(), "the audit log could not be written");
        }
        // who waits for it learns the new head before its own answer
        if let Ok(head) = written {
            self.told.send_replace(head.seq);
        }
        self.failing.store(failing, Ordering::Relaxed);
        for done in waiting {
            _ = done.send(written.clone().map(|head| head.seq));
        }
    }

    fn try_append(&mut self, batch: &[Event]) -> Result<Head, LogFailure> {
        let head = match self.head.take() {
            Some(head) => head,
            None => database::head(&self.conn)?,
        };
        let head = database::append(&mut self.conn, &self.key, head, batch)?;
        self.head = Some(head);
        Ok(head)
    }
}
