//! What can go wrong, in words that name the thing.

use std::io;
use std::path::PathBuf;

use sallyport_model::Kind;
use uuid::Uuid;

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory of it could not be made or read.
    #[error("could not open the database {}", path.display())]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "the database {} is in use by another process; stop that one or choose another data directory",
        path.display()
    )]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// A newer build wrote it.
    #[error(
        "the database {} has schema version {found}, this build knows up to {known}; \
         start the newer build that wrote it, or restore a backup",
        path.display()
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version of this build.
        known: i64,
    },
    /// The engine refused it.
    #[error("the database {} cannot be used: {detail}", path.display())]
    Engine {
        /// The database file.
        path: PathBuf,
        /// What the engine said.
        detail: String,
    },
}

/// Why an operation was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another object has this value in a field that is unique.
    #[error("{field} {value:?} is taken")]
    UniqueTaken {
        /// The field or, for several fields together, their names joined by `,`.
        field: String,
        /// The value that clashed.
        value: String,
    },
    /// A reference points at nothing in this control plane.
    #[error("{field} refers to {kind} {id}, which does not exist")]
    ForeignMissing {
        /// The field that refers.
        field: String,
        /// What it refers to.
        kind: Kind,
        /// The id that is not there.
        id: Uuid,
    },
    /// Another entity refers to it and must go first.
    #[error("{by} {id} still refers to it")]
    StillReferenced {
        /// The kind of one entity that refers to it.
        by: Kind,
        /// The id of that entity.
        id: Uuid,
    },
    /// The object is not there.
    #[error("not found")]
    NotFound,
    /// The control plane is not there.
    #[error("control plane {0} does not exist")]
    NoControlPlane(Uuid),
    /// A page token that this store did not make.
    #[error("the offset is not one that a previous page gave")]
    BadOffset,
    /// The engine failed; a write may or may not have happened.
    #[error(transparent)]
    Storage(#[from] StorageFailure),
}

/// A failure of the engine below, not of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageFailure {
    /// There is no room for the write.
    #[error("the disk of the database is full")]
    Full,
    /// The store was closed.
    #[error("the database is closed")]
    Closed,
    /// Anything else the engine said.
    #[error("the database failed: {0}")]
    Engine(String),
}
