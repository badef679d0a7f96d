//! WAITs under way on one connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sallyport_wire::rate_limit::{Body, Request, Response};
use tokio::time::Instant;

use super::owned::OwnedRequest;
use crate::rate_limit::limits::{Limits, count};
use crate::rate_limit::redis::Redis;

/// WAITs under way on one client's connection; those above are answered like a TAKE.
pub(super) const WAITS_OF_CLIENT_MAX: usize = 1_000;
/// WAITs under way altogether.
pub(super) const WAITS_MAX: usize = 100_000;

/// The WAITs of a connection by the time they are over. What is left when it is dropped gives its
/// tokens back.
pub(super) struct Waits<'a> {
    limits: &'a Limits,
    redis: Option<&'a Redis>,
    /// How many there are on all connections.
    everywhere: &'a AtomicUsize,
    most: usize,
    /// With the answer where the tokens were taken in Redis.
    due: BTreeMap<(Instant, u64), (OwnedRequest, Option<Body>)>,
    next: u64,
}

impl<'a> Waits<'a> {
    /// At most `most` on this connection.
    pub(super) fn new(
        limits: &'a Limits,
        redis: Option<&'a Redis>,
        everywhere: &'a AtomicUsize,
        most: usize,
    ) -> Waits<'a> {
        Waits {
            limits,
            redis,
            everywhere,
            most,
            due: BTreeMap::new(),
            next: 0,
        }
    }

    /// Whether one more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.due.len() < self.most && self.everywhere.load(Ordering::Relaxed) < WAITS_MAX
    }

    /// A WAIT whose tokens are reserved and there in `ms`.
    pub(super) fn add(&mut self, request: &Request<'_>, ms: u64) {
        self.insert(request.into(), ms, None);
    }

    /// As [`add`](Waits::add), for tokens that were taken in Redis.
    pub(super) fn add_taken(&mut self, request: OwnedRequest, ms: u64, body: Body) {
        self.insert(request, ms, Some(body));
    }

    fn insert(&mut self, request: OwnedRequest, ms: u64, body: Option<Body>) {
        let due = Instant::now() + Duration::from_millis(ms);
        self.due.insert((due, self.next), (request, body));
        self.next += 1;
        self.everywhere.fetch_add(1, Ordering::Relaxed);
    }

    /// When the first one is over.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// Appends the answers of those that are over.
    pub(super) fn answer(&mut self, out: &mut Vec<u8>) {
        let now = Instant::now();
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > now {
                return;
            }
            let (wait, body) = first.remove();
            self.everywhere.fetch_sub(1, Ordering::Relaxed);
            let wait = wait.get();
            let body = body.unwrap_or_else(|| self.limits.waited(wait.bucket, wait.key));
            if !wait.skip_response {
                Response::new(wait.id, body).encode(out);
            }
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        for (wait, taken) in self.due.values() {
            let wait = wait.get();
            match (taken, self.redis) {
                (Some(_), Some(redis)) => {
                    redis.give_up(&self.limits.types(), &wait, self.limits.now());
                }
                _ => {
                    let count = count(&wait).unwrap_or(0);
                    self.limits.give_up(wait.bucket, wait.key, count);
                }
            }
        }
        self.everywhere.fetch_sub(self.due.len(), Ordering::Relaxed);
    }
}
