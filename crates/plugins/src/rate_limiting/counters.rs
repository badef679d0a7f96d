//! Request counts of this node, shared by its cores.
//!
//! Sharded by key, so that cores rarely meet. A count and the decision on it are one step under
//! the shard's lock: a burst on several cores cannot exceed a limit.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::{AHashMap, RandomState};
use uuid::Uuid;

use sallyport_wire::rate_limit::{Period, Window};

const SHARDS: usize = 64;
/// Below this many keys a shard is never swept.
const SWEEP_MIN: usize = 1_024;

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The route that matched.
    pub route: Option<Uuid>,
    /// Its service.
    pub service: Option<Uuid>,
    /// The caller, as `limit_by` says.
    pub identity: Identity,
}

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the values of limit_by")]
pub enum Identity {
    Consumer(Uuid),
    Credential(Uuid),
    Service(Uuid),
    Ip(IpAddr),
    Header(Box<[u8]>),
    Path(Box<str>),
    /// One of several limits of `response-ratelimiting`, for a caller.
    Limit(Arc<str>, Box<Identity>),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Consumer(id) | Identity::Credential(id) | Identity::Service(id) => id.fmt(f),
            Identity::Ip(ip) => ip.fmt(f),
            Identity::Header(value) => f.write_str(&String::from_utf8_lossy(value)),
            Identity::Path(path) => f.write_str(path),
            Identity::Limit(_, caller) => caller.fmt(f),
        }
    }
}

/// Requests counted in one window.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    start_ms: u64,
    end_ms: u64,
    used: u64,
}

impl Count {
    /// What is counted, if this is the count of that window.
    fn in_window(&self, window: Window) -> u64 {
        match self.start_ms == window.start_ms {
            true => self.used,
            false => 0,
        }
    }
}

type Counts = [Count; Period::ALL.len()];

struct Shard {
    counts: AHashMap<Key, Counts>,
    sweep_at: usize,
}

/// Request counts of this node.
pub struct Counters {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

impl Default for Counters {
    fn default() -> Counters {
        let shard = || {
            Mutex::new(Shard {
                counts: AHashMap::new(),
                sweep_at: SWEEP_MIN,
            })
        };
        Counters {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
        }
    }
}

/// One limit and the window it is counted in.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Length of the window.
    pub period: Period,
    /// Requests allowed in it.
    pub limit: u64,
    /// The window that holds the request.
    pub window: Window,
}

/// What was counted before a request, in the order of the limits given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Requests counted in each window before this one.
    pub used: [u64; Period::ALL.len()],
    /// Index of the first limit that refuses this request; then it was not counted.
    pub refused_by: Option<usize>,
}

impl Counters {
    /// Counts a request against all `limits`, or against none if any of them is used up.
    ///
    /// `limits` holds each period at most once.
    pub fn take(&self, key: Key, limits: &[Limit], now_ms: u64) -> Taken {
        let mut shard = self.shard(&key, now_ms);
        let counts = shard.counts.entry(key).or_default();
        let mut taken = Taken {
            used: [0; Period::ALL.len()],
            refused_by: None,
        };
        for (index, limit) in limits.iter().enumerate() {
            taken.used[index] = counts[limit.period as usize].in_window(limit.window);
            if taken.used[index] >= limit.limit && taken.refused_by.is_none() {
                taken.refused_by = Some(index);
            }
        }
        if taken.refused_by.is_none() {
            for (index, limit) in limits.iter().enumerate() {
                let Window { start_ms, end_ms } = limit.window;
                counts[limit.period as usize] = Count {
                    start_ms,
                    end_ms,
                    used: taken.used[index] + 1,
                };
            }
        }
        taken
    }

    /// What is counted in each of the windows now; nothing is counted by asking.
    pub fn used(&self, key: &Key, limits: &[Limit], now_ms: u64) -> [u64; Period::ALL.len()] {
        let shard = self.shard(key, now_ms);
        let mut used = [0; Period::ALL.len()];
        if let Some(counts) = shard.counts.get(key) {
            for (used, limit) in used.iter_mut().zip(limits) {
                *used = counts[limit.period as usize].in_window(limit.window);
            }
        }
        used
    }

    /// Counts `amount` in each of the windows, whatever their limits are.
    pub fn add(&self, key: Key, limits: &[Limit], amount: u64, now_ms: u64) {
        let mut shard = self.shard(&key, now_ms);
        let counts = shard.counts.entry(key).or_default();
        for limit in limits {
            let count = &mut counts[limit.period as usize];
            let Window { start_ms, end_ms } = limit.window;
            *count = Count {
                start_ms,
                end_ms,
                used: count.in_window(limit.window).saturating_add(amount),
            };
        }
    }

