//! Tokens that another node debited ahead for this one, for keys that are asked for often.
//!
//! The owner takes them out of its bucket before they are spent here, so leases can only admit
//! less than the limit, by what expires unused. A refusal is remembered the same way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ahash::RandomState;
use sallyport_wire::rate_limit::{Extra, Taken};

/// How long a lease or a remembered refusal holds at most.
pub(super) const LEASE_MS: u64 = 100;
/// A key that is asked for as often within [`LEASE_MS`] is hot.
const HOT: u64 = 20;
/// Tokens that are debited ahead at most.
const LEASE_MAX: u64 = 1_000;
/// Hot keys that are remembered at most.
const KEYS_MAX: usize = 10_000;
/// Counters by which hot keys are found; keys that share one look hotter than they are, which
/// costs nothing but a lease.
const COUNTERS: usize = 4_096;

/// What is known of a hot key.
#[derive(Clone, Copy, Debug)]
struct Hot {
    until_ms: u64,
    /// Tokens left of a lease.
    tokens: u32,
    /// TAKEs of so many and more are refused meanwhile; 0 if none is.
    refused: u32,
    taken: Taken,
}

/// Leases of this node, by key.
pub(super) struct Leases {
    /// Upper half: which window; lower half: how often in it.
    counters: Box<[AtomicU64]>,
    hot: Mutex<HashMap<u64, Hot, RandomState>>,
    hasher: RandomState,
}

/// What comes of a TAKE for a key of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    /// It is answered here.
    Answer(Taken),
    /// It has to be asked for there, and so many tokens more debited ahead.
    Ask {
        /// 0 for a key that is not hot.
        lease: u32,
    },
}

impl Leases {
    pub(super) fn new() -> Leases {
        Leases {
            counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hot: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// The name of a key here. Two keys of one name would share leases; with 64 random bits they
    /// do not.
    pub(super) fn name(&self, bucket: &[u8], key: &[u8]) -> u64 {
        self.hasher.hash_one((bucket, key))
    }

    /// A TAKE of `count` tokens at `ms`.
    pub(super) fn take(&self, name: u64, count: u32, ms: u64) -> Here {
        let asked = self.count(name, ms);
        if asked < HOT {
            return Here::Ask { lease: 0 };
        }
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = u32::try_from(asked.min(LEASE_MAX)).unwrap_or(0);
        let Some(of) = hot.get_mut(&name) else {
            return Here::Ask { lease };
        };
        if of.until_ms <= ms {
            hot.remove(&name);
            return Here::Ask { lease };
        }
        if of.refused > 0 && count >= of.refused {
            return Here::Answer(of.taken);
        }
        if of.refused == 0 && of.tokens >= count {
            of.tokens -= count;
            let level = &mut of.taken.level;
            level.remaining = level.remaining.saturating_sub(count);
            return Here::Answer(of.taken);
        }
        Here::Ask { lease }
    }

    /// What the owner answered to a TAKE of `count` with which it was asked for a lease at `ms`.
    pub(super) fn answered(&self, name: u64, count: u32, taken: Taken, extra: Extra, ms: u64) {
        let refused_ms = u64::from(extra.refused_ms).min(LEASE_MS);
        let (for_ms, refused) = match taken.conformant {
            true => (LEASE_MS, 0),
            false => (refused_ms, count.max(1)),
        };
        if extra.leased == 0 && refused == 0 || for_ms == 0 {
            return;
        }
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        if hot.len() >= KEYS_MAX {
            hot.retain(|_, of| of.until_ms > ms);
        }
        if hot.len() >= KEYS_MAX {
            return;
        }
        let left = hot
            .get(&name)
            .filter(|of| of.refused == 0 && of.until_ms > ms);
        let tokens = extra.leased.saturating_add(left.map_or(0, |of| of.tokens));
        if refused > 0 && tokens > 0 {
            return; // what is left is spent first
        }
        let until_ms = ms + for_ms;
        let of = Hot {
            until_ms,
            tokens,
            refused,
            taken,
        };
        hot.insert(name, of);
    }

    /// Somebody put tokens back: a refusal holds no longer.
    pub(super) fn forget(&self, name: u64) {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        if hot.get(&name).is_some_and(|of| of.refused > 0) {
            hot.remove(&name);
        }
    }

    /// How often the key was asked for in this window.
    fn count(&self, name: u64, ms: u64) -> u64 {
        let window = (ms / LEASE_MS) << 32;
        let counter = &self.counters[name as usize % COUNTERS];
        let seen = counter.load(Ordering::Relaxed);
        // Lost counts of two cores at once do no harm: it is about hundreds.
        let now = match seen >> 32 == window >> 32 {
            true => (seen + 1).min(window | u64::from(u32::MAX)),
            // what was hot in the window before still is
            false if (seen >> 32) + 1 == window >> 32 => window | ((seen & 0xffff_ffff) / 2 + 1),
            false => window | 1,
        };
        counter.store(now, Ordering::Relaxed);
        now & 0xffff_ffff
    }
}

#[cfg(test)]
mod tests {
    use sallyport_wire::rate_limit::Level;

    use super::*;

    fn taken(conformant: bool, remaining: u32) -> Taken {
        Taken {
            conformant,
            delayed: false,
            level: Level {
                remaining,
                reset: 1,
                limit: 100,
            },
        }
    }

    #[test]
    fn only_hot_keys_are_leased_and_only_so_much() {
        let leases = Leases::new();
        let name = leases.name(b"ip", b"a");
        for _ in 1..HOT {
            assert_eq!(leases.take(name, 1, 1_000), Here::Ask { lease: 0 });
        }
        assert_eq!(leases.take(name, 1, 1_000), Here::Ask { lease: 20 });
        let extra = Extra {
            leased: 3,
            refused_ms: 0,
        };
        leases.answered(name, 1, taken(true, 50), extra, 1_000);
        assert_eq!(leases.take(name, 2, 1_010), Here::Answer(taken(true, 48)));
        assert_eq!(leases.take(name, 2, 1_010), Here::Ask { lease: 22 });
        assert_eq!(leases.take(name, 1, 1_099), Here::Answer(taken(true, 47)));
        leases.answered(name, 1, taken(true, 50), extra, 1_100);
        assert_eq!(
            leases.take(name, 1, 1_200),
            Here::Ask { lease: 0 },
            "expired, and cooler"
        );
    }

    #[test]
    fn a_refusal_is_remembered_for_a_moment() {
        let leases = Leases::new();
        let name = leases.name(b"ip", b"a");
        for _ in 0..2 * HOT {
            leases.take(name, 1, 0);
        }
        let extra = Extra {
            leased: 0,
            refused_ms: 40,
        };
        leases.answered(name, 2, taken(false, 1), extra, 0);
        assert_eq!(leases.take(name, 2, 39), Here::Answer(taken(false, 1)));
        assert!(
            matches!(leases.take(name, 1, 39), Here::Ask { .. }),
            "there may be one"
        );
        assert!(matches!(leases.take(name, 2, 40), Here::Ask { .. }));
        leases.answered(name, 2, taken(false, 1), extra, 40);
        leases.forget(name);
        assert!(
            matches!(leases.take(name, 2, 41), Here::Ask { .. }),
            "somebody put some back"
        );
    }
}
