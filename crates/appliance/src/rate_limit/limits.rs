//! Requests answered from this node's buckets.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use sallyport_wire::rate_limit::{
    Body, ErrorKind, Extra, Item, Level, Method, Request, Taken, Windows,
};
use tracing::{debug, warn};

use super::bucket::{Now, Waiting};
use super::counts;
use super::snapshot::{self, Kept};
use super::table::{Absent, Table, Unlimited};
use super::types::{BucketType, Known, Limit, Types};

/// Buckets in memory at most, about 100 bytes each.
pub const BUCKETS_MAX: usize = 4_000_000;
/// Buckets that a STATUS lists at most. Source: limitdb.
pub(super) const STATUS_MAX: usize = 100;
/// The part of a bucket's content that may be debited ahead for another node.
const LEASE_PART: u32 = 4;

/// What a PING is answered with: no version, as the server 7.0.2 does. From version 2 on clients
/// number their requests by an int32 that they count up past its end.
const PONG_VERSION: u32 = 0;

/// All buckets of this node, and the types they are of.
pub struct Limits {
    types: ArcSwap<Types>,
    table: Table,
    /// What gateways count in calendar windows.
    counts: counts::Table,
    /// Numbers of types by name, also of those that are gone.
    ids: Mutex<HashMap<String, u32>>,
    started: Instant,
    /// The TAKEs that were granted without a count because the table was full.
    uncounted: AtomicU64,
}

/// What comes of a request.
#[derive(Debug)]
pub enum Answer {
    /// This.
    Now(Body, Extra),
    /// The WAIT's tokens are reserved and there in so many milliseconds. After them
    /// [`Limits::waited`] gives the answer; [`Limits::give_up`] gives the tokens back.
    Later {
        /// From now.
        ms: u64,
    },
}

impl Limits {
    /// Buckets of these types, all full; at most `buckets_max` are kept.
    pub fn new(types: Vec<BucketType>, buckets_max: usize) -> Limits {
        let limits = Limits {
            types: ArcSwap::default(),
            table: Table::new(buckets_max),
            counts: counts::Table::new(buckets_max),
            ids: Mutex::default(),
            started: Instant::now(),
            uncounted: AtomicU64::new(0),
        };
        limits.swap(types);
        limits
    }

