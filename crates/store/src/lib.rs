//! The database: control planes, their entities, and who may connect to them.
//!
//! [`Store`] is the whole interface. It speaks in the words of the domain and shows nothing of the
//! two engines below: SQLite in the process, and PostgreSQL for control planes of several
//! processes. What each operation does is written once, in `sql`, and one suite of tests runs
//! against both. Every write is one durable transaction with its rows in the change log. An error
//! from a write means "unknown", never "not written"; every write may be sent again.

mod around;
mod certificates;
mod cluster;
mod control_planes;
mod drafts;
pub mod dump;
mod engine;
mod enrolment;
mod entities;
mod error;
mod groups;
mod heads;
mod identity;
mod ip_addresses;
mod kic;
mod nodes;
mod postgres;
mod sql;
mod sqlite;
mod teams;
mod tokens;
mod versions;

use std::path::Path;
use std::sync::Arc;

pub use around::Around;
pub use certificates::{Certificate, NewCertificate};
pub use cluster::{
    Admission, CliKey, Cluster, Lease, Member, NewCluster, NewMember, NodeRole, Roster, Step,
    Wanted,
};
pub use control_planes::{
    AuthType, ClusterType, ControlPlane, ControlPlaneUpdate, NewControlPlane, ProxyUrl,
};
pub use drafts::Draft;
use engine::{Engine, On};
pub use enrolment::{EnrolmentToken, NewEnrolmentToken};
pub use entities::{
    Actor, Change, Deleted, IfExists, ListQuery, OnDelete, Page, Put, Reference, Snapshot, Stored,
    Tags,
};
pub use error::{ClusterRefusal, OpenError, StorageFailure, StoreError};
pub use groups::{Conflict, Members, Together};
pub use heads::{Head, Heads};
pub use identity::{NewOrganization, Organization, User, UserUpdate};
pub use ip_addresses::{IpAddresses, IpAddressesKey};
pub use kic::{KIC_NODES_MAX, KicNode};
pub use nodes::{Node, NodeSeen, SyncStatus};
pub use teams::{AssignedRole, Holder, NameUpdate, NewRole, SystemAccount, Team};
pub use tokens::{Bearer, NewToken, Owner, Token};
pub use versions::{Applied, Difference, Past, Version, Write};

/// A handle to the database; clones are cheap and share it.
///
/// When the last clone is dropped the writer finishes what it has and files are closed.
#[derive(Clone)]
pub struct Store {
    engine: Arc<Engine>,
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
        let engine = Engine::new(On::Sqlite(sqlite::Engine::open(path)?));
        Ok(Store {
            engine: Arc::new(engine),
        })
    }

    /// Connects to the PostgreSQL database at a URL `postgres://…`, and brings its schema up to
    /// date. Other processes may be connected to it.
    ///
    /// The URL is that of libpq, with several hosts if there are, `target_session_attrs`,
    /// `sslmode`, `sslrootcert`, `sslcert` and `sslkey`. See `docs/database.md`.
    ///
    /// # Errors
    /// [`OpenError::Address`], [`OpenError::Unreachable`], [`OpenError::LogIn`],
    /// [`OpenError::TooNew`] if a newer build wrote it. None shows the password.
    pub async fn connect(url: &str) -> Result<Store, OpenError> {
        let engine = Engine::new(On::Postgres(postgres::Engine::connect(url).await?));
        Ok(Store {
            engine: Arc::new(engine),
        })
    }

    /// Waits until every write that was handed in is done, then closes files and connections.
    ///
    /// Every later call on any clone answers with a [`StorageFailure::Closed`].
    pub async fn close(&self) {
        self.engine.close().await;
    }

    /// Whether other processes may write to the same database.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine.on, On::Postgres(_))
    }

    /// Reads and writes that were handed in since this process opened it.
    pub fn operations(&self) -> u64 {
        self.engine.operations()
    }

    /// The newest heads of every control plane, as they change, whoever changed them.
    ///
    /// These are hints: several changes may be seen as one, and a reader takes the truth from
    /// [`Store::snapshot`]. What other processes write is seen within about a second, mostly at
    /// once. A revision never goes back.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<Heads> {
        self.engine.watch()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}
