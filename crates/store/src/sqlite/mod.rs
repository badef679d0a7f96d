//! The engine in the process: SQLite with one writer thread and several readers.
//!
//! WAL with `synchronous=FULL`: a commit that was answered survives the loss of power. One writer
//! ends "database is locked" before it begins; readers see the last commit and never wait for it.

pub(crate) mod migrations;
mod readers;
mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot, watch};

use self::readers::Readers;
use self::writer::Job;
use crate::sql::{Conn, Op, Tx, control_planes};
use crate::{Heads, OpenError, StorageFailure, StoreError};

/// Writes that may wait for the writer; more callers wait to hand theirs in.
const QUEUE_MAX: usize = 256;

/// What an error of SQLite means for the caller.
pub(crate) fn failure(error: &rusqlite::Error) -> StorageFailure {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StorageFailure::Full,
        _ => StorageFailure::Engine(error.to_string()),
    }
}

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
        let database = path.display().to_string();
        let engine = |error: rusqlite::Error| OpenError::Engine {
            database: database.clone(),
            detail: error.to_string(),
        };
        private_file(path).map_err(|source| io(path, source))?;
        let mut conn = Connection::open(path).map_err(engine)?;
        prepare(&conn).map_err(engine)?;
        migrations::migrate(&mut conn, &database)?;
        let mut tx = Tx::new(Conn::Sqlite(conn));
        let known = now(control_planes::heads(&mut tx)).map_err(|fail| OpenError::Engine {
            database,
            detail: StoreError::from(fail).to_string(),
        })?;
        let (heads_tx, heads) = watch::channel(Heads(known));
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::work(tx, queue, &heads_tx))
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

    /// Runs `op` in a write transaction, together with others that wait; commits if it succeeds,
    /// undoes what it wrote otherwise.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = oneshot::channel();
        let job = writer::job(answer, op);
        let jobs = self
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let jobs = jobs.ok_or(StorageFailure::Closed)?;
        jobs.send(job).await.map_err(|_| StorageFailure::Closed)?;
        drop(jobs);
        match wait.await {
            Ok(outcome) => outcome,
            Err(_) => Err(StorageFailure::Engine("the write was abandoned".to_owned()).into()),
        }
    }

    /// Runs `op` in a read transaction on one of the readers.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Readers::read(&self.readers, op).await
    }

    /// Runs `op` on the caller's thread if a reader is free: it is over sooner than another thread
    /// would begin.
    pub(crate) async fn glance<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.readers.at_once(op) {
            Ok(outcome) => Ok(outcome?),
            Err(op) => Readers::read(&self.readers, op).await,
        }
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

/// The connection of a transaction of this engine.
fn connection(tx: &Tx) -> &Connection {
    match &tx.conn {
        Conn::Sqlite(conn) => conn,
        Conn::Postgres(_) => unreachable!("this engine makes transactions on SQLite only"),
    }
}

/// Runs an operation to its end: on SQLite it has nothing to wait for.
fn now<T>(op: impl Future<Output = T>) -> T {
    match pin!(op).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("operations wait only for statements, SQLite runs them here"),
    }
}

fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", "ON")?;
    conn.pragma_update(None, "cache_size", -64 * 1024)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(128);
    keep_plans(conn)
}

/// Without this SQLite makes the plan of a join anew each time that an argument of it is bound,
/// although nothing here is planned by the value of an argument.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// A connection that can only read.
pub(crate) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.pragma_update(None, "cache_size", -16 * 1024)?;
    conn.pragma_update(None, "mmap_size", 256 * 1024 * 1024)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(64);
    keep_plans(&conn)?;
    Ok(conn)
}

/// Opens a file, or makes it so that only its owner can read it: keys of consumers are in it.
/// SQLite gives its other files the same permissions.
pub(crate) fn private_file(path: &Path) -> std::io::Result<File> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_of_a_join_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.sqlite");
        drop(Engine::open(&path).unwrap());
        let conn = reader(&path).unwrap();
        let sql = "SELECT 1 FROM cp_head h JOIN control_plane p ON p.cp = h.cp WHERE p.id = ?1";
        let mut statement = conn.prepare(sql).unwrap();
        for id in 0..3 {
            assert!(!statement.exists([id]).unwrap());
        }
        let made_again = statement.get_status(rusqlite::StatementStatus::RePrepare);
        assert_eq!(made_again, 0);
    }
}
