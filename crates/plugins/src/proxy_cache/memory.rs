//! Stored responses of this gateway, shared by its cores and bounded in bytes.
//!
//! Sharded by key, so that cores rarely meet. When a shard is full, what was not asked for the
//! longest goes first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use bytes::Bytes;
use http::StatusCode;

use crate::fields::Fields;

/// SHA-256 of what makes a request the same as another.
pub(super) type Key = [u8; 32];

const SHARDS: usize = 8;
/// Variants of one response that are kept, by `Vary`.
const VARIANTS_MAX: usize = 16;
/// What an entry costs besides headers and body, bytes.
const OVERHEAD: u64 = 512;

/// A response as it was stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) status: StatusCode,
    /// What may be sent again.
    pub(super) headers: Fields,
    pub(super) body: Bytes,
    /// The headers named in `Vary`, as the request had them.
    pub(super) vary: Vec<Varied>,
    /// When it came, milliseconds since 1970.
    pub(super) stored_ms: u64,
    /// How old it was then, seconds.
    pub(super) age_s: u64,
    /// How long it is fresh from then on, seconds.
    pub(super) fresh_s: u64,
    /// How long it is kept from then on, seconds.
    pub(super) kept_s: u64,
    /// Whether it may be used when it is no longer fresh, for who asks for that.
    pub(super) stale_allowed: bool,
}

/// A header that a response depends on, and the values the request had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Varied {
    pub(super) name: http::HeaderName,
    pub(super) values: Vec<Vec<u8>>,
}

impl Varied {
    /// The values that a request has for a header; lines and what commas separate are the same
    /// (RFC 9111 section 4.1).
    pub(super) fn of(name: http::HeaderName, headers: &Fields) -> Varied {
        let lines = headers.get_all(&name);
        let values = lines.flat_map(|line| line.split(|byte| *byte == b','));
        Varied {
            values: values.map(|value| value.trim_ascii().to_vec()).collect(),
            name,
        }
    }
}

impl Stored {
    /// Seconds since it came.
    pub(super) fn resident_s(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.stored_ms) / 1_000
    }

    fn bytes(&self) -> u64 {
        let header = |(name, value): (&str, &[u8])| name.len() + value.len() + 32;
        let headers: usize = self.headers.iter().map(header).sum();
        OVERHEAD + (headers + self.body.len()) as u64
    }

    fn suits(&self, request: &Fields) -> bool {
        let same = |varied: &Varied| *varied == Varied::of(varied.name.clone(), request);
        self.vary.iter().all(same)
    }
}

/// Responses kept by `proxy-cache`.
pub struct Cache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: u64,
}

#[derive(Default)]
struct Shard {
    entries: AHashMap<Key, Entry>,
    /// Keys by the turn in which they were last asked for.
    order: BTreeMap<u64, Key>,
    turn: u64,
    bytes: u64,
}

struct Entry {
    /// The newest last.
    variants: Vec<Arc<Stored>>,
    turn: u64,
    bytes: u64,
}

