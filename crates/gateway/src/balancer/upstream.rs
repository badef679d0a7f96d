//! One upstream as it is balanced: settings, targets, and the ring of their addresses.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use http::HeaderValue;
use sallyport_model::balancing::{Algorithm, Healthchecks};
use sallyport_model::entities::{Target, Upstream};
use sallyport_runtime::tls::Identity;
use tokio::sync::Notify;
use tracing::{info, warn};
use uuid::Uuid;

use super::Host;
use super::address::Address;
use super::circuit::{Limits, Report};
use super::cursors::{Slot, Slots};
use super::hash::HashBy;
use super::latency::Average;
use super::ring::{Entry, Ring};
use crate::dns::{Answer, FoundService, Name, Names, Next};

/// Port of a target that names none. Source: data-plane reference 5.1.
const TARGET_PORT: u16 = 8000;

/// An upstream as it is balanced, shared by all workers.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) id: Uuid,
    pub(crate) name: Box<str>,
    pub(crate) checks: Healthchecks,
    pub(crate) hash_by: HashBy,
    pub(crate) targets: Vec<Member>,
    pub(super) slot: Slot,
    /// What probes show to targets that ask for a certificate.
    pub(super) shown: Option<Identity>,
    algorithm: Algorithm,
    slots: u32,
    use_srv_name: bool,
    rings: Rings,
    /// What it was made from: equal settings make an equal balancer.
    source: (Upstream, Vec<Target>),
}

/// A target of an upstream.
#[derive(Debug)]
pub(crate) struct Member {
    /// As configured, with its port.
    pub(crate) text: Box<str>,
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
    pub(crate) weight: u16,
    /// The name to look up; an address needs none.
    pub(crate) name: Option<Arc<Name>>,
    headers: HostHeaders,
}

/// What `Host` says, which depends on the default port of a scheme.
#[derive(Clone, Debug)]
struct HostHeaders {
    http: HeaderValue,
    https: HeaderValue,
}

/// The ring; it changes only if names have to be looked up.
#[derive(Debug)]
enum Rings {
    Fixed(Ring),
    Moving { ring: ArcSwap<Ring>, ready: Ready },
}

/// Whether the names have been looked up once; read by every request, so a plain load.
#[derive(Debug, Default)]
struct Ready {
    is: AtomicBool,
    told: Notify,
}

impl Ready {
    fn set(&self) {
        if !self.is.swap(true, Ordering::AcqRel) {
            self.told.notify_waiters();
        }
    }

    fn is_set(&self) -> bool {
        self.is.load(Ordering::Acquire)
    }

    async fn wait(&self) {
        while !self.is_set() {
            let mut told = std::pin::pin!(self.told.notified());
            told.as_mut().enable();
            if self.is_set() {
                break;
            }
            told.await;
        }
    }
}

/// A ring, borrowed or held.
pub(super) enum Held<'a> {
    Fixed(&'a Ring),
    Moving(arc_swap::Guard<Arc<Ring>>),
}

impl std::ops::Deref for Held<'_> {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        match self {
            Held::Fixed(ring) => ring,
            Held::Moving(ring) => ring,
        }
    }
}

/// The addresses that a target has now: none if its name has none.
pub(super) type Resolved = Option<Arc<Answer>>;

impl HostHeaders {
    fn new(host: &str, port: u16, given: Option<&str>) -> Result<HostHeaders, String> {
        let value = |default_port: u16| {
            let text = match given {
                Some(given) => given.to_owned(),
                None if port == default_port => host.to_owned(),
                None => format!("{host}:{port}"),
            };
            HeaderValue::try_from(&text)
                .map_err(|_| format!("host '{text}' cannot be a Host header"))
        };
        Ok(HostHeaders {
            http: value(80)?,
            https: value(443)?,
        })
    }

    fn of(&self, tls: bool) -> &HeaderValue {
        match tls {
            true => &self.https,
            false => &self.http,
        }
    }
}

