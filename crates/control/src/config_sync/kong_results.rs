//! What Kong's data planes of one control plane are answered: each answer is made once, and from
//! the change log alone where that tells all.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sallyport_store::{Around, Snapshot, Store, StoreError};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{Delta, Deltas, Refused, SyncVersion};
use sallyport_wire::config_sync::kong_deltas;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;
use tracing::debug;
use uuid::Uuid;

use super::kong_view::{Index, KongView, Noted, keys, part};
use super::publishers::{CHANGES_MAX, blocking};
use super::state::{State, digest, follow, plane};

/// Revisions that changes may start from, where the change log does not tell.
const INDICES_MAX: usize = 8;
/// Answers to the newest revision that are kept for who asks the same.
const ANSWERS_MAX: usize = 4;

/// By which class; from which revision, if it is from any, to which or a later one.
type Asked = (usize, Option<u64>, u64);

/// What leads to a revision.
#[derive(Debug)]
pub(super) struct KongAnswer {
    pub(super) result: Box<RawValue>,
    pub(super) revision: u64,
    /// Whether it holds everything, and not only changes.
    pub(super) is_full: bool,
    /// The hash of the configuration there.
    pub(super) hash: ConfigHash,
    /// What this class of data planes is not sent as it was written.
    pub(super) noted: Vec<Refused>,
}

type Cell = Arc<OnceCell<Arc<KongAnswer>>>;

/// The answers that data planes of one control plane ask for. Kept are [`ANSWERS_MAX`] of them, and
/// by class the names of what it is not sent; of groups that leave something out also a digest and
/// the unique values of each entity of [`INDICES_MAX`] revisions. What is sent is read when it is
/// asked for.
pub(super) struct KongResults {
    store: Store,
    cp: Uuid,
    kept: Mutex<Kept>,
    /// How many entities answers were made of.
    looked_at: AtomicUsize,
}

#[derive(Default)]
struct Kept {
    answers: VecDeque<(Asked, Cell)>,
    /// By class: as of which revision, and what.
    noted: HashMap<usize, (u64, Noted)>,
    /// By class: that it was looked for what to note, while nothing was.
    first: HashMap<usize, Arc<OnceCell<()>>>,
    /// What there was in earlier revisions, oldest first.
    indices: VecDeque<((usize, u64), Arc<Index>)>,
}

impl Kept {
    fn note(&mut self, class: usize, revision: u64, noted: Noted) {
        self.noted.insert(class, (revision, noted));
    }
}

impl KongResults {
    pub(super) fn new(store: Store, cp: Uuid) -> KongResults {
        KongResults {
            store,
            cp,
            kept: Mutex::default(),
            looked_at: AtomicUsize::new(0),
        }
    }

