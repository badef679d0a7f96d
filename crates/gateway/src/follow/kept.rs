//! What is in force, as the disk has it.

use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::Reconfigure;
use sallyport_wire::config_sync::delta::Report;
use tracing::error;

use super::source::Source;
use crate::last_known_good::changes::{Changes, Record};
use crate::last_known_good::{LastKnownGood, Saved};
use crate::router::Work;

/// A file of changes is folded into the configuration beside it when it is larger than that
/// configuration, and than this many bytes.
const CHANGES_BYTES_MIN: u64 = 1 << 20;

/// Sets of changes that wait for the disk; more of them do not wait.
const PENDING_MAX: usize = 256;

/// What came last, and where it is kept.
pub(super) struct State {
    pub(super) files: LastKnownGood,
    /// What came in changes; `None` while whole configurations come.
    pub(super) source: Option<Source>,
    /// Open as long as it is good for the newest stored configuration.
    changes: Option<Changes>,
    /// Bytes of that configuration, about.
    stored_bytes: u64,
    /// In force, and not on the disk yet.
    pending: Vec<Record>,
    /// What is to be told of them.
    told: Option<Settled>,
}

/// What is told of changes once the disk has them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settled {
    /// To the control plane.
    pub(super) report: Report,
    /// Sets of changes.
    pub(super) sets: usize,
    /// Routes that were compiled for them.
    pub(super) compiled: usize,
    /// Routes that they took away.
    pub(super) removed: usize,
}

impl State {
    pub(super) fn new(files: LastKnownGood, source: Option<Source>) -> State {
        State {
            files,
            source,
            changes: None,
            stored_bytes: 0,
            pending: Vec::new(),
            told: None,
        }
    }

    /// Notes what is in force and is to be kept [soon](State::settle). Whether nothing was noted
    /// before, so that nobody is about to do that.
    pub(super) fn note(&mut self, record: Record, report: Report, work: Work) -> bool {
        let is_first = self.pending.is_empty();
        self.pending.push(record);
        let before = self.told.take();
        let (compiled, removed) = before.map_or((0, 0), |it| (it.compiled, it.removed));
        self.told = Some(Settled {
            report,
            sets: self.pending.len(),
            compiled: compiled + work.compiled,
            removed: removed + work.removed,
        });
        is_first
    }

    /// Whether so much waits for the disk that no more may.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= PENDING_MAX
    }

    /// Waits until the disk has what was noted, and gives what is to be told of it.
    pub(super) fn settle(&mut self) -> Option<Settled> {
        let settled = self.told.take()?;
        self.append(None);
        self.fold(settled.report.config_hash);
        Some(settled)
    }

    /// Stores a whole configuration, which has what was noted.
    pub(super) fn store(&mut self, saved: Saved) {
        self.changes = None;
        self.pending.clear();
        self.told = None;
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

    /// Adds a record to the file of changes, after those that were noted.
    pub(super) fn append(&mut self, record: Option<Record>) {
        self.told = None; // whoever appends has more to tell
        let mut records = std::mem::take(&mut self.pending);
        records.extend(record);
        let Some(last) = records.last() else { return };
        let hash = last.deltas.hash.unwrap_or(ConfigHash::ZERO);
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
            && let Err(error) = changes.append(&records)
        {
            error!(%error, "the changes in force will not survive a restart");
            // what is missing in it must not be followed by more
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
