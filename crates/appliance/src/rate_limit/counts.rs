//! What gateways count in calendar windows (COUNT).
//!
//! Deciding and counting are one step under one lock, for all windows of a key. Windows are those of
//! this node's clock, so that a gateway's clock decides nothing; a window that was entered is not
//! left for an earlier one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use sallyport_wire::rate_limit::{Counted, Period, Window, Windows};

/// So many that two cores seldom want the same one.
const SHARDS: usize = 64;

/// Requests counted in one window.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    start_ms: u64,
    end_ms: u64,
    used: u64,
}

impl Count {
    /// The window that counts now, and what is counted in it.
    fn at(&self, period: Period, now_ms: u64) -> (Window, u64) {
        let now = period.window(now_ms);
        let this = Window {
            start_ms: self.start_ms,
            end_ms: self.end_ms,
        };
        // A clock that was set back, by less than a window; more than that, and it was wrong before.
        let behind = now.start_ms < self.start_ms && now.end_ms >= self.start_ms;
        match now.start_ms == self.start_ms || behind {
            true if self.end_ms > 0 => (this, self.used),
            _ => (now, 0),
        }
    }
}

type Counts = [Count; Period::ALL.len()];
type Shard = HashMap<Box<[u8]>, Counts, RandomState>;

/// All counts.
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    len: AtomicUsize,
    len_max: usize,
}

impl Table {
    pub(super) fn new(len_max: usize) -> Table {
        Table {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            len: AtomicUsize::new(0),
            len_max,
        }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Counts one more in every limited window, or in none if one of them is full. The flag says
    /// whether that is kept: not where the table is full and the key is not in it.
    pub(super) fn count(&self, key: &[u8], windows: &Windows, now_ms: u64) -> (Counted, bool) {
        let at = self.hasher.hash_one(key) as usize % self.shards.len();
        let mut shard = lock(&self.shards[at]);
        if let Some(counts) = shard.get_mut(key) {
            return (step(counts, windows, now_ms), true);
        }
        let mut counts = Counts::default();
        let counted = step(&mut counts, windows, now_ms);
        if self.len() >= self.len_max {
            return (counted, false);
        }
        shard.insert(key.into(), counts);
        self.len.fetch_add(1, Ordering::Relaxed);
        (counted, true)
    }

    /// Forgets, in one part of [`SHARDS`], keys whose windows are over.
    pub(super) fn sweep(&self, part: usize, now_ms: u64) {
        let Some(shard) = self.shards.get(part) else {
            return;
        };
        let mut shard = lock(shard);
        let before = shard.len();
        shard.retain(|_, counts| counts.iter().any(|count| count.end_ms > now_ms));
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
            shard.shrink_to_fit();
        }
        self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
    }
}

fn step(counts: &mut Counts, windows: &Windows, now_ms: u64) -> Counted {
    let mut counted = Counted::default();
    let mut now = [None; Period::ALL.len()];
    for (at, period) in Period::ALL.into_iter().enumerate() {
        let Some(limit) = windows.0[at] else { continue };
        let (window, used) = counts[at].at(period, now_ms);
        counted.used[at] = used;
        now[at] = Some(window);
        if used >= limit && counted.refused_by.is_none() {
            counted.refused_by = Some(period);
        }
    }
    if counted.refused_by.is_none() {
        for (at, window) in now.into_iter().enumerate() {
            if let Some(Window { start_ms, end_ms }) = window {
                let used = counted.used[at] + 1;
                counts[at] = Count {
                    start_ms,
                    end_ms,
                    used,
                };
            }
        }
    }
    counted
}

/// Counts are whole after every step.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(second: Option<u64>, hour: Option<u64>) -> Windows {
        Windows([second, None, hour, None, None, None])
    }

    #[test]
    fn a_refused_request_is_counted_nowhere() {
        let table = Table::new(10);
        let windows = limits(Some(2), Some(3));
        let used = |ms| {
            let (counted, kept) = table.count(b"k", &windows, ms);
            assert!(kept);
            (counted.used[0], counted.used[2], counted.refused_by)
        };
        assert_eq!(used(0), (0, 0, None));
        assert_eq!(used(1), (1, 1, None));
        assert_eq!(used(2), (2, 2, Some(Period::Second)));
        assert_eq!(used(1_000), (0, 2, None));
        assert_eq!(used(2_000), (0, 3, Some(Period::Hour)));
        assert_eq!(used(3_600_000), (0, 0, None));
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing_away() {
        let table = Table::new(10);
        let windows = limits(None, Some(1));
        assert_eq!(table.count(b"k", &windows, 3_600_000).0.refused_by, None);
        let back = table.count(b"k", &windows, 3_599_000).0;
        assert_eq!(back.refused_by, Some(Period::Hour));
        // a clock that was a day ahead does not shut anybody out for a day
        table.count(b"l", &windows, 90_000_000);
        assert_eq!(table.count(b"l", &windows, 3_600_000).0.refused_by, None);
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let table = Table::new(2);
        let windows = limits(Some(1), None);
        for (key, kept) in [(b"a", true), (b"b", true), (b"c", false)] {
            assert_eq!(table.count(key, &windows, 0).1, kept);
        }
        for part in 0..SHARDS {
            table.sweep(part, 1_000);
        }
        assert_eq!(table.len(), 0);
    }
}
