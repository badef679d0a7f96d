//! The reading connections.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{Fail, Outcome, reader};
use crate::{StorageFailure, StoreError};

/// Reads that run at once; more wait.
const READERS: u32 = 4;

/// Connections that wait for a read.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
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
        op: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&readers.permits)
            .acquire_owned()
            .await
            .map_err(|_| StorageFailure::Closed)?;
        let readers = Arc::clone(readers);
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut conn = readers.take()?;
            let outcome = {
                let tx = conn.transaction()?;
                op(&tx)
            };
            readers
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(conn);
            outcome
        });
        match read.await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(StorageFailure::Engine("the read was abandoned".to_owned()).into()),
        }
    }

    fn take(&self) -> Outcome<Connection> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        idle.map_or_else(|| reader(&self.path).map_err(Fail::Engine), Ok)
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