    /// What leads from a revision to `state` or later, for a class of data planes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) async fn get(
        &self,
        class: usize,
        from: Option<u64>,
        state: &State,
    ) -> Result<Arc<KongAnswer>, StoreError> {
        let cell = self.cell((class, from, state.revision));
        let answer = cell.get_or_try_init(|| self.make(class, from, state)).await;
        answer.cloned()
    }

    /// Entities that answers were made of so far.
    #[cfg(test)]
    pub(super) fn looked_at(&self) -> usize {
        self.looked_at.load(Ordering::Relaxed)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, asked: Asked) -> Cell {
        let answers = &mut self.kept().answers;
        if let Some((_, cell)) = answers.iter().find(|(known, _)| *known == asked) {
            return cell.clone();
        }
        let cell = Cell::default();
        answers.retain(|((.., to), _)| *to >= asked.2);
        answers.push_back((asked, cell.clone()));
        if answers.len() > ANSWERS_MAX {
            answers.pop_front();
        }
        cell
    }

    async fn make(
        &self,
        class: usize,
        from: Option<u64>,
        state: &State,
    ) -> Result<Arc<KongAnswer>, StoreError> {
        let before = self.looked_at.load(Ordering::Relaxed);
        let follows = !state.is_of_group() || state.is_of_whole_group();
        let followed = match from.filter(|_| follows) {
            Some(from) => self.follow(class, from, state).await?,
            None => None,
        };
        let answer = match followed {
            Some(answer) => answer,
            None => {
                let from = from.filter(|_| !follows);
                self.whole((class, from), state).await?
            }
        };
        let looked_at = self.looked_at.load(Ordering::Relaxed) - before;
        let (cp, revision) = (self.cp, answer.revision);
        debug!(%cp, ?from, revision, looked_at, "changes for data planes of Kong made");
        Ok(Arc::new(answer))
    }

    /// Out of the change log; `None` if it does not tell all, or if the changes have to be taken
    /// together.
    async fn follow(
        &self,
        class: usize,
        from: u64,
        state: &State,
    ) -> Result<Option<KongAnswer>, StoreError> {
        let noted_at = self.noted_at(class).await?;
        let first = from.min(state.revision).min(noted_at);
        let found = self.store.changes_around(self.cp, first, CHANGES_MAX);
        let newest = from.max(state.revision);
        let Some(around) = found.await?.filter(|it| it.revision >= newest) else {
            return Ok(None);
        };
        let (list, view, around) = blocking(move || {
            let before = KongView::of(class, part(&around, from));
            let now = KongView::of(class, part(&around, around.revision));
            (now.since(&before.index()), now, around)
        })
        .await?;
        let parts = around.changes.len() + around.others.len();
        self.looked_at.fetch_add(parts, Ordering::Relaxed);
        let noted = self.renewed(class, first, &around, view.noted);
        let Some(list) = list else {
            return Ok(None);
        };
        let mut reached = state.digest;
        let later = around.changes.iter();
        follow(
            &mut reached,
            later.filter(|it| it.revision > state.revision),
        );
        let (revision, hash) = (around.revision, reached.hash());
        Ok(Some(KongAnswer {
            result: self.result(Some(from), revision, list),
            revision,
            is_full: false,
            hash,
            noted,
        }))
    }

    /// As of which revision it is noted what a class is not sent. For the first who asks it is looked
    /// for in all there is, once.
    async fn noted_at(&self, class: usize) -> Result<u64, StoreError> {
        let first = self.kept().first.entry(class).or_default().clone();
        let read = async {
            if self.kept().noted.contains_key(&class) {
                return Ok(());
            }
            let snapshot = self.store.snapshot(self.cp).await?;
            let (at, view) = self.view(class, snapshot).await?;
            self.kept().note(class, at, view.noted);
            Ok::<(), StoreError>(())
        };
        first.get_or_try_init(|| read).await?;
        let kept = self.kept();
        Ok(kept.noted.get(&class).map_or(0, |(at, _)| *at))
    }

    /// Brings what is noted forward, which stood at `first` or later.
    fn renewed(&self, class: usize, first: u64, around: &Around, part: Noted) -> Vec<Refused> {
        let mut kept = self.kept();
        let (at, noted) = kept.noted.entry(class).or_default();
        if (first..=around.revision).contains(at) {
            noted.replace(keys(around), part);
            *at = around.revision;
        }
        noted.first()
    }

    /// Out of everything: what is other than at a revision whose index is kept, or all.
    async fn whole(
        &self,
        (class, from): (usize, Option<u64>),
        state: &State,
    ) -> Result<KongAnswer, StoreError> {
        let snapshot = self.store.snapshot(self.cp).await?;
        let before = {
            let kept = self.kept();
            let mut known = kept.indices.iter();
            let known = known.find(|((of, at), _)| *of == class && Some(*at) == from);
            known.map(|((_, at), index)| (*at, index.clone()))
        };
        let hash = digest(&snapshot).hash();
        let (revision, view) = self.view(class, snapshot).await?;
        let is_in_part = state.is_of_group() && !state.is_of_whole_group();
        let (view, list, index) = blocking(move || {
            let list = before.and_then(|(at, before)| Some((at, view.since(&before)?)));
            let list = match list {
                Some((at, list)) => (Some(at), list),
                None => (None, view.everything()),
            };
            let index = is_in_part.then(|| view.index());
            (view, list, index)
        })
        .await?;
        let noted = view.noted.first();
        let mut kept = self.kept();
        kept.note(class, revision, view.noted);
        let key = (class, revision);
        if let Some(index) = index.filter(|_| kept.indices.iter().all(|(it, _)| *it != key)) {
            kept.indices.push_back((key, Arc::new(index)));
            if kept.indices.len() > INDICES_MAX {
                kept.indices.pop_front();
            }
        }
        drop(kept);
        let (from, list) = list;
        Ok(KongAnswer {
            result: self.result(from, revision, list),
            revision,
            is_full: from.is_none(),
            hash,
            noted,
        })
    }

    async fn view(&self, class: usize, snapshot: Snapshot) -> Result<(u64, KongView), StoreError> {
        let Snapshot { revision, entities } = snapshot;
        let all: usize = entities.values().map(Vec::len).sum();
        self.looked_at.fetch_add(all, Ordering::Relaxed);
        let view = blocking(move || KongView::of(class, entities)).await?;
        Ok((revision, view))
    }

    fn result(&self, from: Option<u64>, revision: u64, list: Vec<Delta>) -> Box<RawValue> {
        let version = |revision| SyncVersion::new(plane(self.cp), revision);
        kong_deltas::result(&Deltas {
            full: from.is_none(),
            from: from.map(version),
            version: version(revision),
            hash: None,
            list,
        })
    }
}

#[cfg(test)]
mod tests;
