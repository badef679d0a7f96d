//! What is counted of one request while it is served.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use http::StatusCode;
use sallyport_plugins::{Part, PartOf, Try};
use tokio::time::Instant;

use super::clock::now;
use super::worker::Worker;

/// Numbers of one request. Nothing is counted that nobody asks for.
pub(super) struct Tally {
    /// Slot of the route that was chosen.
    pub(super) slot: Cell<Option<usize>>,
    /// Bytes of the request's body that came.
    pub(super) body_bytes: Cell<u64>,
    /// When the request was sent on, and when the head of the response was there.
    pub(super) proxied: Cell<Option<(Instant, Instant)>>,
    /// `None` if no log plugin wants to know everything. Boxed like what follows, as the tally
    /// moves.
    upstream: Option<Box<RefCell<Upstream>>>,
    /// Where the time went; `None` if nobody traces.
    parts: Option<Box<RefCell<Vec<Span>>>>,
}

/// A part of the request's time.
#[derive(Clone, Copy)]
pub(super) struct Span {
    what: PartOf,
    from: Instant,
    to: Instant,
}

/// What went to the upstream.
#[derive(Default)]
pub(super) struct Upstream {
    /// Path and query.
    pub(super) uri: String,
    pub(super) tries: Vec<Try>,
    /// When each of them began. The clock of everybody is set on each tick of the worker, so all
    /// times of a request are put in it together, at the end: else a part might begin before the
    /// whole.
    began: Vec<Instant>,
}

impl Tally {
    pub(super) fn new(detailed: bool, traced: bool) -> Tally {
        Tally {
            slot: Cell::new(None),
            parts: traced.then(Box::default),
            body_bytes: Cell::new(0),
            proxied: Cell::new(None),
            upstream: detailed.then(Box::default),
        }
    }

    /// Now, if somebody wants to know when parts begin.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.parts.as_ref().map(|_| now())
    }

    /// A part that [began](Tally::begin) then ends.
    pub(super) fn end(&self, what: PartOf, from: Option<Instant>) {
        if let (Some(parts), Some(from)) = (&self.parts, from) {
            let to = now();
            parts.borrow_mut().push(Span { what, from, to });
        }
    }

    /// The parts so far, by the clock of everybody.
    pub(super) fn parts(&mut self, worker: &Worker) -> Vec<Part> {
        let Some(parts) = &mut self.parts else {
            return Vec::new();
        };
        let part = |span: &Span| Part {
            what: span.what,
            start_ns: worker.unix_ns(span.from),
            end_ns: worker.unix_ns(span.to),
        };
        parts.get_mut().iter().map(part).collect()
    }

    /// Whether a log plugin may want to know everything.
    pub(super) fn is_detailed(&self) -> bool {
        self.upstream.is_some()
    }

    /// What went to the upstream so far, by the clock of everybody.
    pub(super) fn upstream(&mut self, worker: &Worker) -> Option<&Upstream> {
        let upstream = self.upstream.as_mut()?.get_mut();
        for (tried, began) in upstream.tries.iter_mut().zip(&upstream.began) {
            tried.balancer_start_ns = worker.unix_ns(*began);
            tried.balancer_start = tried.balancer_start_ns / 1_000_000;
        }
        Some(upstream)
    }

    /// This is what the upstream is asked for.
    pub(super) fn asks(&self, target: &str) {
        if let Some(upstream) = &self.upstream {
            target.clone_into(&mut upstream.borrow_mut().uri);
        }
    }

    /// A try begins.
    pub(super) fn tries(&self) {
        let Some(upstream) = &self.upstream else {
            return;
        };
        let mut upstream = upstream.borrow_mut();
        upstream.began.push(now());
        upstream.tries.push(Try {
            balancer_start: 0,
            balancer_start_ns: 0,
            ip: None,
            port: None,
            balancer_latency: 0,
            balancer_latency_ns: 0,
            keepalive: false,
            state: None,
            code: None,
            status: None,
        });
    }

    /// An address is chosen.
    pub(super) fn dials(&self, address: SocketAddr) {
        self.latest(|tried| {
            tried.ip = Some(address.ip());
            tried.port = Some(address.port());
        });
    }

    /// A connection is there; whether it had served a request before.
    pub(super) fn connected(&self, reused: bool) {
        let Some(upstream) = &self.upstream else {
            return;
        };
        let Upstream { tries, began, .. } = &mut *upstream.borrow_mut();
        if let (Some(tried), Some(began)) = (tries.last_mut(), began.last()) {
            let took = began.elapsed().as_nanos() as u64;
            tried.keepalive = reused;
            tried.balancer_latency = took / 1_000_000;
            tried.balancer_latency_ns = took;
        }
    }

    /// The head of a response is there.
    pub(super) fn answered(&self, status: StatusCode, sent: Instant, at: Instant) {
        self.proxied.set(Some((sent, at)));
        self.latest(|tried| tried.status = Some(status.as_u16()));
    }

    /// The try failed, and this is what it counts as.
    pub(super) fn failed(&self, status: StatusCode) {
        self.latest(|tried| {
            tried.state = Some("failed");
            tried.code = Some(status.as_u16());
            tried.status = tried.code;
        });
    }

    fn latest(&self, then: impl FnOnce(&mut Try)) {
        if let Some(upstream) = &self.upstream
            && let Some(latest) = upstream.borrow_mut().tries.last_mut()
        {
            then(latest);
        }
    }
}
