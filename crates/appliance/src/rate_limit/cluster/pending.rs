//! What is on its way to other nodes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sallyport_wire::rate_limit::{Body, Item, Request, Response};

use crate::rate_limit::limits::STATUS_MAX;
use crate::rate_limit::server::{Outbox, OwnedId, OwnedRequest};

/// Why a request comes back without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) enum Why {
    /// The node did not answer in time.
    Silent,
    /// The connection is down, so the key belongs to another node now.
    Gone,
}

/// A STATUS whose parts come from several nodes.
pub(in crate::rate_limit) struct Gathered {
    id: OwnedId,
    items: Mutex<Vec<Item>>,
    missing: AtomicUsize,
    outbox: Arc<Outbox>,
}

impl Gathered {
    /// One part, this node's own, is missing; `outbox` owes the answer.
    pub(in crate::rate_limit) fn new(id: OwnedId, outbox: Arc<Outbox>) -> Gathered {
        Gathered {
            id,
            items: Mutex::default(),
            missing: AtomicUsize::new(1),
            outbox,
        }
    }

    /// A part has come, or will not come. The last one sends the answer.
    pub(in crate::rate_limit) fn part(&self, part: Vec<Item>) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.extend(part);
        if self.missing.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let mut items = std::mem::take(&mut *items);
        items.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        // A key that moved may still be on its former node; the fuller one is the older.
        items.dedup_by(|later, first| {
            let same = later.key == first.key;
            if same && later.level.remaining < first.level.remaining {
                first.level = later.level;
            }
            same
        });
        items.truncate(STATUS_MAX);
        let response = Response::new(self.id.get(), Body::Status(items));
        self.outbox.pay(|out| response.encode(out));
    }
}

/// Where an answer goes.
pub(super) enum To {
    Client(Arc<Outbox>),
    Part(Arc<Gathered>),
    Nobody,
}

/// A request on its way.
pub(super) struct Pending {
    pub(super) to: To,
    pub(super) request: OwnedRequest,
    /// The key's name among leases, and the tokens asked for ahead.
    pub(super) lease: Option<(u64, u32)>,
}

impl Pending {
    /// A client's request.
    pub(super) fn new(
        request: &Request<'_>,
        outbox: Arc<Outbox>,
        lease: Option<(u64, u32)>,
    ) -> Pending {
        Pending {
            to: To::Client(outbox),
            request: request.into(),
            lease,
        }
    }

    /// A part of a STATUS.
    pub(super) fn part(request: &Request<'_>, gathered: Arc<Gathered>) -> Pending {
        gathered.missing.fetch_add(1, Ordering::Relaxed);
        Pending {
            to: To::Part(gathered),
            request: request.into(),
            lease: None,
        }
    }

    /// Sends it back to where it is from.
    pub(super) fn come_back(self, why: Why) {
        match self.to {
            To::Client(outbox) => outbox.give_back(self.request, why),
            To::Part(gathered) => gathered.part(Vec::new()),
            To::Nobody => {}
        }
    }
}
