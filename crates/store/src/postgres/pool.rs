//! Connections that wait for an operation.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::dial::Dialler;
use super::session::{Mode, Session};
use crate::{OpenError, StorageFailure, StoreError};

/// At most so many connections as operations may run at once; they are made when they are needed.
pub(super) struct Pool {
    dialler: Arc<Dialler>,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
    size: usize,
}

impl Pool {
    pub(super) fn new(dialler: Arc<Dialler>, size: usize) -> Pool {
        Pool {
            dialler,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(size),
            size,
        }
    }

    /// The right to one connection.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let permit = self.permits.acquire().await;
        permit.map_err(|_| StorageFailure::Closed.into())
    }

    /// A connection with a transaction that begins with its first statement.
    pub(super) async fn take(&self, mode: Mode) -> Result<Session, StoreError> {
        let idle = loop {
            let next = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            match next {
                // A server that restarted has closed its connections meanwhile.
                Some(session) if !session.is_usable() => {}
                other => break other,
            }
        };
        let mut session = match idle {
            Some(session) => session,
            None => self.dialler.connect().await.map_err(unavailable)?,
        };
        session.begin(mode);
        Ok(session)
    }

    /// Takes a connection back, unless its transaction did not end well.
    pub(super) fn give(&self, session: Session) {
        if session.is_usable() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(session);
        }
    }

    /// Waits for running operations, refuses later ones, closes the connections.
    pub(super) async fn close(&self) {
        let size = u32::try_from(self.size).unwrap_or(u32::MAX);
        if let Ok(all) = self.permits.acquire_many(size).await {
            self.permits.close();
            drop(all);
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clear();
    }
}

fn unavailable(error: OpenError) -> StoreError {
    StorageFailure::Unavailable(error.to_string()).into()
}
