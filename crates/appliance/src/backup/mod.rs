//! Backups: one encrypted file that holds everything a restore needs.
//!
//! A backup is a gzipped tar archive inside age's format, so that standard tools open it in need:
//! `age --decrypt -i key.txt FILE | tar xz`. In it are the database as text that either engine
//! reads ([`sallyport_store::dump`]), the files of the data directory (those of SQLite as they were
//! at one moment), settings from elsewhere, what makes the node this node, and at the end a
//! manifest with counts and digests. See `docs/backup.md`.
//!
//! Everything here blocks; [`service`] runs it on threads that may.

mod archive;
mod create;
mod directory;
mod files;
mod keys;
mod restore;
mod retention;
mod schedule;
pub mod service;
mod settings;
mod unpack;
mod verify;

use std::path::{Path, PathBuf};

use sallyport_store::dump::{Database, DumpError};

pub use archive::{Counted, Header, Manifest, SettingsFile};
pub use create::{Created, create};
pub use directory::{Listed, in_directory, list, name, prune};
pub use keys::{KeyError, NewKey, Opener, Seal};
pub use restore::{Restored, Target, restore};
pub use retention::{Keep, surplus};
pub use schedule::{Schedule, ScheduleError};
pub use settings::{RawSettings, Settings, SettingsError};
pub use verify::{Verified, verify};

/// What is backed up.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The database.
    pub database: Database,
    /// The data directory. A SQLite database in it is dumped, not copied.
    pub data: PathBuf,
    /// Where a SQLite database belongs, below `data`.
    pub database_file: PathBuf,
    /// Files from elsewhere that hold settings.
    pub settings: Vec<PathBuf>,
    /// Paths below `data` that make this node this node and no other.
    pub identity: Vec<PathBuf>,
    /// Name of the node, for the names of backups.
    pub node: String,
}

/// Why a backup could not be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or directory could not be read or written.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was being done: `read`, `write`.
        doing: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key or passphrase is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database could not be dumped or loaded.
    #[error(transparent)]
    Database(#[from] DumpError),
    /// The file is not what was written.
    #[error("the backup {} is damaged: {detail}", path.display())]
    Damaged {
        /// The backup.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A newer build made the backup.
    #[error(
        "the backup {} has format {found} (made by version {made_by}), this build reads up to {known}; \
         restore it with the build that made it, or a newer one",
        path.display()
    )]
    TooNew {
        /// The backup.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format of this build.
        known: u32,
        /// The version that made it.
        made_by: String,
    },
    /// There is something where the backup is to be restored.
    #[error("{} is not empty; restore into a new directory, or move this one away", .0.display())]
    NotEmpty(PathBuf),
    /// Another backup is being made.
    #[error("another backup is being written to {}; wait for its end", .0.display())]
    Busy(PathBuf),
    /// There is too little room.
    #[error(
        "{} has {free_mib} MiB free, and {wanted_mib} MiB are wanted: twice what is backed up; \
         free some space, lower `keep`, or choose another directory",
        path.display()
    )]
    Space {
        /// The directory of backups.
        path: PathBuf,
        /// What is free.
        free_mib: u64,
        /// What must be.
        wanted_mib: u64,
    },
    /// Restored and dumped again, the database is another one.
    #[error("table {table} is not the same after a restore: {detail}")]
    Differs {
        /// The table.
        table: String,
        /// What is different.
        detail: String,
    },
}

impl BackupError {
    fn read(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError + use<> {
        BackupError::io("read", path)
    }

    fn write(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError + use<> {
        BackupError::io("write", path)
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError + use<> {
        let path = path.to_owned();
        move |source| BackupError::Io {
            doing,
            path,
            source,
        }
    }
}
