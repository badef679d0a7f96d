//! Collections that are cheap to copy and then to change a little.
//!
//! A copy shares its parts with what it was made from; the first change of a part copies that part
//! only. So a configuration with one more route costs the same however many routes there are.

mod parts;

use std::borrow::Borrow;
use std::hash::Hash;

use ahash::{AHashMap, RandomState};
use uuid::Uuid;

pub use parts::Parts;

/// Entries that a shard is meant to hold; twice as many make the map spread anew.
const SHARD_ENTRIES: usize = 64;

/// A map from ids, or other keys, to values.
#[derive(Clone, Debug)]
pub struct Ids<V, K = Uuid> {
    hasher: RandomState,
    /// Their number is a power of two, or zero.
    shards: Parts<AHashMap<K, V>>,
    len: usize,
}

impl<V, K> Default for Ids<V, K> {
    fn default() -> Ids<V, K> {
        Ids {
            hasher: RandomState::default(),
            shards: Parts::default(),
            len: 0,
        }
    }
}

impl<V: Clone, K: Clone + Eq + Hash> Ids<V, K> {
    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this is a copy of the other that nothing was done to, or the other way round.
    pub fn is_same(&self, other: &Ids<V, K>) -> bool {
        self.shards.is_same(&other.shards)
    }

    /// The value of a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(self.shard_of(key))?.get(key)
    }

    /// Gives a key a value.
    pub fn insert(&mut self, key: K, value: V) {
        if self.len >= self.shards.len() * SHARD_ENTRIES * 2 {
            self.spread_anew((self.len + 1).div_ceil(SHARD_ENTRIES).next_power_of_two());
        }
        let at = self.shard_of(&key);
        if self.shards.change(at).insert(key, value).is_none() {
            self.len += 1;
        }
    }

    /// Takes a key out.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.shard_of(key);
        self.shards.get(at)?.get(key)?;
        self.len -= 1;
        self.shards.change(at).remove(key)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    fn shard_of<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // the low bits choose the place inside a shard, whose map has a hasher of its own
        self.hasher.hash_one(key) as usize & self.shards.len().wrapping_sub(1)
    }

    fn spread_anew(&mut self, count: usize) {
        let old = std::mem::take(&mut self.shards);
        self.shards = (0..count).map(|_| AHashMap::new()).collect();
        for (key, value) in old.iter().flat_map(|shard| shard.iter()) {
            let at = self.shard_of(key);
            self.shards.change(at).insert(key.clone(), value.clone());
        }
    }
}

impl<V: Clone, K: Clone + Eq + Hash> FromIterator<(K, V)> for Ids<V, K> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(all: I) -> Ids<V, K> {
        let all = all.into_iter();
        let mut ids = Ids::default();
        let expected = all.size_hint().0;
        if expected > 0 {
            ids.spread_anew(expected.div_ceil(SHARD_ENTRIES).next_power_of_two());
        }
        for (key, value) in all {
            ids.insert(key, value);
        }
        ids
    }
}

/// Items that are copied together when one of them changes.
const PAGE: usize = 32;

/// A list that grows at its end.
#[derive(Clone, Debug)]
pub struct Pages<T> {
    pages: Parts<Vec<T>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages {
            pages: Parts::default(),
            len: 0,
        }
    }
}

impl<T: Clone> Pages<T> {
    /// Items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The item at a place.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.get(at % PAGE)
    }

    /// Adds an item at the end.
    pub fn push(&mut self, item: T) {
        if self.len.is_multiple_of(PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        self.pages.change(self.len / PAGE).push(item);
        self.len += 1;
    }

    /// Puts an item in the place of another.
    ///
    /// # Panics
    /// If there is none at this place.
    pub fn set(&mut self, at: usize, item: T) {
        self.pages.change(at / PAGE)[at % PAGE] = item;
    }

    /// All items, from the first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

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
            let pairs = a.shards.shared().zip(b.shards.shared());
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
        let pairs = pages.pages.shared().zip(next.pages.shared());
        assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 2);
    }
}
