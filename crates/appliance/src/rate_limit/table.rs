//! All buckets, in shards that lock on their own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use sallyport_wire::rate_limit::Item;

use super::bucket::{Bucket, Now};
use super::types::{Known, Limit, Types};

/// So many that two cores seldom want the same one.
const SHARDS: usize = 64;
/// How long a bucket is kept after it was full again. Source: limitdb.
const GRACE_MS: u64 = 120_000;

struct Entry {
    bucket: Bucket,
    /// Which reading of the file `limit` refers to.
    generation: u32,
    limit: u32,
}

/// Buckets by type and key.
#[derive(Default)]
struct Shard(Vec<HashMap<Box<[u8]>, Entry, RandomState>>);

pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// Buckets there are.
    len: AtomicUsize,
    len_max: usize,
}

/// What becomes of a bucket that is not there yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It is made and kept.
    Keep,
    /// It is looked at and forgotten: as long as nothing is taken it is full.
    Forget,
}

/// A key that has no limit.
pub(super) struct Unlimited(pub(super) Limit);

impl Table {
    pub(super) fn new(len_max: usize) -> Table {
        Table {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            len: AtomicUsize::new(0),
            len_max,
        }
    }

    /// How many buckets there are.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// How many parts [`sweep`](Table::sweep) goes through.
    pub(super) fn parts(&self) -> usize {
        self.shards.len()
    }

    /// Lets `act` work on a bucket; the flag says whether what it did is kept. It is not where
    /// the table is full and the bucket is not in it.
    pub(super) fn with<R>(
        &self,
        types: &Types,
        known: &Known,
        key: &[u8],
        now: Now,
        absent: Absent,
        act: impl FnOnce(&Limit, &mut Bucket) -> R,
    ) -> Result<(R, bool), Unlimited> {
        let shard = self.hasher.hash_one(key) as usize % self.shards.len();
        let mut shard = lock(&self.shards[shard]);
        let id = known.id as usize;
        if let Some(entry) = shard.0.get_mut(id).and_then(|keys| keys.get_mut(key)) {
            let over = |limit: u32| {
                let until = known.of.limit(limit).until_ms;
                until.is_some_and(|until| until <= now.unix_ms)
            };
            if entry.generation != types.generation || over(entry.limit) {
                entry.limit = known.of.select(key, now.unix_ms);
                entry.generation = types.generation;
            }
            let limit = known.of.limit(entry.limit);
            if limit.unlimited {
                return Err(Unlimited(*limit));
            }
            return Ok((act(limit, &mut entry.bucket), true));
        }
        let position = known.of.select(key, now.unix_ms);
        let limit = known.of.limit(position);
        if limit.unlimited {
            return Err(Unlimited(*limit));
        }
        let mut bucket = Bucket::full(&limit.rule, now);
        let done = act(limit, &mut bucket);
        if absent == Absent::Forget {
            return Ok((done, true));
        }
        if self.len() >= self.len_max {
            return Ok((done, false));
        }
        while shard.0.len() <= id {
            shard.0.push(HashMap::with_hasher(self.hasher.clone()));
        }
        let entry = Entry {
            bucket,
            generation: types.generation,
            limit: position,
        };
        shard.0[id].insert(key.into(), entry);
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok((done, true))
    }

    /// Forgets, in one part, buckets that are as good as unused and those of types that are gone.
    pub(super) fn sweep(&self, part: usize, types: &Types, now: Now) {
        let mut shard = lock(&self.shards[part]);
        let mut types_by_id = vec![None; shard.0.len()];
        for known in types.iter() {
            if let Some(slot) = types_by_id.get_mut(known.id as usize) {
                *slot = Some(&known.of);
            }
        }
        let mut gone = 0;
        for (keys, of) in shard.0.iter_mut().zip(types_by_id) {
            let before = keys.len();
            match of {
                None => *keys = HashMap::with_hasher(self.hasher.clone()),
                Some(of) => keys.retain(|_, entry| {
                    // of another reading: its key's next use finds the rule
                    entry.generation != types.generation
                        || !entry
                            .bucket
                            .is_idle(&of.limit(entry.limit).rule, now, GRACE_MS)
                }),
            }
            gone += before - keys.len();
            if keys.capacity() > 64 && keys.len() < keys.capacity() / 8 {
                keys.shrink_to_fit();
            }
        }
        self.len.fetch_sub(gone, Ordering::Relaxed);
    }

    /// The first `most` buckets of a type, by key, of those whose keys begin with `prefix`.
    pub(super) fn scan(
        &self,
        types: &Types,
        known: &Known,
        prefix: &[u8],
        now: Now,
        most: usize,
    ) -> Vec<Item> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            let Some(keys) = shard.0.get_mut(known.id as usize) else {
                continue;
            };
            for (key, entry) in keys.iter_mut().filter(|(key, _)| key.starts_with(prefix)) {
                if entry.generation != types.generation {
                    entry.limit = known.of.select(key, now.unix_ms);
                    entry.generation = types.generation;
                }
                let limit = known.of.limit(entry.limit);
                let level = entry.bucket.get(&limit.rule, now);
                let full = level.remaining == level.limit;
                // full ones that nothing refills say nothing. Source: limitdb.
                if limit.unlimited || full && level.reset == 0 {
                    continue;
                }
                let key = key.to_vec();
                found.push(Item { key, level });
                if found.len() >= 2 * most {
                    keep_first(&mut found, most);
                }
            }
        }
        keep_first(&mut found, most);
        found
    }
}

fn keep_first(found: &mut Vec<Item>, most: usize) {
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    found.truncate(most);
}

/// A bucket is whole after every step, so a panic elsewhere leaves nothing half done.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