impl Cache {
    /// Keeps at most this many bytes.
    pub(crate) fn new(bytes_max: u64) -> Cache {
        Cache {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_bytes_max: bytes_max / SHARDS as u64,
        }
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> u64 {
        let bytes =
            |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        self.shards.iter().map(bytes).sum()
    }

    /// Bytes kept at most.
    pub fn bytes_max(&self) -> u64 {
        self.shard_bytes_max * SHARDS as u64
    }

    /// The response for a request with these headers, if it is still kept.
    pub(super) fn get(&self, key: &Key, request: &Fields, now_ms: u64) -> Option<Arc<Stored>> {
        let mut shard = self.shard(key);
        let Shard {
            entries,
            order,
            turn,
            ..
        } = &mut *shard;
        let entry = entries.get_mut(key)?;
        let kept = |stored: &&Arc<Stored>| {
            stored.resident_s(now_ms) < stored.kept_s && stored.suits(request)
        };
        let found = entry.variants.iter().rev().find(kept).cloned()?;
        *turn += 1;
        order.remove(&entry.turn);
        order.insert(*turn, *key);
        entry.turn = *turn;
        Some(found)
    }

    /// Keeps a response in the place of the one that suits the same requests; one that is larger
    /// than an eighth of the whole is not kept.
    pub(super) fn put(&self, key: Key, stored: Stored) {
        let bytes = stored.bytes();
        if bytes > self.shard_bytes_max {
            return;
        }
        let now_ms = stored.stored_ms;
        let mut shard = self.shard(&key);
        let mut variants = shard
            .take(&key)
            .map_or_else(Vec::new, |entry| entry.variants);
        variants
            .retain(|other| other.vary != stored.vary && other.resident_s(now_ms) < other.kept_s);
        if variants.len() >= VARIANTS_MAX {
            variants.remove(0);
        }
        variants.push(Arc::new(stored));
        let bytes = variants.iter().map(|stored| stored.bytes()).sum();
        shard.turn += 1;
        let turn = shard.turn;
        shard.order.insert(turn, key);
        shard.bytes += bytes;
        let entry = Entry {
            variants,
            turn,
            bytes,
        };
        shard.entries.insert(key, entry);
        while shard.bytes > self.shard_bytes_max {
            let Some((_, oldest)) = shard.order.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            shard.take(&oldest);
        }
    }

    /// Forgets the response for a key, with its variants.
    pub(super) fn remove(&self, key: &Key) {
        self.shard(key).take(key);
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        self.shards[usize::from(key[0]) % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn take(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.turn);
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> Key {
        // all in one shard
        let mut key = [0; 32];
        key[1] = n;
        key
    }

    fn stored(body: usize, now_ms: u64) -> Stored {
        Stored {
            status: StatusCode::OK,
            headers: Fields::new(),
            body: vec![b'x'; body].into(),
            vary: Vec::new(),
            stored_ms: now_ms,
            age_s: 0,
            fresh_s: 10,
            kept_s: 10,
            stale_allowed: false,
        }
    }

    #[test]
    fn a_response_is_kept_for_its_time() {
        let cache = Cache::new(1 << 20);
        let none = Fields::new();
        cache.put(key(1), stored(5, 1_000));
        assert_eq!(cache.get(&key(1), &none, 10_999).unwrap().body.len(), 5);
        assert!(cache.get(&key(1), &none, 11_000).is_none());
        assert!(cache.get(&key(2), &none, 1_000).is_none());
        cache.put(key(1), stored(6, 12_000));
        assert_eq!(cache.get(&key(1), &none, 12_000).unwrap().body.len(), 6);
        cache.remove(&key(1));
        assert!(cache.get(&key(1), &none, 12_000).is_none());
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn variants_are_told_apart() {
        let cache = Cache::new(1 << 20);
        let name = http::HeaderName::from_static("accept-language");
        let request = |language: &'static str| {
            let mut headers = Fields::new();
            headers.set(&name, &http::HeaderValue::from_static(language));
            headers
        };
        for (language, body) in [("de", 1), ("en", 2)] {
            let vary = vec![Varied::of(name.clone(), &request(language))];
            cache.put(
                key(1),
                Stored {
                    vary,
                    ..stored(body, 0)
                },
            );
        }
        let length = |headers: &Fields| cache.get(&key(1), headers, 0).map(|s| s.body.len());
        assert_eq!(length(&request("de")), Some(1));
        assert_eq!(length(&request("en")), Some(2));
        assert_eq!(length(&request(" en ")), Some(2));
        assert_eq!(length(&request("fr")), None);
        assert_eq!(length(&Fields::new()), None);
    }

    #[test]
    fn what_was_asked_for_stays_longest() {
        let cache = Cache::new(SHARDS as u64 * 3 * (OVERHEAD + 100));
        for n in 0..3 {
            cache.put(key(n), stored(100, 0));
        }
        let there = |n| cache.get(&key(n), &Fields::new(), 0).is_some();
        assert!(there(0));
        cache.put(key(3), stored(100, 0));
        assert!(there(0) && !there(1) && there(2) && there(3));
        cache.put(key(4), stored(10_000, 0));
        assert!(
            !there(4) && there(0),
            "what does not fit pushes nothing out"
        );
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_the_sum_is_right(
            puts in proptest::collection::vec((0_u8..6, 0_usize..800, any::<bool>()), 0..40),
        ) {
            let cache = Cache::new(SHARDS as u64 * 2_500);
            for (n, body, remove) in puts {
                match remove {
                    true => cache.remove(&key(n)),
                    false => cache.put(key(n), stored(body, 0)),
                }
                let shard = cache.shard(&key(0));
                let sum: u64 = shard.entries.values().map(|entry| entry.bytes).sum();
                prop_assert_eq!(sum, shard.bytes);
                prop_assert!(shard.bytes <= 2_500);
                prop_assert_eq!(shard.order.len(), shard.entries.len());
            }
        }
    }
}
