//! What one worker counts.

use std::collections::hash_map::Entry as Entered;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ahash::AHashMap;
use sallyport_wire::telemetry::{Dimensions, StatusClass, Totals};
use uuid::Uuid;

use super::{Folded, Inbox};

/// Combinations that a worker tells apart between two hand-ins; what comes then is counted as one.
pub(super) const COMBINATIONS_MAX: usize = 10_000;

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) route: Option<Uuid>,
    pub(crate) service: Option<Uuid>,
    pub(crate) consumer: Option<Uuid>,
    /// The service's `host`.
    pub(crate) upstream: Option<&'a str>,
    pub(crate) status: u16,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) latency_ns: u64,
    /// `None` if no upstream answered.
    pub(crate) upstream_latency_ns: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    route: Option<Uuid>,
    service: Option<Uuid>,
    consumer: Option<Uuid>,
    class: StatusClass,
    overflow: bool,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // the service follows from the route, and the flag comes alone
        for id in [self.route, self.consumer] {
            state.write_u128(id.map_or(0, |id| id.as_u128()));
        }
        state.write_u8(self.class.hundreds());
    }
}

struct Entry {
    /// Not part of the key: it follows from the service, but for the moment of a change.
    upstream: Option<Arc<str>>,
    totals: Totals,
}

/// Requests since the last hand-in.
pub(crate) struct Fold {
    open: AHashMap<Key, Entry>,
    /// Those whose service got another upstream meanwhile.
    moved: Folded,
    inbox: Inbox,
}

impl Fold {
    pub(crate) fn new(inbox: Inbox) -> Fold {
        Fold {
            open: AHashMap::new(),
            moved: Folded::new(),
            inbox,
        }
    }

    /// Counts a request.
    pub(crate) fn add(&mut self, request: &Request<'_>) {
        let mut key = Key {
            route: request.route,
            service: request.service,
            consumer: request.consumer,
            class: StatusClass::of(request.status),
            overflow: false,
        };
        let found = self.open.get_mut(&key);
        let entry = match found.filter(|entry| entry.upstream.as_deref() == request.upstream) {
            Some(entry) => entry,
            None => {
                if let Some(entry) = self.open.remove(&key) {
                    let dimensions = dimensions(key, entry.upstream);
                    let moved = self.moved.entry(dimensions).or_default();
                    moved.merge(&entry.totals);
                }
                let mut upstream = request.upstream;
                if self.open.len() + self.moved.len() >= COMBINATIONS_MAX {
                    upstream = None;
                    key = Key {
                        route: None,
                        service: None,
                        consumer: None,
                        overflow: true,
                        ..key
                    };
                }
                self.open.entry(key).or_insert_with(|| Entry {
                    upstream: upstream.map(Into::into),
                    totals: Totals::default(),
                })
            }
        };
        let totals = &mut entry.totals;
        totals.request_bytes = totals.request_bytes.saturating_add(request.request_bytes);
        totals.response_bytes = totals.response_bytes.saturating_add(request.response_bytes);
        totals.latency.record(request.latency_ns);
        if let Some(latency) = request.upstream_latency_ns {
            totals.upstream_latency.record(latency);
        }
    }

    /// Hands in what was counted, and begins anew.
    pub(crate) fn hand_in(&mut self) {
        if self.open.is_empty() && self.moved.is_empty() {
            return;
        }
        let mut folded = std::mem::take(&mut self.moved);
        for (key, Entry { upstream, totals }) in self.open.drain() {
            match folded.entry(dimensions(key, upstream)) {
                Entered::Vacant(place) => _ = place.insert(totals),
                Entered::Occupied(known) => known.into_mut().merge(&totals),
            }
        }
        self.inbox.hand_in(folded);
    }
}

fn dimensions(key: Key, upstream: Option<Arc<str>>) -> Dimensions {
    match key.overflow {
        true => Dimensions::overflow(key.class),
        false => Dimensions {
            service: key.service,
            route: key.route,
            consumer: key.consumer,
            class: key.class,
            upstream,
            overflow: false,
        },
    }
}
