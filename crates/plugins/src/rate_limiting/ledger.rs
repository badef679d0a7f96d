//! What one gateway counted since it last told Redis, and what Redis said then.

use ahash::AHashMap;

use super::counters::{Key, Limit, Taken};
use sallyport_wire::rate_limit::Period;

/// One count.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Begin and end of its window; 0 if it was never read.
    start_ms: u64,
    end_ms: u64,
    /// What all gateways had counted, as Redis said.
    known: u64,
    /// When it said so.
    known_at_ms: u64,
    /// Counted here and on its way to Redis.
    on_its_way: u64,
    /// Counted here since.
    since: u64,
}

impl Entry {
    fn used(&self) -> u64 {
        self.known
            .saturating_add(self.on_its_way)
            .saturating_add(self.since)
    }
}

/// Counts by key.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    counts: AHashMap<Key, [Entry; Period::ALL.len()]>,
    /// Sum of what was counted since.
    untold: u64,
    /// Whether somebody is to tell Redis.
    armed: bool,
}

/// What is to be added to one count in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) key: Key,
    pub(super) period: Period,
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
    pub(super) amount: u64,
}

impl Ledger {
    /// Decides on a request and counts it if it passes; `None` if some count was not read in the
    /// last `stale_ms`, so that Redis must be asked first.
    pub(super) fn take(
        &mut self,
        key: &Key,
        limits: &[Limit],
        now_ms: u64,
        stale_ms: u64,
    ) -> Option<Taken> {
        let entries = self.counts.get_mut(key)?;
        let mut taken = Taken {
            used: [0; Period::ALL.len()],
            refused_by: None,
        };
        for (index, limit) in limits.iter().enumerate() {
            let entry = &entries[limit.period as usize];
            let is_fresh = now_ms < entry.known_at_ms.saturating_add(stale_ms);
            if entry.start_ms != limit.window.start_ms || entry.end_ms == 0 || !is_fresh {
                return None;
            }
            taken.used[index] = entry.used();
            if taken.used[index] >= limit.limit && taken.refused_by.is_none() {
                taken.refused_by = Some(index);
            }
        }
        if taken.refused_by.is_none() {
            for limit in limits {
                entries[limit.period as usize].since += 1;
                self.untold += 1;
            }
        }
        Some(taken)
    }

    /// Notes what Redis says of a key.
    pub(super) fn learn(&mut self, key: &Key, limits: &[Limit], used: &[u64], now_ms: u64) {
        let entries = self.counts.entry(key.clone()).or_default();
        for (limit, used) in limits.iter().zip(used) {
            let entry = &mut entries[limit.period as usize];
            if entry.start_ms != limit.window.start_ms || entry.end_ms == 0 {
                self.untold = self.untold.saturating_sub(entry.since);
                *entry = Entry {
                    start_ms: limit.window.start_ms,
                    end_ms: limit.window.end_ms,
                    ..Entry::default()
                };
            }
            // what is on its way may be in it already: better twice for a moment than never
            entry.known = *used;
            entry.known_at_ms = now_ms;
        }
    }

    /// Whether Redis is to be told and nobody is about to; from then on the caller is.
    pub(super) fn arm(&mut self) -> bool {
        let arms = self.untold > 0 && !self.armed;
        self.armed |= arms;
        arms
    }

