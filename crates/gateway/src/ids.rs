//! Collections that are cheap to copy and then to change a little.
//!
//! A copy shares its parts with what it was made from; the first change of a part copies that part
//! only. So a configuration with one more route costs the same however many routes there are.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use uuid::Uuid;

/// Entries that a shard is meant to hold; twice as many make the map spread anew.
const SHARD_ENTRIES: usize = 64;

/// A map from ids to values.
#[derive(Clone, Debug)]
pub(crate) struct Ids<V> {
    hasher: RandomState,
    /// Their number is a power of two, or zero.
    shards: Vec<Arc<AHashMap<Uuid, V>>>,
    len: usize,
}

impl<V> Default for Ids<V> {
    fn default() -> Ids<V> {
        Ids {
            hasher: RandomState::default(),
            shards: Vec::new(),
            len: 0,
        }
    }
}

impl<V: Clone> Ids<V> {
    pub(crate) fn get(&self, id: &Uuid) -> Option<&V> {
        self.shards.get(self.shard_of(id))?.get(id)
    }

    pub(crate) fn insert(&mut self, id: Uuid, value: V) {
        if self.len >= self.shards.len() * SHARD_ENTRIES * 2 {
            self.spread_anew((self.len + 1).div_ceil(SHARD_ENTRIES).next_power_of_two());
        }
        let at = self.shard_of(&id);
        if Arc::make_mut(&mut self.shards[at])
            .insert(id, value)
            .is_none()
        {
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: &Uuid) -> Option<V> {
        let at = self.shard_of(id);
        self.shards.get(at)?.get(id)?;
        self.len -= 1;
        Arc::make_mut(&mut self.shards[at]).remove(id)
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Uuid, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    fn shard_of(&self, id: &Uuid) -> usize {
        // the low bits choose the place inside a shard, whose map has a hasher of its own
        self.hasher.hash_one(id) as usize & self.shards.len().wrapping_sub(1)
    }

    fn spread_anew(&mut self, count: usize) {
        let old = std::mem::take(&mut self.shards);
        self.shards = (0..count).map(|_| Arc::default()).collect();
        for (id, value) in old.iter().flat_map(|shard| shard.iter()) {
            let at = self.shard_of(id);
            Arc::make_mut(&mut self.shards[at]).insert(*id, value.clone());
        }
    }
}

impl<V: Clone> FromIterator<(Uuid, V)> for Ids<V> {
    fn from_iter<I: IntoIterator<Item = (Uuid, V)>>(all: I) -> Ids<V> {
        let all = all.into_iter();
        let mut ids = Ids::default();
        let expected = all.size_hint().0;
        if expected > 0 {
            ids.spread_anew(expected.div_ceil(SHARD_ENTRIES).next_power_of_two());
        }
        for (id, value) in all {
            ids.insert(id, value);
        }
        ids
    }
}

/// Items that are copied together when one of them changes.
const PAGE: usize = 128;

/// A list that grows at its end.
#[derive(Clone, Debug)]
pub(crate) struct Pages<T> {
    pages: Vec<Arc<Vec<T>>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages {
            pages: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Clone> Pages<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.get(at % PAGE)
    }

    pub(crate) fn push(&mut self, item: T) {
        if self.len.is_multiple_of(PAGE) {
            self.pages.push(Arc::new(Vec::with_capacity(PAGE)));
        }
        let last = self
            .pages
            .last_mut()
            .expect("a page was pushed if none had room");
        Arc::make_mut(last).push(item);
        self.len += 1;
    }

    /// Puts an item in the place of another.
    ///
    /// # Panics
    /// If there is none at this place.
    pub(crate) fn set(&mut self, at: usize, item: T) {
        Arc::make_mut(&mut self.pages[at / PAGE])[at % PAGE] = item;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_hold_what_a_map_would_hold(
            rounds in proptest::collection::vec(
                proptest::collection::vec((0u128..900, any::<Option<u8>>()), 0..300), 1..6)
        ) {
            let (mut ids, mut model) = (Ids::default(), HashMap::new());
            for round in rounds {
                let (before, old) = (ids.clone(), model.clone());
                for (id, value) in round {
                    let id = Uuid::from_u128(id);
                    match value {
                        Some(value) => {
                            ids.insert(id, value);
                            model.insert(id, value);
                        }
                        None => prop_assert_eq!(ids.remove(&id), model.remove(&id)),
                    }
                }
                for (ids, model) in [(&ids, &model), (&before, &old)] {
                    let all: HashMap<Uuid, u8> = ids.iter().map(|(id, v)| (*id, *v)).collect();
                    prop_assert_eq!(&all, model);
                    prop_assert!(model.iter().all(|(id, value)| ids.get(id) == Some(value)));
                }
            }
        }
    }

    #[test]
    fn a_change_copies_one_part() {
        let ids: Ids<usize> = (0..20_000)
            .map(|n| (Uuid::from_u128(n as u128), n))
            .collect();
        let mut next = ids.clone();
        next.insert(Uuid::from_u128(77), 0);
        let apart = |a: &Ids<usize>, b: &Ids<usize>| {
            let pairs = a.shards.iter().zip(&b.shards);
            pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count()
        };
        assert_eq!(apart(&ids, &next), 1);
        assert_eq!(ids.get(&Uuid::from_u128(77)), Some(&77));

        let mut pages = Pages::default();
        (0..1_000).for_each(|n| pages.push(n));
        let mut next = pages.clone();
        next.set(500, 0);
        next.push(1_000);
        assert_eq!((pages.get(500), next.get(500)), (Some(&500), Some(&0)));
        assert_eq!(
            (pages.len(), next.len(), next.iter().count()),
            (1_000, 1_001, 1_001)
        );
        let pairs = pages.pages.iter().zip(&next.pages);
        assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 2);
    }
}
