//! Answers to `get_delta` that many data planes ask for at once, as after a restart: each is made
//! once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sallyport_store::{Change, Store, StoreError};
use sallyport_wire::config_sync::rpc::{Message, raw};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::kong_results::KongResults;
use super::publishers::{CHANGES_MAX, blocking};
use super::state::{State, deltas, everything};

/// Answers that are kept.
const KEPT_MAX: usize = 8;

/// What an answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    /// The revision that the data plane has; `None` for one that has nothing to start from.
    from: Option<u64>,
    /// The newest revision.
    to: u64,
    /// The id of the call, which is part of the frame.
    id: u64,
}

/// A frame, and the revision that it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) frame: Bytes,
    pub(crate) revision: u64,
    /// Whether it holds everything, and not only changes.
    pub(crate) is_full: bool,
}

/// How many questions for what leads to the newest version were answered by this process.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    changes: AtomicU64,
    everything: AtomicU64,
}

impl Answered {
    pub(super) fn count(&self, is_full: bool) {
        let counter = match is_full {
            true => &self.everything,
            false => &self.changes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// By what they were answered with.
    pub(crate) fn by_answer(&self) -> [(&'static str, u64); 2] {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("changes", of(&self.changes)),
            ("everything", of(&self.everything)),
        ]
    }
}

type Kept = (Question, Arc<OnceCell<Answer>>);

/// The answers of one control plane.
pub(crate) struct Answers {
    store: Store,
    cp: Uuid,
    kept: Mutex<VecDeque<Kept>>,
    /// The same for Kong's data planes.
    pub(super) kong: KongResults,
}

impl Answers {
    pub(super) fn new(store: Store, cp: Uuid) -> Answers {
        let kong = KongResults::new(store.clone(), cp);
        Answers {
            store,
            cp,
            kept: Mutex::default(),
            kong,
        }
    }

    /// The answer to call `id`: what leads from revision `from` to `state`, or everything.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn get(
        &self,
        id: u64,
        from: Option<u64>,
        state: &State,
    ) -> Result<Answer, StoreError> {
        let to = state.revision;
        let question = Question { from, to, id };
        let cell = self.cell(question);
        let answer = cell.get_or_try_init(|| self.make(question, state)).await;
        answer.cloned()
    }

    fn cell(&self, question: Question) -> Arc<OnceCell<Answer>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = kept.iter().find(|(known, _)| *known == question) {
            return cell.clone();
        }
        let cell = Arc::new(OnceCell::new());
        kept.push_back((question, cell.clone()));
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
        cell
    }

    /// What was changed since a revision, at least as far as a state; `None` if there are too many
    /// changes, or if the log does not tell.
    async fn changes(&self, from: u64, state: &State) -> Result<Option<Vec<Change>>, StoreError> {
        if from == state.revision {
            return Ok(Some(Vec::new()));
        }
        if !state.is_of_group() {
            let changes = self.store.changes(self.cp, from, CHANGES_MAX).await?;
            let follows = changes.first().is_some_and(|it| it.revision == from + 1);
            return Ok((follows && changes.len() < CHANGES_MAX).then_some(changes));
        }
        if !state.is_of_whole_group() {
            // what it leaves out depends on all that its members have
            return Ok(None);
        }
        let found = self.store.group_changes(self.cp, from, CHANGES_MAX).await?;
        let found = found.filter(|(newest, _)| *newest >= state.revision);
        Ok(found.map(|(_, changes)| changes))
    }

    async fn make(&self, question: Question, state: &State) -> Result<Answer, StoreError> {
        let Question { from, to, id } = question;
        let cp = self.cp;
        if let Some(from) = from.filter(|from| *from <= to)
            && let Some(changes) = self.changes(from, state).await?
        {
            let result = deltas(cp, &changes, (from, to), state.hash()).to_raw();
            let frame = Message::Answer { id, result }.encode().into();
            return Ok(Answer {
                frame,
                revision: to,
                is_full: false,
            });
        }
        let snapshot = self.store.snapshot(cp).await?;
        blocking(move || {
            let revision = snapshot.revision;
            let result = everything(cp, &snapshot).to_raw();
            let frame = Message::Answer { id, result }.encode().into();
            Answer {
                frame,
                revision,
                is_full: true,
            }
        })
        .await
    }
}

/// An answer that a call went wrong, without keeping it.
pub(crate) fn failure(id: u64, code: i64, message: String) -> Vec<u8> {
    let id = Some(id);
    Message::Failure { id, code, message }.encode()
}

/// An answer that says yes.
pub(crate) fn yes(id: u64) -> Vec<u8> {
    let result = raw(&true);
    Message::Answer { id, result }.encode()
}
