//! A map from text to values that is cheap to change a little.
//!
//! Entries are spread over shards by their hash, and a changed copy shares all shards but the
//! touched ones with the map it was made from.

use std::sync::Arc;

use sallyport_plugins::ids::Parts;

/// Entries that a shard is meant to hold; twice as many make the map spread anew.
const SHARD_ENTRIES: usize = 16;

/// A map from text to values. Whoever asks brings the hash of the key, always of one hasher.
#[derive(Debug)]
pub(super) struct Table<V> {
    /// Their number is a power of two.
    shards: Parts<Shard<V>>,
    len: usize,
}

/// A part of a map: a hash table with open addressing, never empty-sized.
#[derive(Debug)]
struct Shard<V>(Box<[Option<Entry<V>>]>);

#[derive(Clone, Debug)]
struct Entry<V> {
    hash: u64,
    key: Arc<str>,
    value: V,
}

/// A key, its hash, and its new value: `None` takes it out.
pub(super) type Change<V> = (u64, Arc<str>, Option<V>);

impl<V> Clone for Table<V> {
    fn clone(&self) -> Table<V> {
        Table {
            shards: self.shards.clone(),
            len: self.len,
        }
    }
}

impl<V: Clone> Default for Table<V> {
    fn default() -> Table<V> {
        Table {
            shards: Parts::default(),
            len: 0,
        }
    }
}

impl<V: Clone> Table<V> {
    /// Entries in the map.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub(super) fn get(&self, hash: u64, key: &str) -> Option<&V> {
        let shard = self.shards.get(shard_of(hash, self.shards.len()))?;
        shard.get(hash, key)
    }

    /// A map with these changes, no key twice among them.
    pub(super) fn changed(&self, changes: Vec<Change<V>>) -> Table<V> {
        let mut len = self.len;
        for (hash, key, value) in &changes {
            match (self.get(*hash, key).is_some(), value.is_some()) {
                (false, true) => len += 1,
                (true, false) => len -= 1,
                _ => {}
            }
        }
        let count = self.shards.len();
        let crowded = len > count * SHARD_ENTRIES * 2;
        let sparse = count > 1 && len < count * SHARD_ENTRIES / 8;
        match count > 0 && !crowded && !sparse {
            true => self.patched(changes, len),
            false => self.spread_anew(changes, len),
        }
    }

    fn patched(&self, mut changes: Vec<Change<V>>, len: usize) -> Table<V> {
        let count = self.shards.len();
        changes.sort_unstable_by_key(|(hash, ..)| shard_of(*hash, count));
        let mut shards = self.shards.clone();
        for run in changes.chunk_by(|a, b| shard_of(a.0, count) == shard_of(b.0, count)) {
            let at = shard_of(run[0].0, count);
            let old = shards.get(at).into_iter().flat_map(Shard::entries);
            let mut entries: Vec<Entry<V>> = old.cloned().collect();
            for (hash, key, value) in run {
                let place = entries
                    .iter()
                    .position(|entry| entry.hash == *hash && entry.key == *key);
                match (place, value) {
                    (Some(place), Some(value)) => entries[place].value = value.clone(),
                    (Some(place), None) => _ = entries.swap_remove(place),
                    (None, Some(value)) => entries.push(Entry {
                        hash: *hash,
                        key: key.clone(),
                        value: value.clone(),
                    }),
                    (None, None) => {}
                }
            }
            shards.set(at, Shard::new(entries));
        }
        Table { shards, len }
    }

    fn spread_anew(&self, changes: Vec<Change<V>>, len: usize) -> Table<V> {
        let count = len.div_ceil(SHARD_ENTRIES).next_power_of_two();
        let mut spread: Vec<Vec<Entry<V>>> = (0..count).map(|_| Vec::new()).collect();
        let touched: ahash::AHashSet<&str> = changes.iter().map(|(_, key, _)| &**key).collect();
        let kept = self
            .shards
            .iter()
            .flat_map(|shard| shard.entries())
            .filter(|entry| !touched.contains(&*entry.key));
        for entry in kept {
            spread[shard_of(entry.hash, count)].push(entry.clone());
        }
        for (hash, key, value) in &changes {
            if let Some(value) = value {
                spread[shard_of(*hash, count)].push(Entry {
                    hash: *hash,
                    key: key.clone(),
                    value: value.clone(),
                });
            }
        }
        let shards = spread.into_iter().map(Shard::new).collect();
        Table { shards, len }
    }

    /// Shards that are not the same as in another map.
    #[cfg(test)]
    pub(super) fn shards_apart(&self, other: &Table<V>) -> usize {
        let same = |shard: &&Arc<Shard<V>>| other.shards.shared().any(|o| Arc::ptr_eq(o, shard));
        self.shards.shared().filter(|it| !same(it)).count()
    }
}

