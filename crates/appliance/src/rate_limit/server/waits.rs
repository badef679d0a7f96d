//! WAITs under way on one connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sallyport_wire::rate_limit::{Body, Id, Request, Response};
use tokio::time::Instant;

use crate::rate_limit::limits::{Limits, count};

/// WAITs under way on one client's connection; those above are answered like a TAKE.
pub(super) const WAITS_OF_CLIENT_MAX: usize = 1_000;
/// WAITs under way altogether.
pub(super) const WAITS_MAX: usize = 100_000;

/// An id that outlives its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) enum OwnedId {
    Text(Box<[u8]>),
    Number(i32),
}

impl From<Id<'_>> for OwnedId {
    fn from(id: Id<'_>) -> OwnedId {
        match id {
            Id::Text(text) => OwnedId::Text(text.into()),
            Id::Number(number) => OwnedId::Number(number),
        }
    }
}

impl OwnedId {
    pub(in crate::rate_limit) fn get(&self) -> Id<'_> {
        match self {
            OwnedId::Text(text) => Id::Text(text),
            OwnedId::Number(number) => Id::Number(*number),
        }
    }
}

struct Wait {
    id: OwnedId,
    bucket: Box<[u8]>,
    key: Box<[u8]>,
    count: u32,
    skip_response: bool,
}

/// The WAITs of a connection by the time they are over. What is left when it is dropped gives its
/// tokens back.
pub(super) struct Waits<'a> {
    limits: &'a Limits,
    /// How many there are on all connections.
    everywhere: &'a AtomicUsize,
    most: usize,
    due: BTreeMap<(Instant, u64), Wait>,
    next: u64,
}

impl<'a> Waits<'a> {
    /// At most `most` on this connection.
    pub(super) fn new(limits: &'a Limits, everywhere: &'a AtomicUsize, most: usize) -> Waits<'a> {
        Waits {
            limits,
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
        let wait = Wait {
            id: request.id.into(),
            bucket: request.bucket.into(),
            key: request.key.into(),
            count: count(request).unwrap_or(0),
            skip_response: request.skip_response,
        };
        let due = Instant::now() + Duration::from_millis(ms);
        self.due.insert((due, self.next), wait);
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
            let wait = first.remove();
            self.everywhere.fetch_sub(1, Ordering::Relaxed);
            let body: Body = self.limits.waited(&wait.bucket, &wait.key);
            if !wait.skip_response {
                Response::new(wait.id.get(), body).encode(out);
            }
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        for wait in self.due.values() {
            self.limits.give_up(&wait.bucket, &wait.key, wait.count);
        }
        self.everywhere.fetch_sub(self.due.len(), Ordering::Relaxed);
    }
}
