//! What is in force, as the disk has it.

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

/// What came last.
pub(super) struct State {
    /// What came in changes; `None` while whole configurations come.
    pub(super) source: Option<Source>,
    /// In force, and not on the disk yet.
    pending: Vec<Record>,
    /// What is to be told of what was in force before the disk had it.
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
    pub(super) fn new(source: Option<Source>) -> State {
        State {
            source,
            pending: Vec::new(),
            told: None,
        }
    }

    /// Notes what is in force and is to be kept soon. Whether nothing was noted before, so that
    /// nobody is about to do that.
    pub(super) fn note(&mut self, record: Record, report: Report, work: Work) -> bool {
        self.pending.push(record);
        let before = self.told.take();
        let is_first = before.is_none();
        let (sets, compiled, removed) =
            before.map_or((0, 0, 0), |it| (it.sets, it.compiled, it.removed));
        self.told = Some(Settled {
            report,
            sets: sets + 1,
            compiled: compiled + work.compiled,
            removed: removed + work.removed,
        });
        is_first
    }

    /// Whether so much waits for the disk that no more may.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= PENDING_MAX
    }

    /// What was noted, and what is to be told of it; `None` if somebody has told more.
    pub(super) fn noted(&mut self) -> Option<(Vec<Record>, Settled)> {
        let settled = self.told.take()?;
        Some((std::mem::take(&mut self.pending), settled))
    }

    /// What was noted, for one who keeps it now; it is still to be told.
    pub(super) fn unwritten(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.pending)
    }

    /// More is told than what was noted.
    pub(super) fn overtaken(&mut self) {
        self.told = None;
    }

    /// What was noted is on the disk as part of the whole, and still to be told.
    pub(super) fn is_stored(&mut self) {
        self.pending.clear();
    }
}

/// Where it is kept.
///
/// Who holds this may wait for a [`State`], and not the other way round: changes come into force
/// while the disk is slow.
pub(super) struct Disk {
    files: LastKnownGood,
    /// Open as long as it is good for the newest stored configuration.
    changes: Option<Changes>,
    /// Bytes of that configuration, about.
    stored_bytes: u64,
}

impl Disk {
    pub(super) fn new(files: LastKnownGood) -> Disk {
        Disk {
            files,
            changes: None,
            stored_bytes: 0,
        }
    }

    /// Stores a whole configuration.
    pub(super) fn store(&mut self, saved: &Saved) {
        self.changes = None;
        if let Err(error) = self.files.store(saved) {
            // serving it matters more than surviving a restart with it
            error!(%error, "the configuration in force will not survive a restart");
        }
    }

    /// Stores everything that came in changes, with what was noted of it.
    pub(super) fn store_source(&mut self, state: &mut State) {
        let Some(source) = &state.source else { return };
        let (hash, version) = (source.served_hash(), Some(source.version()));
        let payload = Reconfigure {
            timestamp: None,
            config_table: source.to_stored(),
            config_hash: Some(hash),
            hashes: None,
        };
        self.store(&Saved {
            hash,
            version,
            payload,
        });
        state.is_stored();
        self.stored_bytes = self.files.newest_bytes();
    }

    /// Adds records to the file of changes. Whether the whole is to be stored now: because that
    /// did not work, and what is missing must not be followed by more, or because the file has
    /// grown large.
    #[must_use]
    pub(super) fn append(&mut self, records: &[Record]) -> bool {
        if records.is_empty() {
            return false;
        }
        if self.changes.is_none() {
            match self.files.changes() {
                Ok(changes) => self.changes = Some(changes),
                Err(error) => {
                    error!(%error, "there is no file for the changes in force");
                }
            }
            self.stored_bytes = self.files.newest_bytes();
        }
        let Some(changes) = &mut self.changes else {
            return true;
        };
        if let Err(error) = changes.append(records) {
            error!(%error, "the changes in force cannot be added to their file");
            return true;
        }
        changes.bytes() > CHANGES_BYTES_MIN.max(self.stored_bytes)
    }
}