impl Balancer {
    /// The balancer of an upstream. Addresses that `old` had keep their state, unless health is
    /// judged in another way now.
    ///
    /// # Errors
    /// A text that says which field cannot be used and why.
    pub(super) fn new(
        upstream: &Upstream,
        targets: &[&Target],
        names: &Names,
        slots: &Slots,
        old: Option<&Balancer>,
    ) -> Result<Balancer, String> {
        let members = targets
            .iter()
            .map(|target| Member::new(target, upstream, names))
            .collect::<Result<Vec<_>, _>>()?;
        let mut balancer = Balancer {
            id: upstream.id,
            name: upstream.name.as_str().into(),
            checks: upstream.healthchecks.clone(),
            hash_by: HashBy::new(upstream)?,
            slot: slots.take(),
            shown: None,
            algorithm: upstream.algorithm,
            slots: upstream.slots,
            use_srv_name: upstream.use_srv_name,
            rings: Rings::Moving {
                ring: ArcSwap::from_pointee(Ring::new(Vec::new(), &[], upstream.algorithm, 0)),
                ready: Ready::default(),
            },
            source: (
                upstream.clone(),
                targets.iter().map(|target| (*target).clone()).collect(),
            ),
            targets: members,
        };
        let known = old
            .filter(|old| old.checks == balancer.checks)
            .map(|old| known(&old.ring()))
            .unwrap_or_default();
        let nothing = vec![None; balancer.targets.len()];
        if balancer.is_fixed() {
            balancer.rings = Rings::Fixed(balancer.make_ring(&nothing, &known));
        } else if let Some(old) = old
            && old.is_ready()
            && let resolved = balancer.resolved_without_waiting()
            && resolved.iter().any(Option::is_some)
        {
            let ring = balancer.make_ring(&resolved, &known);
            let ready = Ready::default();
            ready.set();
            balancer.rings = Rings::Moving {
                ring: ArcSwap::from_pointee(ring),
                ready,
            };
        }
        Ok(balancer)
    }

    /// The upstream and its targets as they are configured.
    pub(crate) fn source(&self) -> (&Upstream, &[Target]) {
        (&self.source.0, &self.source.1)
    }

    /// Whether it was made from equal settings.
    pub(super) fn is_made_from(
        &self,
        upstream: &Upstream,
        targets: &[&Target],
        shown: Option<&Identity>,
    ) -> bool {
        let (own, own_targets) = &self.source;
        let chain = |identity: Option<&Identity>| identity.map(|it| it.chain().to_vec());
        own == upstream
            && own_targets.iter().eq(targets.iter().copied())
            && chain(self.shown.as_ref()) == chain(shown)
    }

    /// Whether no name has to be looked up.
    pub(super) fn is_fixed(&self) -> bool {
        self.targets.iter().all(|target| target.name.is_none())
    }

    /// Whether something of it needs a task.
    pub(super) fn needs_care(&self) -> bool {
        !self.is_fixed() || self.checks.is_active()
    }

    /// Whether answers and failures of requests count.
    pub(super) fn is_watched(&self) -> bool {
        self.checks.is_passive() || self.checks.passive.healthy.successes > 0
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The ring as it is now.
    pub(super) fn ring(&self) -> Held<'_> {
        match &self.rings {
            Rings::Fixed(ring) => Held::Fixed(ring),
            Rings::Moving { ring, .. } => Held::Moving(ring.load()),
        }
    }

    fn is_ready(&self) -> bool {
        match &self.rings {
            Rings::Fixed(_) => true,
            Rings::Moving { ready, .. } => ready.is_set(),
        }
    }

    /// Waits until the names of the targets have been looked up once. Whoever looks them up
    /// bounds this wait.
    pub(super) async fn ready(&self) {
        if let Rings::Moving { ready, .. } = &self.rings {
            ready.wait().await;
        }
    }

    /// The ids of the targets, in their order.
    pub(super) fn target_ids(&self) -> impl Iterator<Item = Uuid> {
        self.source.1.iter().map(|target| target.id)
    }

    /// The `Host` that the upstream's settings give.
    pub(super) fn host_header_given(&self) -> Option<&str> {
        self.source.0.host_header.as_deref()
    }

