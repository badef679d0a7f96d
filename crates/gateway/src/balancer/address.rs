//! One address behind an upstream, and what all workers know about it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::circuit::{Circuit, Limits, Report};
use super::latency::Average;

/// An address and its state. It outlives configurations as long as it stays in its upstream.
#[derive(Debug)]
pub(crate) struct Address {
    /// Where it is.
    pub(crate) socket: SocketAddr,
    /// The name it was found by, or the address itself.
    pub(crate) host: Box<str>,
    circuit: AtomicU64,
    latency: AtomicU64,
    in_flight: AtomicU32,
}

impl Address {
    /// A healthy address that nobody uses.
    pub(crate) fn new(socket: SocketAddr, host: &str) -> Address {
        Address {
            socket,
            host: host.into(),
            circuit: AtomicU64::new(Circuit::default().pack()),
            latency: AtomicU64::new(Average::default().pack()),
            in_flight: AtomicU32::new(0),
        }
    }

    /// Its health and what speaks for and against it.
    pub(crate) fn circuit(&self) -> Circuit {
        Circuit::unpack(self.circuit.load(Ordering::Relaxed))
    }

    /// Whether it may be used.
    pub(crate) fn is_healthy(&self) -> bool {
        !self.circuit().open
    }

    /// Counts a report; `Some` with the new state if that flips it. Writes nothing if nothing
    /// changes.
    pub(crate) fn note(&self, report: Report, limits: Limits<'_>) -> Option<bool> {
        self.change(|circuit| circuit.after(report, limits))
    }

    /// Settles the state by hand; `Some` if that flips it.
    pub(crate) fn set_healthy(&self, healthy: bool) -> Option<bool> {
        self.change(|_| Circuit::settled(healthy))
    }

    fn change(&self, change: impl Fn(Circuit) -> Circuit) -> Option<bool> {
        let changed = |packed| {
            let after = change(Circuit::unpack(packed)).pack();
            (after != packed).then_some(after)
        };
        let before = self
            .circuit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed)
            .ok()?;
        let after = change(Circuit::unpack(before));
        (after.open != Circuit::unpack(before).open).then_some(!after.open)
    }

    /// The average time it takes, milliseconds.
    pub(crate) fn latency(&self) -> Average {
        Average::unpack(self.latency.load(Ordering::Relaxed))
    }

    /// Replaces the average by what `next` makes of it.
    pub(crate) fn update_latency(&self, next: impl Fn(Average) -> Average) {
        let next = |packed| Some(next(Average::unpack(packed)).pack());
        // never fails: there is always a next value
        let _ = self
            .latency
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Requests under way, where they are counted.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// One more request is under way.
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// One is over.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