    /// What Redis is to be told now. Windows that are over are forgotten: nobody asks for them.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Due> {
        let mut due = Vec::new();
        self.counts.retain(|key, entries| {
            for (period, entry) in Period::ALL.into_iter().zip(entries.iter_mut()) {
                if entry.end_ms <= now_ms {
                    *entry = Entry::default();
                } else if entry.since > 0 {
                    due.push(Due {
                        key: key.clone(),
                        period,
                        start_ms: entry.start_ms,
                        end_ms: entry.end_ms,
                        amount: entry.since,
                    });
                    entry.on_its_way += std::mem::take(&mut entry.since);
                }
            }
            entries.iter().any(|entry| entry.end_ms > 0)
        });
        self.untold = 0;
        due
    }

    /// Redis was told, and says what the counts are now.
    pub(super) fn told(&mut self, due: &[Due], totals: &[u64], now_ms: u64) {
        for (due, total) in due.iter().zip(totals) {
            if let Some(entry) = self.entry(due) {
                entry.on_its_way = entry.on_its_way.saturating_sub(due.amount);
                entry.known = *total;
                entry.known_at_ms = now_ms;
            }
        }
    }

    /// Redis could not be told; it will be the next time.
    pub(super) fn untold(&mut self, due: &[Due]) {
        for due in due {
            let Some(entry) = self.entry(due) else {
                continue;
            };
            entry.on_its_way = entry.on_its_way.saturating_sub(due.amount);
            entry.since += due.amount;
            self.untold += due.amount;
        }
    }

    /// One round of telling is over; whether another is to follow, by the same caller.
    pub(super) fn again(&mut self) -> bool {
        self.armed = self.untold > 0;
        self.armed
    }

    fn entry(&mut self, due: &Due) -> Option<&mut Entry> {
        let entry = &mut self.counts.get_mut(&due.key)?[due.period as usize];
        (entry.start_ms == due.start_ms && entry.end_ms == due.end_ms).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::rate_limiting::counters::Identity;

    const STALE_MS: u64 = 2_000;

    fn key(n: u128) -> Key {
        Key {
            route: None,
            service: None,
            identity: Identity::Consumer(Uuid::from_u128(n)),
        }
    }

    fn limits(now_ms: u64) -> [Limit; 2] {
        [(Period::Minute, 3), (Period::Hour, 5)].map(|(period, limit)| Limit {
            period,
            limit,
            window: period.window(now_ms),
        })
    }

    #[test]
    fn what_was_not_read_is_not_decided() {
        let mut ledger = Ledger::default();
        let limits_now = limits(1_000);
        assert_eq!(ledger.take(&key(1), &limits_now, 1_000, STALE_MS), None);
        ledger.learn(&key(1), &limits_now, &[1, 1], 1_000);
        let taken = ledger.take(&key(1), &limits_now, 1_000, STALE_MS).unwrap();
        assert_eq!((taken.used[0], taken.refused_by), (1, None));
        let taken = ledger.take(&key(1), &limits_now, 2_999, STALE_MS).unwrap();
        assert_eq!((taken.used[0], taken.refused_by), (2, None));
        let taken = ledger.take(&key(1), &limits_now, 2_999, STALE_MS).unwrap();
        assert_eq!((taken.used[0], taken.refused_by), (3, Some(0)));
        assert_eq!(ledger.take(&key(1), &limits_now, 3_000, STALE_MS), None);
        assert_eq!(ledger.take(&key(2), &limits_now, 1_000, STALE_MS), None);
        // a new minute was not read
        let later = limits(60_500);
        ledger.learn(&key(1), &limits_now, &[3, 3], 59_900);
        assert_eq!(ledger.take(&key(1), &later, 60_500, STALE_MS), None);
    }

    #[test]
    fn what_was_counted_is_told_once() {
        let mut ledger = Ledger::default();
        let limits = limits(1_000);
        ledger.learn(&key(1), &limits, &[0, 0], 1_000);
        assert!(!ledger.arm(), "nothing to tell");
        for _ in 0..2 {
            ledger.take(&key(1), &limits, 1_000, STALE_MS);
        }
        assert!(ledger.arm());
        assert!(!ledger.arm(), "somebody does it");
        let due = ledger.due(1_100);
        assert_eq!(due.iter().map(|due| due.amount).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(ledger.due(1_100), []);
        // another gateway counted one meanwhile
        ledger.told(&due, &[3, 3], 1_200);
        assert!(!ledger.again());
        let taken = ledger.take(&key(1), &limits, 1_200, STALE_MS).unwrap();
        assert_eq!((taken.used[0], taken.refused_by), (3, Some(0)));
    }

    #[test]
    fn what_could_not_be_told_stays() {
        let mut ledger = Ledger::default();
        let limits = limits(1_000);
        ledger.learn(&key(1), &limits, &[0, 0], 1_000);
        ledger.take(&key(1), &limits, 1_000, STALE_MS);
        assert!(ledger.arm());
        let due = ledger.due(1_100);
        ledger.take(&key(1), &limits, 1_100, STALE_MS);
        ledger.untold(&due);
        assert!(ledger.again());
        let due = ledger.due(1_200);
        assert_eq!(due.iter().map(|due| due.amount).collect::<Vec<_>>(), [2, 2]);
        ledger.untold(&due);
        // the minute is over, the hour is not
        let due = ledger.due(60_000);
        let left: Vec<_> = due.iter().map(|due| (due.period, due.amount)).collect();
        assert_eq!(left, [(Period::Hour, 2)]);
        ledger.untold(&due);
        assert_eq!(ledger.due(3_600_000), []);
        assert!(!ledger.again());
        assert!(ledger.counts.is_empty());
    }

    proptest! {
        /// One gateway alone: whatever fails on the way, Redis has what passed once all is told,
        /// and nobody passes over the limit.
        #[test]
        fn nothing_is_lost_or_told_twice(steps in proptest::collection::vec(0_u8..4, 1..80)) {
            let mut ledger = Ledger::default();
            let limits = limits(1_000);
            let (mut redis, mut passed) = ([0_u64; 2], 0_u64);
            let tell = |ledger: &mut Ledger, redis: &mut [u64; 2]| {
                let due = ledger.due(1_000);
                let mut totals = Vec::new();
                for due in &due {
                    let at = usize::from(due.period == Period::Hour);
                    redis[at] += due.amount;
                    totals.push(redis[at]);
                }
                ledger.told(&due, &totals, 1_000);
            };
            ledger.learn(&key(1), &limits, &redis, 1_000);
            for step in steps {
                match step {
                    0 | 1 => {
                        let taken = ledger.take(&key(1), &limits, 1_000, STALE_MS).unwrap();
                        passed += u64::from(taken.refused_by.is_none());
                        prop_assert!(passed <= 3);
                    }
                    2 => {
                        let due = ledger.due(1_000);
                        ledger.untold(&due);
                    }
                    _ => tell(&mut ledger, &mut redis),
                }
            }
            tell(&mut ledger, &mut redis);
            prop_assert_eq!(redis, [passed; 2]);
        }
    }
}