    /// What `Host` says to an entry of the ring.
    pub(super) fn host_header(&self, entry: &Entry, tls: bool) -> Cow<'_, HeaderValue> {
        match &entry.host_header {
            Some(own) => Cow::Owned(own.clone()),
            None => Cow::Borrowed(self.targets[entry.target].headers.of(tls)),
        }
    }

    /// Takes note of what the names of the targets have resolved to; `complete` if nothing more
    /// is about to come. A name without an answer has no address.
    pub(super) fn resolved(&self, resolved: &[Resolved], complete: bool) {
        let Rings::Moving { ring, ready } = &self.rings else {
            return;
        };
        let new = self.make_ring(resolved, &known(&ring.load()));
        let shape = |ring: &Ring| -> Vec<_> {
            ring.entries
                .iter()
                .map(|entry| (entry.address.socket, entry.target, entry.weight))
                .collect()
        };
        if shape(&new) != shape(&ring.load()) {
            info!(upstream = %self.name, addresses = new.entries.len(), "addresses have changed");
            ring.store(Arc::new(new));
        }
        if complete || !ring.load().entries.is_empty() {
            ready.set();
        }
    }

    /// What is known of the names of the targets.
    pub(super) fn resolved_without_waiting(&self) -> Vec<Resolved> {
        let now = tokio::time::Instant::now();
        let known = |target: &Member| match target.name.as_ref()?.known().next(now) {
            Next::Take { answer, .. } => Some(answer.clone()),
            Next::Fail(_) | Next::Ask => None,
        };
        self.targets.iter().map(known).collect()
    }

    fn make_ring(&self, resolved: &[Resolved], known: &Known) -> Ring {
        let mut entries = Vec::new();
        for (at, target) in self.targets.iter().enumerate() {
            let mut add = |ip: IpAddr, service: Option<&FoundService>| {
                let port = service.map_or(target.port, |service| service.port);
                let socket = SocketAddr::new(ip, port);
                let weight = match service {
                    Some(service) if target.weight > 0 => service.weight,
                    _ => u32::from(target.weight),
                };
                let host_header = service
                    .filter(|_| self.use_srv_name && self.source.0.host_header.is_none())
                    .and_then(|service| {
                        HeaderValue::try_from(format!("{}:{port}", service.name)).ok()
                    });
                let old = known.get(&(socket, target.host.clone()));
                let address = old
                    .cloned()
                    .unwrap_or_else(|| Arc::new(Address::new(socket, &target.host)));
                entries.push(Entry {
                    address,
                    target: at,
                    weight,
                    host_header,
                });
            };
            match Host::parse(&target.host) {
                Host::Ip(ip) => add(ip, None),
                Host::Name(_) => {
                    for found in resolved[at].iter().flat_map(|answer| &answer.found) {
                        add(found.ip, found.service.as_ref());
                    }
                }
            }
        }
        let targets: Vec<_> = self
            .targets
            .iter()
            .map(|target| (target.host.clone(), target.port))
            .collect();
        start_average(&entries, known);
        let ring = Ring::new(entries, &targets, self.algorithm, self.slots);
        ring.judge(self.checks.threshold);
        ring
    }

    /// Counts what a request or a probe found out about an address.
    pub(super) fn note(&self, address: &Address, report: Report, active: bool) {
        let limits = match active {
            true => Limits {
                healthy: &self.checks.active.healthy.limits,
                unhealthy: &self.checks.active.unhealthy.limits,
            },
            false => Limits {
                healthy: &self.checks.passive.healthy,
                unhealthy: &self.checks.passive.unhealthy,
            },
        };
        if let Some(healthy) = address.note(report, limits) {
            let by = if active { "probe" } else { "traffic" };
            self.flipped(address, healthy, by);
        }
    }

    /// Settles the health of an address by hand.
    pub(super) fn set_healthy(&self, address: &Address, healthy: bool) {
        if let Some(healthy) = address.set_healthy(healthy) {
            self.flipped(address, healthy, "hand");
        }
    }

    fn flipped(&self, address: &Address, healthy: bool, by: &str) {
        let (upstream, host, socket) = (&self.name, &address.host, address.socket);
        match healthy {
            true => info!(%upstream, target = %host, address = %socket, by, "target is healthy"),
            false => warn!(%upstream, target = %host, address = %socket, by, "target is unhealthy"),
        }
        self.ring().judge(self.checks.threshold);
    }
}

/// Newcomers start with the average of the others, so that they are not flooded.
fn start_average(entries: &[Entry], known: &Known) {
    if known.is_empty() {
        return;
    }
    let now_ms = super::now_ms();
    let total: f32 = known
        .values()
        .map(|address| address.latency().now(now_ms))
        .sum();
    let average = Average::starting(total / known.len() as f32, now_ms);
    for Entry { address, .. } in entries {
        if !known.contains_key(&(address.socket, address.host.clone())) {
            address.update_latency(|_| average);
        }
    }
}

/// Addresses by where they are and the name they were found by.
pub(super) type Known = HashMap<(SocketAddr, Box<str>), Arc<Address>>;

fn known(ring: &Ring) -> Known {
    ring.entries
        .iter()
        .map(|entry| {
            let address = entry.address.clone();
            ((address.socket, address.host.clone()), address)
        })
        .collect()
}

impl Member {
    fn new(target: &Target, upstream: &Upstream, names: &Names) -> Result<Member, String> {
        let (host, port) = crate::router::split_port(&target.target)
            .ok_or_else(|| format!("target '{}' is not host:port", target.target))?;
        let port = port.unwrap_or(TARGET_PORT);
        let name = match Host::parse(host) {
            Host::Ip(_) => None,
            Host::Name(name) => Some(names.name(&name)),
        };
        Ok(Member {
            text: format!("{host}:{port}").into(),
            host: host.into(),
            port,
            weight: target.weight,
            name,
            headers: HostHeaders::new(host, port, upstream.host_header.as_deref())?,
        })
    }
}
