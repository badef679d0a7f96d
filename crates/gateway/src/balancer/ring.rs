//! The addresses of an upstream and the choice among them.
//!
//! A choice is pure but for the counts it reads: cursor, hash and time are arguments.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;
use sallyport_model::balancing::Algorithm;

use super::address::Address;
use super::continuum::{Continuum, Node};
use super::wheel::Wheel;

/// Places of a wheel that are tried one by one before all addresses are looked at.
const STEPS_MAX: usize = 64;

/// One address of a ring.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) address: Arc<Address>,
    /// Which target it belongs to.
    pub(crate) target: usize,
    /// Share of requests; 0 gets none.
    pub(crate) weight: u32,
    /// `Host` to send, if the name in an SRV record gives it.
    pub(crate) host_header: Option<HeaderValue>,
}

/// The addresses of an upstream at one time.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) entries: Vec<Entry>,
    plan: Plan,
    /// Whether enough of the weight is available.
    enough: AtomicBool,
}

#[derive(Debug)]
enum Plan {
    Wheel(Wheel),
    Continuum(Continuum),
    LeastConnections,
    Latency,
}

/// What a choice depends on besides the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance<'a> {
    /// A count that goes up by one with each choice of this worker.
    pub(crate) cursor: u32,
    /// Hash of the request, for consistent hashing.
    pub(crate) hash: u32,
    /// Addresses on which this request has failed: used only if there is no other.
    pub(crate) tried: &'a [SocketAddr],
    /// Milliseconds of any clock that all workers share.
    pub(crate) now_ms: u64,
}

impl Ring {
    /// The ring of these addresses; `targets` are hosts and ports as configured.
    pub(crate) fn new(
        entries: Vec<Entry>,
        targets: &[(Box<str>, u16)],
        algorithm: Algorithm,
        slots: u32,
    ) -> Ring {
        let plan = match algorithm {
            Algorithm::RoundRobin | Algorithm::StickySessions => {
                Plan::Wheel(Wheel::new(entries.iter().map(|entry| entry.weight)))
            }
            Algorithm::LeastConnections => Plan::LeastConnections,
            Algorithm::Latency => Plan::Latency,
            Algorithm::ConsistentHashing => {
                let node = |entry: &Entry| {
                    let socket = entry.address.socket;
                    let ip = match socket {
                        SocketAddr::V4(v4) => v4.ip().to_string(),
                        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
                    };
                    Node {
                        target: targets[entry.target].clone(),
                        ip,
                        port: socket.port(),
                        weight: entry.weight,
                    }
                };
                let nodes: Vec<_> = entries.iter().map(node).collect();
                Plan::Continuum(Continuum::new(&nodes, targets.len(), slots))
            }
        };
        Ring {
            entries,
            plan,
            enough: AtomicBool::new(true),
        }
    }

    /// Judges anew whether more than `threshold` percent of the weight is available.
    pub(crate) fn judge(&self, threshold: f64) {
        let enough = threshold <= 0.0 || self.available_percent() > threshold;
        self.enough.store(enough, Ordering::Relaxed);
    }

    /// Share of the weight that is available, percent.
    pub(crate) fn available_percent(&self) -> f64 {
        let weight = |healthy_only: bool| -> f64 {
            self.entries
                .iter()
                .filter(|entry| !healthy_only || entry.address.is_healthy())
                .map(|entry| f64::from(entry.weight))
                .sum()
        };
        match weight(false) {
            0.0 => 0.0,
            total => 100.0 * weight(true) / total,
        }
    }

    /// Whether enough of the weight is available, as judged last.
    pub(crate) fn is_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// The address for a request; `None` if none is available.
    pub(crate) fn pick(&self, chance: &Chance<'_>) -> Option<&Entry> {
        if !self.is_enough() {
            return None;
        }
        let usable = |entry: &Entry| entry.weight > 0 && entry.address.is_healthy();
        if chance.tried.is_empty() {
            return self.pick_from(chance, usable);
        }
        let untried =
            |entry: &Entry| usable(entry) && !chance.tried.contains(&entry.address.socket);
        self.pick_from(chance, untried)
            .or_else(|| self.pick_from(chance, usable))
    }

    fn pick_from(&self, chance: &Chance<'_>, will_do: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        let at = match &self.plan {
            Plan::Wheel(wheel) => {
                let will_do = |at: usize| will_do(&self.entries[at]);
                wheel.find(chance.cursor, STEPS_MAX, will_do).or_else(|| {
                    let count = self.entries.len();
                    (0..count)
                        .map(|step| (chance.cursor as usize + step) % count)
                        .find(|at| will_do(*at))
                })
            }
            Plan::Continuum(ring) => ring.find(chance.hash, |at| will_do(&self.entries[at])),
            Plan::LeastConnections => self.lowest(chance, will_do, |entry| {
                f64::from(entry.address.in_flight() + 1)
            }),
            Plan::Latency => self.lowest(chance, will_do, |entry| {
                f64::from(entry.address.latency().now(chance.now_ms))
            }),
        }?;
        Some(&self.entries[at])
    }

    /// The entry with the lowest cost per weight; equal ones take turns.
    fn lowest(
        &self,
        chance: &Chance<'_>,
        will_do: impl Fn(&Entry) -> bool,
        cost: impl Fn(&Entry) -> f64,
    ) -> Option<usize> {
        let count = self.entries.len();
        let mut best: Option<(usize, f64)> = None;
        for step in 0..count {
            let at = (chance.cursor as usize + step) % count;
            let entry = &self.entries[at];
            if !will_do(entry) {
                continue;
            }
            let cost = cost(entry) / f64::from(entry.weight);
            if best.is_none_or(|(_, lowest)| cost < lowest) {
                best = Some((at, cost));
            }
        }
        best.map(|(at, _)| at)
    }
}
