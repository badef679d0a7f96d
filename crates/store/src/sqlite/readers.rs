//! The reading connections.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::{connection, now, reader};
use crate::sql::{Conn, Fail, Op, Outcome, Tx};
use crate::{StorageFailure, StoreError};

/// Reads that run at once; more wait.
const READERS: u32 = 4;

/// Connections that wait for a read.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Tx>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Readers {
        let permits = Arc::new(Semaphore::new(READERS as usize));
        Readers {
            path,
            idle: Mutex::new(Vec::new()),
            permits,
        }
    }

    /// Runs `op` on a blocking thread in one read transaction.
    pub(super) async fn read<T: Send + 'static>(
        readers: &Arc<Readers>,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&readers.permits)
            .acquire_owned()
            .await
            .map_err(|_| StorageFailure::Closed)?;
        let readers = Arc::clone(readers);
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut tx = readers.take()?;
            tx.reset();
            connection(&tx).execute_batch("BEGIN")?;
            let outcome = now(op(&mut tx));
            // One that does not end its transaction is not used again.
            if connection(&tx).execute_batch("COMMIT").is_ok() {
                readers.give(tx);
            }
            outcome
        });
        match read.await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(StorageFailure::Engine("the read was abandoned".to_owned()).into()),
        }
    }

    /// Runs `op` here and now, its statements by themselves and not in one transaction; gives it
    /// back if every reader is at work.
    pub(super) fn at_once<T, F>(&self, op: F) -> Result<Outcome<T>, F>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> Op<'t, T>,
    {
        let Ok(_permit) = self.permits.try_acquire() else {
            return Err(op);
        };
        let mut tx = match self.take() {
            Ok(tx) => tx,
            Err(fail) => return Ok(Err(fail)),
        };
        tx.reset();
        let outcome = now(op(&mut tx));
        self.give(tx);
        Ok(outcome)
    }

    fn give(&self, tx: Tx) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(tx);
    }

    fn take(&self) -> Outcome<Tx> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let open = || reader(&self.path).map(|conn| Tx::new(Conn::Sqlite(conn)));
        idle.map_or_else(|| open().map_err(Fail::Sqlite), Ok)
    }

    /// Waits for running reads, refuses later ones, closes the connections.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(READERS).await {
            self.permits.close();
            drop(all);
        }
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
