//! The database: control planes, their entities, and who may connect to them.
//!
//! [`Store`] is the whole interface. It speaks in the words of the domain and shows nothing of the
//! engine, which is SQLite in the process: one writer thread, several readers, every write one
//! durable transaction with its row in the change log. An error from a write means "unknown",
//! never "not written"; every write may be sent again.

mod certificates;
mod control_planes;
mod entities;
mod error;
mod identity;
mod nodes;
mod sqlite;

use std::path::Path;
use std::sync::Arc;

pub use certificates::{Certificate, NewCertificate};
pub use control_planes::{
    AuthType, ClusterType, ControlPlane, ControlPlaneUpdate, NewControlPlane, ProxyUrl,
};
pub use entities::{
    Actor, Change, Deleted, IfExists, ListQuery, OnDelete, Page, Put, Reference, Snapshot, Stored,
    Tags,
};
pub use error::{OpenError, StorageFailure, StoreError};
pub use identity::{NewOrganization, NewToken, Organization, Token, User};
pub use nodes::{Node, NodeSeen, SyncStatus};
pub use sqlite::{Head, Heads};

/// A handle to the database; clones are cheap and share it.
///
/// When the last clone is dropped the writer finishes what it has and the files are closed.
#[derive(Clone)]
pub struct Store {
    engine: Arc<sqlite::Engine>,
}

impl Store {
    /// Opens the database file at `path`, makes it if it is not there, and brings its schema up to
    /// date.
    ///
    /// Must be called inside a tokio runtime or before one; it blocks for the time of a migration.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if another process has it, [`OpenError::TooNew`] if a newer build
    /// wrote it.
    pub fn open(path: &Path) -> Result<Store, OpenError> {
        Ok(Store {
            engine: Arc::new(sqlite::Engine::open(path)?),
        })
    }

    /// Waits until every write that was handed in is done, then closes the files.
    ///
    /// Every later call on any clone answers with a [`StorageFailure::Closed`].
    pub async fn close(&self) {
        self.engine.close().await;
    }

    /// The newest heads of every control plane, as they change.
    ///
    /// These are hints: several changes may be seen as one, and a reader takes the truth from
    /// [`Store::snapshot`].
    pub fn watch(&self) -> tokio::sync::watch::Receiver<Heads> {
        self.engine.watch()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}
