//! What can go wrong with the log.

use std::io;
use std::path::{Path, PathBuf};

/// Why an audit log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditLogError {
    /// A file of it could not be made or read.
    #[error("could not open {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process writes to it.
    #[error(
        "the audit log {} is in use by another process; stop that one or choose another data directory",
        .0.display()
    )]
    InUse(PathBuf),
    /// A newer build wrote it.
    #[error(
        "the audit log {} has schema version {found}, this build knows up to {known}; start the newer build",
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
    /// The database refused.
    #[error("the audit log {} cannot be used: {detail}", path.display())]
    Engine {
        /// The database file.
        path: PathBuf,
        /// What it said.
        detail: String,
    },
    /// The signing key cannot be used.
    #[error("the signing key {} cannot be used: {detail}", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The settings cannot be used.
    #[error("{key}: {reason}")]
    Setting {
        /// The key, such as `receive.listen`.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
}

impl AuditLogError {
    pub(super) fn io(path: &Path, source: io::Error) -> AuditLogError {
        AuditLogError::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn engine(path: &Path, error: &rusqlite::Error) -> AuditLogError {
        AuditLogError::Engine {
            path: path.to_owned(),
            detail: error.to_string(),
        }
    }
}

/// Why something was not recorded, or could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogFailure {
    #[error("the disk of the audit log is full")]
    Full,
    #[error("the audit log is closed")]
    Closed,
    #[error("the audit log takes no more received messages: it has reached receive.log_bytes_max")]
    Quota,
    #[error("the audit log failed: {0}")]
    Engine(String),
}

impl From<&rusqlite::Error> for LogFailure {
    fn from(error: &rusqlite::Error) -> LogFailure {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => LogFailure::Full,
            _ => LogFailure::Engine(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for LogFailure {
    fn from(error: rusqlite::Error) -> LogFailure {
        LogFailure::from(&error)
    }
}
