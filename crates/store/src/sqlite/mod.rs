//! The engine in the process: SQLite with one writer thread and several readers.
//!
//! WAL with `synchronous=FULL`: a commit that was answered survives the loss of power. One writer
//! ends "database is locked" before it begins; readers see the last commit and never wait for it.

pub(crate) mod certificates;
pub(crate) mod change_log;
pub(crate) mod control_planes;
pub(crate) mod delete;
pub(crate) mod entities;
pub(crate) mod identity;
pub(crate) mod list;
mod migrations;
pub(crate) mod nodes;
mod readers;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use self::readers::Readers;
use crate::{OpenError, StorageFailure, StoreError};

/// Writes that may wait for the writer; more callers wait to hand theirs in.
const QUEUE_MAX: usize = 256;

/// Where a control plane stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Grows with every change of an entity.
    pub revision: u64,
    /// Grows with every change of who may connect: certificates and the way they are checked.
    pub trust: u64,
}

/// Where every control plane stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads(BTreeMap<Uuid, Head>);

impl Heads {
    /// Where this control plane stands; `None` if it does not exist.
    pub fn get(&self, cp: Uuid) -> Option<Head> {
        self.0.get(&cp).copied()
    }
}

/// Why an operation inside a transaction ended; [`Engine`] turns it into a [`StoreError`].
#[derive(Debug)]
pub(crate) enum Fail {
    Refused(StoreError),
    Engine(rusqlite::Error),
}

pub(crate) type Outcome<T> = Result<T, Fail>;

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Fail {
        Fail::Refused(error)
    }
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Fail {
        Fail::Engine(error)
    }
}

impl From<Fail> for StoreError {
    fn from(fail: Fail) -> StoreError {
        let error = match fail {
            Fail::Refused(error) => return error,
            Fail::Engine(error) => error,
        };
        let full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        let failure = if full {
            StorageFailure::Full
        } else {
            StorageFailure::Engine(error.to_string())
        };
        StoreError::Storage(failure)
    }
}

/// A write transaction and what it will tell watchers once it is committed.
pub(crate) struct WriteTx<'c> {
    tx: Transaction<'c>,
    heads: Vec<(Uuid, Option<Head>)>,
    /// The moment of the transaction, Unix microseconds.
    pub(crate) now_us: i64,
}

impl WriteTx<'_> {
    pub(crate) fn now_ms(&self) -> i64 {
        self.now_us / 1_000
    }

    /// Tells watchers where a control plane stands, or that it is gone.
    pub(crate) fn announce(&mut self, cp: Uuid, head: Option<Head>) {
        self.heads.push((cp, head));
    }
}

impl<'c> Deref for WriteTx<'c> {
    type Target = Transaction<'c>;

    fn deref(&self) -> &Transaction<'c> {
        &self.tx
    }
}

type Job = Box<dyn FnOnce(&mut Connection, &watch::Sender<Heads>) + Send>;

/// The writer thread, the readers and the lock on the file.
pub(crate) struct Engine {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Readers>,
    heads: watch::Receiver<Heads>,
    lock: Mutex<Option<File>>,
}

impl Engine {
    pub(crate) fn open(path: &Path) -> Result<Engine, OpenError> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(|source| io(dir, source))?;
        }
        let lock = lock(path)?;
        let engine = |error: rusqlite::Error| OpenError::Engine {
            path: path.to_owned(),
            detail: error.to_string(),
        };
        private_file(path).map_err(|source| io(path, source))?;
        let mut conn = Connection::open(path).map_err(engine)?;
        prepare(&conn).map_err(engine)?;
        migrations::migrate(&mut conn, path)?;
        let (heads_tx, heads) =
            watch::channel(Heads(control_planes::heads(&conn).map_err(engine)?));
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || work(conn, queue, &heads_tx))
            .map_err(|source| io(path, source))?;
        Ok(Engine {
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(writer)),
            readers: Arc::new(Readers::new(path.to_owned())),
            heads,
            lock: Mutex::new(Some(lock)),
        })
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Heads> {
        self.heads.clone()
    }

    /// Runs `op` in a write transaction; commits if it succeeds, undoes everything otherwise.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        op: impl FnOnce(&mut WriteTx<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |conn, heads| {
            // Nobody waits any more if the caller was cancelled; the write stands all the same.
            let _ = answer.send(transact(conn, heads, op));
        });
        let jobs = self
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let jobs = jobs.ok_or(StorageFailure::Closed)?;
        jobs.send(job).await.map_err(|_| StorageFailure::Closed)?;
        drop(jobs);
        match wait.await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(StorageFailure::Engine("the write was abandoned".to_owned()).into()),
        }
    }

    /// Runs `op` in a read transaction on one of the readers.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        op: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Readers::read(&self.readers, op).await
    }

    pub(crate) async fn close(&self) {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.readers.close().await;
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the database writer ended with a panic");
            }
        }
        self.lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the database writer ended with a panic");
        }
    }
}

/// The writer thread: one job after the other until every sender is gone.
fn work(mut conn: Connection, mut queue: mpsc::Receiver<Job>, heads: &watch::Sender<Heads>) {
    while let Some(job) = queue.blocking_recv() {
        // A panic is a bug in one operation: its transaction is undone, the others go on.
        if catch_unwind(AssertUnwindSafe(|| job(&mut conn, heads))).is_err() {
            tracing::error!("a database write panicked and was undone");
        }
    }
    if let Err(error) = conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "could not fold the write-ahead log into the database");
    }
}

fn transact<T>(
    conn: &mut Connection,
    heads: &watch::Sender<Heads>,
    op: impl FnOnce(&mut WriteTx<'_>) -> Outcome<T>,
) -> Outcome<T> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut tx = WriteTx {
        tx,
        heads: Vec::new(),
        now_us: now_us(),
    };
    let value = op(&mut tx)?;
    let WriteTx {
        tx,
        heads: announced,
        ..
    } = tx;
    tx.commit()?;
    if !announced.is_empty() {
        heads.send_modify(|heads| {
            for (cp, head) in announced {
                match head {
                    Some(head) => heads.0.insert(cp, head),
                    None => heads.0.remove(&cp),
                };
            }
        });
    }
    Ok(value)
}

fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", "ON")?;
    conn.pragma_update(None, "cache_size", -64 * 1024)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(128);
    Ok(())
}

/// A connection that can only read.
fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.pragma_update(None, "cache_size", -16 * 1024)?;
    conn.pragma_update(None, "mmap_size", 256 * 1024 * 1024)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Opens a file, or makes it so that only its owner can read it: keys of consumers are in it.
/// SQLite gives its other files the same permissions.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Takes the lock that keeps a second process out; watchers would not hear of its writes.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = private_file(&name).map_err(|source| io(&name, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io(&name, source)),
    }
}

fn io(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        source,
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A stored id; other text in that column means that the file was changed by hand.
fn uuid(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let bytes: Vec<u8> = row.get(column)?;
    Uuid::from_slice(&bytes).map_err(|error| damaged(column, error))
}

/// A stored JSON text.
fn json<T: serde::de::DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| damaged(column, error))?;
    serde_json::from_str(text).map_err(|error| damaged(column, error))
}

fn damaged(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain values with string keys are always JSON")
}

/// SQLite integers are signed; revisions count single changes and never reach the sign.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