/// The upper half of a hash picks the shard, the lower one the place in it.
fn shard_of(hash: u64, count: usize) -> usize {
    (hash >> 32) as usize & count.wrapping_sub(1)
}

impl<V> Shard<V> {
    fn new(entries: Vec<Entry<V>>) -> Shard<V> {
        let places = (entries.len() * 4 / 3).next_power_of_two();
        let mut slots: Box<[Option<Entry<V>>]> = (0..places).map(|_| None).collect();
        for entry in entries {
            let mut at = entry.hash as usize & (places - 1);
            while slots[at].is_some() {
                at = (at + 1) & (places - 1);
            }
            slots[at] = Some(entry);
        }
        Shard(slots)
    }

    fn get(&self, hash: u64, key: &str) -> Option<&V> {
        let places = self.0.len();
        for step in 0..places {
            let at = (hash as usize).wrapping_add(step) & (places - 1);
            let entry = self.0[at].as_ref()?;
            if entry.hash == hash && *entry.key == *key {
                return Some(&entry.value);
            }
        }
        None
    }

    fn entries(&self) -> impl Iterator<Item = &Entry<V>> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ahash::RandomState;
    use proptest::prelude::*;

    use super::*;

    fn change(hasher: &RandomState, key: &str, value: Option<u32>) -> Change<u32> {
        (hasher.hash_one(key), key.into(), value)
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_would_hold(
            rounds in proptest::collection::vec(
                proptest::collection::hash_map(0u16..600, proptest::option::of(any::<u32>()), 0..200), 1..8)
        ) {
            let hasher = RandomState::with_seeds(1, 2, 3, 4);
            let (mut table, mut model) = (Table::default(), HashMap::new());
            for round in rounds {
                let changes = round.iter().map(|(key, value)| change(&hasher, &key.to_string(), *value));
                table = table.changed(changes.collect());
                for (key, value) in round {
                    match value {
                        Some(value) => _ = model.insert(key, value),
                        None => _ = model.remove(&key),
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                for key in 0..600 {
                    let text = key.to_string();
                    prop_assert_eq!(table.get(hasher.hash_one(&*text), &text), model.get(&key));
                }
            }
        }
    }

    #[test]
    fn a_change_touches_one_shard() {
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let all = (0..50_000).map(|n: u32| change(&hasher, &n.to_string(), Some(n)));
        let table = Table::default().changed(all.collect());
        let next = table.changed(vec![change(&hasher, "77", Some(0))]);
        assert_eq!(next.shards_apart(&table), 1);
        assert_eq!(next.get(hasher.hash_one("77"), "77"), Some(&0));
        assert_eq!(table.get(hasher.hash_one("77"), "77"), Some(&77));
        let next = next.changed(vec![change(&hasher, "77", None)]);
        assert_eq!(next.shards_apart(&table), 1);
        assert_eq!(next.get(hasher.hash_one("77"), "77"), None);
        assert_eq!(next.len(), 49_999);
    }
}