    fn shard(&self, key: &Key, now_ms: u64) -> MutexGuard<'_, Shard> {
        let at = self.shard_of(&key.identity);
        let mut shard = self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if shard.counts.len() >= shard.sweep_at {
            shard.sweep(now_ms);
        }
        shard
    }

    /// Which shard counts a caller. Ids are random already; the rest is hashed.
    fn shard_of(&self, identity: &Identity) -> usize {
        let random = match identity {
            Identity::Consumer(id) | Identity::Credential(id) | Identity::Service(id) => {
                id.as_u64_pair().1
            }
            other => self.hasher.hash_one(other),
        };
        random as usize % SHARDS
    }

    /// Keys held now, in windows that may be over.
    pub fn len(&self) -> usize {
        let len = |shard: &Mutex<Shard>| {
            shard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .counts
                .len()
        };
        self.shards.iter().map(len).sum()
    }

    /// Whether nothing was counted yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shard {
    /// Forgets keys whose windows are over, and waits until the rest has doubled.
    fn sweep(&mut self, now_ms: u64) {
        self.counts
            .retain(|_, counts| counts.iter().any(|count| count.end_ms > now_ms));
        self.sweep_at = (self.counts.len() * 2).max(SWEEP_MIN);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u128) -> Key {
        Key {
            route: None,
            service: None,
            identity: Identity::Consumer(Uuid::from_u128(n)),
        }
    }

    fn limit(period: Period, limit: u64, now_ms: u64) -> Limit {
        Limit {
            period,
            limit,
            window: period.window(now_ms),
        }
    }

    #[test]
    fn a_refused_request_is_not_counted_anywhere() {
        let counters = Counters::default();
        let limits = [
            limit(Period::Second, 1, 500),
            limit(Period::Minute, 10, 500),
        ];
        assert_eq!(counters.take(key(1), &limits, 500).refused_by, None);
        for _ in 0..5 {
            assert_eq!(counters.take(key(1), &limits, 500).refused_by, Some(0));
        }
        let next = [
            limit(Period::Second, 1, 1_500),
            limit(Period::Minute, 10, 1_500),
        ];
        let taken = counters.take(key(1), &next, 1_500);
        assert_eq!(
            (taken.refused_by, taken.used[0], taken.used[1]),
            (None, 0, 1)
        );
    }

    #[test]
    fn callers_do_not_share_counts() {
        let counters = Counters::default();
        let limits = [limit(Period::Hour, 1, 0)];
        assert_eq!(counters.take(key(1), &limits, 0).refused_by, None);
        assert_eq!(counters.take(key(2), &limits, 0).refused_by, None);
        assert_eq!(counters.take(key(1), &limits, 0).refused_by, Some(0));
    }

    #[test]
    fn a_burst_on_many_threads_never_exceeds_the_limit() {
        let counters = Counters::default();
        let limits = [limit(Period::Year, 1_000, 0)];
        let allowed: usize = std::thread::scope(|scope| {
            let burst = || {
                (0..500)
                    .filter(|_| counters.take(key(1), &limits, 0).refused_by.is_none())
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(burst)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(allowed, 1_000);
    }

    #[test]
    fn keys_of_past_windows_are_forgotten() {
        let counters = Counters::default();
        for second in 0..200u64 {
            let now_ms = second * 1_000;
            for n in 0..2_000 {
                let limits = [limit(Period::Second, 5, now_ms)];
                counters.take(key(u128::from(second) * 10_000 + n), &limits, now_ms);
            }
        }
        assert!(
            counters.len() < 2 * SHARDS * SWEEP_MIN,
            "{} keys held",
            counters.len()
        );
    }

    proptest! {
        /// Beside a list of the requests that passed, counted anew each time.
        #[test]
        fn a_request_passes_while_every_window_has_room_and_counts_only_then(
            stated in proptest::collection::vec((0_usize..6, 1_u64..5), 1..4),
            steps in proptest::collection::vec((0_u64..40_000, 1_u128..3), 1..60),
        ) {
            let mut stated = stated;
            stated.sort_unstable();
            stated.dedup_by_key(|(period, _)| *period);
            let counters = Counters::default();
            let mut passed: Vec<(u64, u128)> = Vec::new();
            let mut now_ms = 1_709_250_000_000; // a few minutes before a leap day's end
            for (step_ms, caller) in steps {
                now_ms += step_ms;
                let limits: Vec<Limit> = stated
                    .iter()
                    .map(|&(period, most)| limit(Period::ALL[period], most, now_ms))
                    .collect();
                let count = |limit: &Limit| {
                    let inside = |&&(at, who): &&(u64, u128)| {
                        who == caller && (limit.window.start_ms..limit.window.end_ms).contains(&at)
                    };
                    passed.iter().filter(inside).count() as u64
                };
                let expected: Vec<u64> = limits.iter().map(count).collect();
                let full = limits.iter().zip(&expected).position(|(limit, used)| *used >= limit.limit);
                let taken = counters.take(key(caller), &limits, now_ms);
                prop_assert_eq!(taken.refused_by, full);
                prop_assert_eq!(&taken.used[..limits.len()], &expected[..]);
                if full.is_none() {
                    passed.push((now_ms, caller));
                }
            }
        }
    }
}
