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
        "the database {database} has schema version {found}, this build knows up to {known}; \
         start the newer build that wrote it, or restore a backup"
    )]
    TooNew {
        /// The file, or host and name of the database.
        database: String,
        /// The version in it.
        found: i64,
        /// The newest version of this build.
        known: i64,
    },
    /// The engine refused it.
    #[error("the database {database} cannot be used: {detail}")]
    Engine {
        /// The file, or host and name of the database.
        database: String,
        /// What the engine said.
        detail: String,
    },
    /// The address of the database is none.
    #[error(
        "the address of the database is wrong: {0}; \
         it has the form postgres://user:password@host:5432/name?sslmode=verify-full"
    )]
    Address(String),
    /// No host of the address can be used.
    #[error("cannot reach the database {database}: {detail}")]
    Unreachable {
        /// Hosts and name of the database.
        database: String,
        /// What came of each host.
        detail: String,
    },
    /// The server does not let us in.
    #[error(
        "the database {database} refuses the log-in: {detail}; \
         check user, password, database name and client certificate"
    )]
    LogIn {
        /// Host and name of the database.
        database: String,
        /// What the server said.
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
    /// The control plane has moved on since the caller looked.
    #[error("the control plane is at version {found}, not at {expected} any more")]
    Moved {
        /// The version that the caller knew.
        expected: u64,
        /// The version it has.
        found: u64,
    },
    /// A version that is not there yet.
    #[error("there is no version {revision}; the newest is {newest}")]
    NoRevision {
        /// The version asked for.
        revision: u64,
        /// The newest one.
        newest: u64,
    },
    /// A draft and its origin changed the same entity, differently.
    #[error("{kind} {id} was changed in the draft and in the control plane since")]
    Diverged {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: Uuid,
    },
    /// Only groups have members.
    #[error("control plane {0} is not a group")]
    NotAGroup(Uuid),
    /// Groups, drafts and control planes of ingress controllers are in no group.
    #[error("control plane {0} cannot be in a group because of its type")]
    CannotJoin(Uuid),
    /// One change writes the same entity twice.
    #[error("{kind} {id} is written twice in one change")]
    WrittenTwice {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: Uuid,
    },
    /// A node of the cluster may not do this.
    #[error(transparent)]
    Cluster(#[from] ClusterRefusal),
    /// A text with a NUL character in a place that is indexed or sorted by.
    #[error("a text with a NUL character cannot be stored or looked for")]
    NulCharacter,
    /// A page token that this store did not make.
    #[error("the offset is not one that a previous page gave")]
    BadOffset,
    /// The engine failed; a write may or may not have happened.
    #[error(transparent)]
    Storage(#[from] StorageFailure),
}

/// Why a node of the cluster may not do what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterRefusal {
    /// The writer's lease of leadership is over, so nothing was written.
    #[error("the lease of epoch {epoch} is over; another node may lead")]
    NotLeader {
        /// The epoch that the writer had.
        epoch: u64,
    },
    /// Another process has started as this node since.
    #[error("another process runs as this node")]
    Superseded,
    /// A join token that nobody made, that is used up or too old.
    #[error("the join token is {0}")]
    BadToken(&'static str),
}

/// A failure of the engine below, not of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageFailure {
    /// There is no room for the write.
    #[error("the disk of the database is full")]
    Full,
    /// The database cannot be reached now, or refuses to write now; trying again may help.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The store was closed.
    #[error("the database is closed")]
    Closed,
    /// Anything else the engine said.
    #[error("the database failed: {0}")]
    Engine(String),
}