    /// From now on these types hold. Buckets stay as full as they are, but not fuller than their
    /// new size.
    pub fn swap(&self, types: Vec<BucketType>) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.types.load().generation.wrapping_add(1);
        let numbered = types.into_iter().map(|of| {
            let next = u32::try_from(ids.len()).expect("fewer types than bytes of memory");
            let id = *ids.entry(of.name.clone()).or_insert(next);
            Known { id, of }
        });
        self.types.store(Arc::new(Types::new(generation, numbered)));
    }

    /// The types in force; held for as long as a batch of requests takes.
    pub fn types(&self) -> Arc<Types> {
        self.types.load_full()
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let ms =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Now {
            ms: ms(self.started.elapsed()),
            unix_ms: ms(SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()),
        }
    }

    /// How many buckets are in memory.
    pub fn len(&self) -> usize {
        self.table.len() + self.counts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does what a request asks. `lease` is only listened to if the caller may debit ahead.
    pub fn answer(&self, types: &Types, request: &Request<'_>, now: Now) -> Answer {
        let done = |body| Answer::Now(body, Extra::default());
        if request.method == Method::Ping {
            return done(Body::Pong {
                version: PONG_VERSION,
            });
        }
        if request.method == Method::Count {
            return done(self.count(request, now));
        }
        let Some(known) = types.get(request.bucket) else {
            debug!(
                bucket = %String::from_utf8_lossy(request.bucket),
                "a request for a bucket type that does not exist"
            );
            return done(Body::Error(ErrorKind::UnknownBucketType));
        };
        let asked = count(request);
        match (request.method, asked) {
            (Method::Take, Some(count)) => self.take(types, known, request, count, now),
            (Method::Wait, Some(count)) => self.wait(types, known, request.key, count, now),
            // Nothing can be taken back by taking less than nothing.
            (Method::Take | Method::Wait, None) => {
                done(refused(self.get(types, known, request.key, now)))
            }
            (Method::Put, Some(count)) => {
                let count = Some(count).filter(|_| !request.all);
                done(Body::Put(self.put(types, known, request.key, count, now)))
            }
            (Method::Put, None) => done(Body::Put(self.get(types, known, request.key, now))),
            (Method::Get, _) => done(Body::Get(self.get(types, known, request.key, now))),
            (Method::Status, _) => done(Body::Status(self.status(types, known, request.key, now))),
            (Method::Ping | Method::Count, _) => unreachable!("answered above"),
        }
    }

    fn take(
        &self,
        types: &Types,
        known: &Known,
        request: &Request<'_>,
        count: u32,
        now: Now,
    ) -> Answer {
        let act = |limit: &Limit, bucket: &mut super::bucket::Bucket| {
            let rule = &limit.rule;
            let taken = bucket.take(rule, count, now);
            let mut extra = Extra::default();
            if request.lease > 0 {
                if taken.conformant {
                    let most = request.lease.min(taken.level.remaining / LEASE_PART);
                    extra.leased = bucket.take_up_to(rule, most, now);
                } else {
                    let ms = bucket.refused_ms(rule, count, now).unwrap_or(u64::MAX);
                    extra.refused_ms = u32::try_from(ms).unwrap_or(u32::MAX);
                }
            }
            (taken, extra)
        };
        let (taken, extra) =
            match self
                .table
                .with(types, known, request.key, now, Absent::Keep, act)
            {
                Ok((done, kept)) => {
                    self.note(kept);
                    done
                }
                Err(unlimited) => {
                    let taken = Taken {
                        conformant: true,
                        delayed: false,
                        level: free(&unlimited, now),
                    };
                    (taken, Extra::default())
                }
            };
        Answer::Now(Body::Take(taken), extra)
    }

    fn wait(&self, types: &Types, known: &Known, key: &[u8], count: u32, now: Now) -> Answer {
        let taken = |conformant, level| {
            let delayed = false;
            let taken = Taken {
                conformant,
                delayed,
                level,
            };
            Answer::Now(Body::Take(taken), Extra::default())
        };
        let waiting = self
            .table
            .with(types, known, key, now, Absent::Keep, |limit, bucket| {
                bucket.wait(&limit.rule, count, now)
            });
        match waiting {
            Ok((Waiting::Taken(level), kept)) => {
                self.note(kept);
                taken(true, level)
            }
            Ok((Waiting::Reserved { ms }, _)) => Answer::Later { ms },
            Ok((Waiting::Never(level), _)) => taken(false, level),
            Err(unlimited) => taken(true, free(&unlimited, now)),
        }
    }

    fn put(&self, types: &Types, known: &Known, key: &[u8], count: Option<u32>, now: Now) -> Level {
        let put =
            |limit: &Limit, bucket: &mut super::bucket::Bucket| bucket.put(&limit.rule, count, now);
        match self.table.with(types, known, key, now, Absent::Forget, put) {
            Ok((level, _)) => level,
            Err(unlimited) => Level {
                reset: 0,
                ..free(&unlimited, now)
            },
        }
    }

    fn get(&self, types: &Types, known: &Known, key: &[u8], now: Now) -> Level {
        let get = |limit: &Limit, bucket: &mut super::bucket::Bucket| bucket.get(&limit.rule, now);
        match self.table.with(types, known, key, now, Absent::Forget, get) {
            Ok((level, _)) => level,
            Err(unlimited) => free(&unlimited, now),
        }
    }

    fn count(&self, request: &Request<'_>, now: Now) -> Body {
        let Ok(windows) = Windows::decode(request.windows) else {
            return Body::Error(ErrorKind::UnknownBucketType);
        };
        let (counted, kept) = self.counts.count(request.key, &windows, now.unix_ms);
        self.note(kept);
        Body::Count(counted)
    }

    fn status(&self, types: &Types, known: &Known, prefix: &[u8], now: Now) -> Vec<Item> {
        self.table.scan(types, known, prefix, now, STATUS_MAX)
    }

    /// The answer to a WAIT whose tokens were reserved, once their time has come.
    pub fn waited(&self, bucket: &[u8], key: &[u8]) -> Body {
        let (types, now) = (self.types(), self.now());
        let level = types
            .get(bucket)
            .map(|known| self.get(&types, known, key, now));
        // A type that is gone since has no limit any more.
        Body::Take(Taken {
            conformant: true,
            delayed: true,
            level: level.unwrap_or_default(),
        })
    }

    /// Gives back what a WAIT had reserved.
    pub fn give_up(&self, bucket: &[u8], key: &[u8], count: u32) {
        let types = self.types();
        if let Some(known) = types.get(bucket) {
            self.put(&types, known, key, Some(count), self.now());
        }
    }

    /// The buckets that outlive a restart.
    pub(super) fn kept(&self) -> Vec<Kept> {
        let (types, now) = (self.types(), self.now());
        let mut kept = Vec::new();
        for known in types
            .iter()
            .filter(|it| snapshot::is_kept(&it.of.limit(0).rule))
        {
            let all = self.table.scan(&types, known, b"", now, usize::MAX / 2);
            let full = |item: &Item| item.level.remaining == item.level.limit;
            let items = all.into_iter().filter(|item| !full(item));
            kept.extend(items.map(|Item { key, level }| {
                Kept::new(&known.of.name, &key, level.remaining, level.reset)
            }));
        }
        kept
    }

    /// Takes from a bucket what was missing in it; false if there is no such bucket any more.
    pub(super) fn restore(&self, kept: &Kept) -> bool {
        let (types, now) = (self.types(), self.now());
        let (Some(known), Some(key)) = (types.get(kept.bucket.as_bytes()), kept.key()) else {
            return false;
        };
        let take = |limit: &Limit, bucket: &mut super::bucket::Bucket| {
            let missing = kept.missing(&limit.rule, now);
            bucket.take_up_to(&limit.rule, missing, now);
        };
        self.table
            .with(&types, known, &key, now, Absent::Keep, take)
            .is_ok()
    }

    /// Forgets buckets that are as good as unused, in one of [`parts`](Limits::parts).
    pub fn sweep(&self, part: usize) {
        self.sweep_at(part, self.now());
        let uncounted = self.uncounted.swap(0, Ordering::Relaxed);
        if uncounted > 0 {
            warn!(
                uncounted,
                buckets = self.len(),
                "too many buckets: requests for new keys are granted without a count"
            );
        }
    }

    pub(super) fn sweep_at(&self, part: usize, now: Now) {
        self.table.sweep(part, &self.types(), now);
        self.counts.sweep(part, now.unix_ms);
    }

    /// How many parts [`sweep`](Limits::sweep) goes through.
    pub fn parts(&self) -> usize {
        self.table.parts()
    }

    fn note(&self, kept: bool) {
        if !kept {
            self.uncounted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Tokens asked for: absent and 0 are 1; `None` if it is below zero. Source: limitd.
pub(super) fn count(request: &Request<'_>) -> Option<u32> {
    match request.count {
        None | Some(0) => Some(1),
        Some(count) => u32::try_from(count).ok(),
    }
}

/// A refusal at this level.
pub(super) fn refused(level: Level) -> Body {
    Body::Take(Taken {
        conformant: false,
        delayed: false,
        level,
    })
}

/// How full an unlimited bucket is said to be.
fn free(Unlimited(limit): &Unlimited, now: Now) -> Level {
    Level {
        remaining: limit.rule.size,
        reset: now.unix_ms.div_ceil(1000),
        limit: limit.rule.size,
    }
}
