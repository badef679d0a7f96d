//! The routes of one host, by what the path starts with.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::{AHashMap, RandomState};

use super::compile::Candidate;
use super::priority::Priority;
use super::table::Table;
use super::{Best, Query};

/// The host under which a route is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum HostKey {
    Any,
    Exact(Arc<str>),
    /// `*.example.com` as `.example.com`.
    Suffix(Arc<str>),
    /// `example.*` as `example.`.
    Prefix(Arc<str>),
}

/// The routes of one host. A changed copy shares what did not change.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    /// By prefix of the path; every list is in priority order, best first. Regexes are under
    /// what all their matches start with.
    lists: Table<Arc<[Candidate]>>,
    /// Longest first.
    lengths: Box<[Length]>,
}

/// A length that keys of the bucket have.
#[derive(Clone, Copy, Debug)]
struct Length {
    bytes: usize,
    keys: usize,
    /// No candidate under a key of this length is above it; removals may leave it too high.
    own: Priority,
    /// The same for this length and all shorter ones.
    rest: Priority,
}

/// A change of one list.
#[derive(Debug)]
pub(super) enum Edit {
    /// The route in this slot is no longer there.
    Remove(u32),
    Add(Candidate),
}

impl Bucket {
    /// Whether no route is left.
    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// Improves `best` with what matches here.
    pub(super) fn find<'r>(&'r self, hasher: &RandomState, query: &Query<'_>, best: &mut Best<'r>) {
        for length in &self.lengths {
            if !best.is_beaten_by(length.rest) {
                return;
            }
            let Some(prefix) = query.path.get(..length.bytes) else {
                continue;
            };
            let Some(candidates) = self.lists.get(hasher.hash_one(prefix), prefix) else {
                continue;
            };
            for candidate in &**candidates {
                if !best.is_beaten_by(candidate.priority) {
                    break;
                }
                if let Some(matched) = candidate.matches(query, length.bytes) {
                    best.take(candidate, matched);
                    break;
                }
            }
        }
    }

    /// The bucket with these changes, and how many lists were made anew.
    pub(super) fn edited(
        &self,
        hasher: &RandomState,
        edits: Vec<(Arc<str>, Edit)>,
    ) -> (Bucket, usize) {
        let mut by_key: AHashMap<Arc<str>, (Vec<u32>, Vec<Candidate>)> = AHashMap::new();
        for (key, edit) in edits {
            let (removed, added) = by_key.entry(key).or_default();
            match edit {
                Edit::Remove(slot) => removed.push(slot),
                Edit::Add(candidate) => added.push(candidate),
            }
        }
        let mut lengths: BTreeMap<Reverse<usize>, Length> = (self.lengths.iter())
            .map(|length| (Reverse(length.bytes), *length))
            .collect();
        let made = by_key.len();
        let mut changes = Vec::with_capacity(made);
        for (key, (mut removed, added)) in by_key {
            removed.sort_unstable();
            let hash = hasher.hash_one(&*key);
            let old = self.lists.get(hash, &key);
            let stays = |candidate: &&Candidate| removed.binary_search(&candidate.slot).is_err();
            let kept = old.into_iter().flat_map(|list| list.iter()).filter(stays);
            let mut list: Vec<Candidate> = kept.cloned().chain(added).collect();
            list.sort_by_key(|candidate| Reverse(candidate.priority));
            let length = lengths.entry(Reverse(key.len())).or_insert(Length {
                bytes: key.len(),
                keys: 0,
                own: Priority::default(),
                rest: Priority::default(),
            });
            match (old.is_some(), list.first()) {
                (false, Some(_)) => length.keys += 1,
                (true, None) => length.keys -= 1,
                _ => {}
            }
            if let Some(first) = list.first() {
                length.own = length.own.max(first.priority);
            }
            let list = (!list.is_empty()).then(|| list.into());
            changes.push((hash, key, list));
        }
        let mut lengths: Box<[Length]> = lengths
            .into_values()
            .filter(|length| length.keys > 0)
            .collect();
        let mut rest = Priority::default();
        for length in lengths.iter_mut().rev() {
            rest = rest.max(length.own);
            length.rest = rest;
        }
        let bucket = Bucket {
            lists: self.lists.changed(changes),
            lengths,
        };
        (bucket, made)
    }
}
