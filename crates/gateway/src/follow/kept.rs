//! What is in force, as the disk has it.

use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::Reconfigure;
use tracing::error;

use super::source::Source;
use crate::last_known_good::changes::{Changes, Record};
use crate::last_known_good::{LastKnownGood, Saved};

/// A file of changes is folded into the configuration beside it when it is larger than that
/// configuration, and than this many bytes.
const CHANGES_BYTES_MIN: u64 = 1 << 20;

/// What came last, and where it is kept.
pub(super) struct State {
    pub(super) files: LastKnownGood,
    /// What came in changes; `None` while whole configurations come.
    pub(super) source: Option<Source>,
    /// Open as long as it is good for the newest stored configuration.
    changes: Option<Changes>,
    /// Bytes of that configuration, about.
    stored_bytes: u64,
}

impl State {
    pub(super) fn new(files: LastKnownGood, source: Option<Source>) -> State {
        State {
            files,
            source,
            changes: None,
            stored_bytes: 0,
        }
    }

    pub(super) fn store(&mut self, saved: Saved) {
        self.changes = None;
        if let Err(error) = self.files.store(&saved) {
            // serving it matters more than surviving a restart with it
            error!(%error, "the configuration in force will not survive a restart");
        }
    }

    pub(super) fn store_source(&mut self, hash: ConfigHash) {
        let Some(source) = &self.source else { return };
        let table = source.to_stored();
        let payload = Reconfigure {
            timestamp: None,
            config_table: table,
            config_hash: Some(hash),
            hashes: None,
        };
        let version = Some(source.version());
        self.store(Saved {
            hash,
            version,
            payload,
        });
        self.stored_bytes = self.files.newest_bytes();
    }

    pub(super) fn append(&mut self, record: Record) {
        if self.changes.is_none() {
            match self.files.changes() {
                Ok(changes) => self.changes = Some(changes),
                Err(error) => {
                    error!(%error, "the configuration in force will not survive a restart");
                }
            }
            self.stored_bytes = self.files.newest_bytes();
        }
        if let Some(changes) = &mut self.changes
            && let Err(error) = changes.append(&record)
        {
            error!(%error, "the changes in force will not survive a restart");
            // what is missing in it must not be followed by more
            let hash = record.deltas.hash.unwrap_or(ConfigHash::ZERO);
            self.store_source(hash);
        }
    }

    /// Stores the whole anew when the changes have grown large.
    pub(super) fn fold(&mut self, hash: ConfigHash) {
        let bytes = self.changes.as_ref().map_or(0, Changes::bytes);
        if bytes > CHANGES_BYTES_MIN.max(self.stored_bytes) {
            self.store_source(hash);
        }
    }
}
