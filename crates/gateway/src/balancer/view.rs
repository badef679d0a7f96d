//! The state of balancers, for whoever shows it or sets it by hand.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use sallyport_model::balancing::Algorithm;
use serde_json::{Value, json};
use uuid::Uuid;

use super::upstream::Balancer;
use super::{Balancers, now_ms};

/// The health of an upstream, target or address, in Kong's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nobody checks.
    HealthchecksOff,
    /// It is used.
    Healthy,
    /// It is not used.
    Unhealthy,
    /// Its name has no address.
    DnsError,
}

impl Health {
    /// Kong's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::HealthchecksOff => "HEALTHCHECKS_OFF",
            Health::Healthy => "HEALTHY",
            Health::Unhealthy => "UNHEALTHY",
            Health::DnsError => "DNS_ERROR",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An upstream at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamHealth {
    /// Identity.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// How it chooses.
    pub algorithm: Algorithm,
    /// Healthy while more than `healthchecks.threshold` percent of its weight is available.
    pub health: Health,
    /// Share of its weight that is available, percent.
    pub available_percent: f64,
    /// Its targets, as configured.
    pub targets: Vec<TargetHealth>,
}

/// A target at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetHealth {
    /// Identity.
    pub id: Uuid,
    /// `host:port`.
    pub target: String,
    /// As configured.
    pub weight: u16,
    /// Healthy while one of its addresses is.
    pub health: Health,
    /// What its host resolves to.
    pub addresses: Vec<AddressHealth>,
}

/// An address at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressHealth {
    /// Where it is.
    pub address: SocketAddr,
    /// Share of requests.
    pub weight: u32,
    /// Whether it is used.
    pub health: Health,
    /// Successes that count towards health.
    pub successes: u8,
    /// Failed connections that count against it.
    pub tcp_failures: u8,
    /// Failed statuses that count against it.
    pub http_failures: u8,
    /// Timeouts that count against it.
    pub timeouts: u8,
    /// Requests under way; counted for `least-connections` only.
    pub in_flight: u32,
    /// Average time of an answer, milliseconds; measured for `latency` only.
    pub latency_ms: f32,
}

impl UpstreamHealth {
    /// As Kong's `GET /upstreams/{u}/health` shows it: one entry per target.
    /// Source: data-plane reference 8.5.
    pub fn to_json(&self) -> Value {
        let targets: Vec<_> = self
            .targets
            .iter()
            .map(|target| target.to_json(self.id))
            .collect();
        json!({"data": targets, "next": null})
    }
}

impl TargetHealth {
    fn to_json(&self, upstream: Uuid) -> Value {
        let (host, port) = self.target.rsplit_once(':').unwrap_or((&self.target, ""));
        let weight = |usable: bool| -> u32 {
            self.addresses
                .iter()
                .filter(|address| (address.health != Health::Unhealthy) == usable)
                .map(|address| address.weight)
                .sum()
        };
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|address| {
                json!({
                    "ip": address.address.ip().to_string(),
                    "port": address.address.port(),
                    "weight": address.weight,
                    "health": address.health.as_str(),
                })
            })
            .collect();
        json!({
            "id": self.id,
            "target": self.target,
            "weight": self.weight,
            "upstream": {"id": upstream},
            "health": self.health.as_str(),
            "data": {
                "host": host,
                "port": port.parse::<u16>().ok(),
                "nodeWeight": self.weight,
                "weight": {
                    "total": weight(true) + weight(false),
                    "available": weight(true),
                    "unavailable": weight(false),
                },
                "addresses": addresses,
            },
        })
    }
}

/// Health cannot be set by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetHealthError {
    /// There is no such upstream.
    #[error("no upstream {0:?} is in force; give its name or its id")]
    NoUpstream(String),
    /// It has no such target, or the target has no such address.
    #[error("upstream {upstream:?} has no target {target:?} with that address")]
    NoTarget {
        /// The upstream.
        upstream: String,
        /// The target that was asked for.
        target: String,
    },
}

/// The upstreams in force: a handle that can be kept.
#[derive(Clone)]
pub struct Upstreams(pub(crate) Arc<Balancers>);

impl Upstreams {
    /// All upstreams, by name.
    pub fn health(&self) -> Vec<UpstreamHealth> {
        let mut all: Vec<_> = self.0.all().iter().map(|it| view(it)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// One upstream, by name or id.
    pub fn health_of(&self, upstream: &str) -> Option<UpstreamHealth> {
        self.find(upstream).map(|balancer| view(&balancer))
    }

    /// Settles the health of a target by hand, as if checks had found it out; they may change it
    /// again. `upstream` is a name or an id, `target` is `host:port` as configured; without an
    /// address all of the target's are set.
    ///
    /// # Errors
    /// There is no such upstream, target or address.
    pub fn set_healthy(
        &self,
        upstream: &str,
        target: &str,
        address: Option<SocketAddr>,
        healthy: bool,
    ) -> Result<(), SetHealthError> {
        let balancer = self
            .find(upstream)
            .ok_or_else(|| SetHealthError::NoUpstream(upstream.to_owned()))?;
        let mut any = false;
        for entry in &balancer.ring().entries {
            let is_meant = *balancer.targets[entry.target].text == *target
                && address.is_none_or(|address| address == entry.address.socket);
            if is_meant {
                any = true;
                balancer.set_healthy(&entry.address, healthy);
            }
        }
        match any {
            true => Ok(()),
            false => Err(SetHealthError::NoTarget {
                upstream: upstream.to_owned(),
                target: target.to_owned(),
            }),
        }
    }

    fn find(&self, upstream: &str) -> Option<Arc<Balancer>> {
        match upstream.parse() {
            Ok(id) => self.0.find(id),
            Err(_) => self.0.all().into_iter().find(|it| *it.name == *upstream),
        }
    }
}

fn view(balancer: &Balancer) -> UpstreamHealth {
    let ring = balancer.ring();
    let is_checked = balancer.checks.is_active() || balancer.checks.is_passive();
    let word = |healthy: bool| match (is_checked, healthy) {
        (_, false) => Health::Unhealthy,
        (true, true) => Health::Healthy,
        (false, true) => Health::HealthchecksOff,
    };
    let now_ms = now_ms();
    let mut targets: Vec<_> = balancer
        .targets
        .iter()
        .zip(balancer.target_ids())
        .map(|(target, id)| TargetHealth {
            id,
            target: target.text.to_string(),
            weight: target.weight,
            health: Health::DnsError,
            addresses: Vec::new(),
        })
        .collect();
    for entry in &ring.entries {
        let circuit = entry.address.circuit();
        targets[entry.target].addresses.push(AddressHealth {
            address: entry.address.socket,
            weight: entry.weight,
            health: word(!circuit.open),
            successes: circuit.successes,
            tcp_failures: circuit.tcp_failures,
            http_failures: circuit.http_failures,
            timeouts: circuit.timeouts,
            in_flight: entry.address.in_flight(),
            latency_ms: entry.address.latency().now(now_ms),
        });
    }
    for target in &mut targets {
        let unhealthy = |address: &AddressHealth| address.health == Health::Unhealthy;
        if !target.addresses.is_empty() {
            target.health = word(!target.addresses.iter().all(unhealthy));
        }
    }
    UpstreamHealth {
        id: balancer.id,
        name: balancer.name.to_string(),
        algorithm: balancer.algorithm(),
        health: word(ring.is_enough()),
        available_percent: ring.available_percent(),
        targets,
    }
}
