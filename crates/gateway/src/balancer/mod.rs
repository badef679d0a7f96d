//! Which address a request goes to.
//!
//! A service goes to its own host, or to the targets of the upstream that its host names. The
//! balancers of upstreams are shared by all workers and outlive configurations: what is known
//! about an address stays as long as the address does. Source: data-plane reference 5.

mod address;
mod circuit;
mod continuum;
mod cursors;
mod hash;
mod keeper;
#[cfg(test)]
mod keeper_tests;
mod latency;
mod probe;
mod probe_grpc;
mod ring;
#[cfg(test)]
mod tests;
mod upstream;
mod view;
mod wheel;
mod xxh32;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant as Clock;

use http::{HeaderValue, StatusCode};
use sallyport_model::balancing::Algorithm;
use sallyport_model::entities::{Protocol, Service, Target, Upstream};
use sallyport_plugins::ids::Ids;
use sallyport_runtime::tls::Identity;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use address::Address;
use cursors::{Slot, Slots};
use ring::Chance;

pub(crate) use circuit::Report;
pub(crate) use cursors::Cursors;
pub(crate) use hash::{Hashable, Hashed};
pub(crate) use keeper::keep;
pub(crate) use probe::ProbeTls;
pub(crate) use upstream::Balancer;
pub use view::{AddressHealth, Health, SetHealthError, TargetHealth, UpstreamHealth, Upstreams};

use crate::conf::Dns;
use crate::dns::{Answer, Name, Names, Next, ResolveError};

/// Where the requests to a service go.
#[derive(Debug)]
pub(crate) enum Peers {
    /// The service's own host.
    One(One),
    /// The targets of an upstream.
    Many(Arc<Balancer>),
}

/// A host that stands for itself.
#[derive(Debug)]
pub(crate) struct One {
    place: Place,
    port: u16,
    /// What `Host` says when the client's is not preserved.
    host_header: HeaderValue,
}

#[derive(Debug)]
enum Place {
    Ip(IpAddr),
    Name { name: Arc<Name>, slot: Slot },
}

/// A host as it stands in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// Needs no look-up.
    Ip(IpAddr),
    /// Needs one.
    Name(Box<str>),
}

impl Host {
    fn parse(text: &str) -> Host {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        bare.parse()
            .map_or_else(|_| Host::Name(text.into()), Host::Ip)
    }
}

/// What the choice of an address depends on besides the configuration.
pub(crate) struct Choice<'a> {
    pub(crate) names: &'a Names,
    pub(crate) cursors: &'a Cursors,
    /// Hash of the request, if its upstream hashes.
    pub(crate) hash: u32,
    /// Whether the address is spoken to over TLS.
    pub(crate) tls: bool,
    /// Addresses on which this request has failed.
    pub(crate) tried: &'a [SocketAddr],
    pub(crate) now: Instant,
}

/// An address that was chosen.
pub(crate) struct Picked<'a> {
    pub(crate) socket: SocketAddr,
    /// What `Host` says when the client's is not preserved.
    pub(crate) host_header: Cow<'a, HeaderValue>,
    /// To be held until the answer is over, where that counts.
    pub(crate) lease: Option<Lease>,
    /// Whom to report on, where that counts.
    pub(crate) watched: Option<Watched>,
}

/// An address on which a request's outcome is reported.
#[derive(Clone)]
pub(crate) struct Watched(Arc<Address>);

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PickError {
    #[error("no peer is available")]
    NoPeer,
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

/// A request under way at an address; what it took is noted when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    address: Arc<Address>,
    counted: bool,
    started_ms: u64,
    answered: bool,
}

impl Lease {
    fn new(address: &Arc<Address>, algorithm: Algorithm) -> Option<Lease> {
        let counted = match algorithm {
            Algorithm::LeastConnections => true,
            Algorithm::Latency => false,
            _ => return None,
        };
        if counted {
            address.begin();
        }
        Some(Lease {
            address: address.clone(),
            counted,
            started_ms: now_ms(),
            answered: false,
        })
    }

    /// An answer has begun; it is over when this is dropped. How long a tunnel lives says nothing
    /// about how fast an address answers.
    pub(crate) fn answered(mut self, status: StatusCode) -> Option<Lease> {
        self.answered = true;
        (self.counted || status != StatusCode::SWITCHING_PROTOCOLS).then_some(self)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.counted {
            return self.address.end();
        }
        let now_ms = now_ms();
        let took = now_ms.saturating_sub(self.started_ms) as f32;
        self.address.update_latency(|average| match self.answered {
            true => average.with(took, now_ms),
            false => average.with_failure(took, now_ms),
        });
    }
}

/// Milliseconds since this process first asked.
fn now_ms() -> u64 {
    static START: LazyLock<Clock> = LazyLock::new(Clock::now);
    START.elapsed().as_millis() as u64
}

impl Peers {
    /// The peers of a service: the targets of the upstream its host names, or the host itself.
    ///
    /// # Errors
    /// A text that says which field cannot be used and why.
    pub(crate) fn new(
        service: &Service,
        balancer: Option<&Arc<Balancer>>,
        balancers: &Balancers,
    ) -> Result<Peers, String> {
        if let Some(balancer) = balancer {
            return Ok(Peers::Many(balancer.clone()));
        }
        let default_port = match service.protocol {
            Protocol::Https => 443,
            _ => 80,
        };
        let (host, port) = (&service.host, service.port);
        let host_header = match port == default_port {
            true => host.clone(),
            false => format!("{host}:{port}"),
        };
        let host_header = HeaderValue::from_str(&host_header)
            .map_err(|_| format!("host '{host_header}' cannot be a Host header"))?;
        let place = match Host::parse(host) {
            Host::Ip(ip) => Place::Ip(ip),
            Host::Name(name) => Place::Name {
                name: balancers.names.name(&name),
                slot: balancers.slots.take(),
            },
        };
        Ok(Peers::One(One {
            place,
            port,
            host_header,
        }))
    }

    /// Whether what the route captures is needed.
    pub(crate) fn needs_captures(&self) -> bool {
        match self {
            Peers::Many(balancer) => balancer.hash_by.needs_captures(),
            Peers::One(_) => false,
        }
    }

    /// The hash of a request, if these peers need one.
    pub(crate) fn hash(&self, request: Hashable<'_>, cursors: &Cursors) -> Option<Hashed> {
        match self {
            Peers::Many(balancer) if balancer.algorithm() == Algorithm::ConsistentHashing => {
                Some(balancer.hash_by.hash(request, || cursors.random()))
            }
            _ => None,
        }
    }

    /// The address for the next try of a request. Waits only for a name that nothing is known of.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn pick(&self, choice: &Choice<'_>) -> Result<Picked<'_>, PickError> {
        match self {
            Peers::One(one) => Ok(Picked {
                socket: one.socket(choice).await?,
                host_header: Cow::Borrowed(&one.host_header),
                lease: None,
                watched: None,
            }),
            Peers::Many(balancer) => {
                balancer.ready().await;
                balancer.pick(choice).ok_or(PickError::NoPeer)
            }
        }
    }

    /// What came of a request at an address. An upstream that says that somebody behind it was
    /// silent counts as silent. Source: data-plane reference 5.2.
    pub(crate) fn report(&self, watched: &Watched, report: Report) {
        let report = match report {
            Report::Status(504) => Report::Timeout,
            other => other,
        };
        if let Peers::Many(balancer) = self {
            balancer.note(&watched.0, report, false);
        }
    }
}

impl One {
    async fn socket(&self, choice: &Choice<'_>) -> Result<SocketAddr, ResolveError> {
        let (name, slot) = match &self.place {
            Place::Ip(ip) => return Ok(SocketAddr::new(*ip, self.port)),
            Place::Name { name, slot } => (name, slot),
        };
        if let Next::Take { answer, stale } = name.known().next(choice.now) {
            if stale {
                choice.names.refresh(name);
            }
            return Ok(self.one_of(answer, slot, choice));
        }
        let answer = choice.names.find(name).await?;
        Ok(self.one_of(&answer, slot, choice))
    }

    /// One of several addresses: in turn, or by the weights of their SRV records. One that has
    /// failed already is passed over as long as there is another.
    fn one_of(&self, answer: &Answer, slot: &Slot, choice: &Choice<'_>) -> SocketAddr {
        let found = &answer.found;
        let socket = |at: usize| {
            let found = &found[at];
            let port = found.service.as_ref().map_or(self.port, |it| it.port);
            SocketAddr::new(found.ip, port)
        };
        let weight = |at: usize| match &found[at].service {
            Some(service) => u64::from(service.weight),
            None => 1,
        };
        let start = match found.first().and_then(|first| first.service.as_ref()) {
            None => choice.cursors.next(slot) as usize % found.len(),
            Some(_) => {
                let total: u64 = (0..found.len()).map(weight).sum();
                let mut left = choice.cursors.random() % total.max(1);
                (0..found.len())
                    .find(|at| {
                        let here = weight(*at);
                        let hit = left < here;
                        left = left.saturating_sub(here);
                        hit
                    })
                    .unwrap_or_default()
            }
        };
        (0..found.len())
            .map(|step| socket((start + step) % found.len()))
            .find(|socket| !choice.tried.contains(socket))
            .unwrap_or_else(|| socket(start))
    }
}

impl Balancer {
    fn pick(&self, choice: &Choice<'_>) -> Option<Picked<'_>> {
        let ring = self.ring();
        let chance = Chance {
            cursor: choice.cursors.next(&self.slot),
            hash: choice.hash,
            tried: choice.tried,
            now_ms: match self.algorithm() {
                Algorithm::Latency => now_ms(),
                _ => 0,
            },
        };
        let entry = ring.pick(&chance)?;
        let address = &entry.address;
        Some(Picked {
            socket: address.socket,
            host_header: self.host_header(entry, choice.tls),
            lease: Lease::new(address, self.algorithm()),
            watched: self.is_watched().then(|| Watched(address.clone())),
        })
    }
}

/// The balancers of a gateway, those in force and those to come.
pub(crate) struct Balancers {
    pub(crate) names: Arc<Names>,
    slots: Slots,
    in_force: Mutex<Ids<Arc<Balancer>>>,
    changed: Notify,
}

impl Balancers {
    /// None yet. Names are resolved and targets watched by [`keep`].
    pub(crate) fn new(dns: Dns) -> Balancers {
        Balancers {
            names: Arc::new(Names::new(dns)),
            slots: Slots::default(),
            in_force: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The balancer of an upstream: the one in force if nothing of it has changed. `shown` is
    /// what its probes show to targets that ask for a certificate.
    ///
    /// # Errors
    /// A text that says which field cannot be used and why.
    pub(crate) fn balancer(
        &self,
        upstream: &Upstream,
        targets: &[&Target],
        shown: Option<&Identity>,
    ) -> Result<Arc<Balancer>, String> {
        let old = self.find(upstream.id);
        if let Some(old) = &old
            && old.is_made_from(upstream, targets, shown)
        {
            return Ok(old.clone());
        }
        let mut new = Balancer::new(upstream, targets, &self.names, &self.slots, old.as_deref())?;
        new.shown = shown.cloned();
        Ok(Arc::new(new))
    }

    /// These balancers, and no others, are in force from now on.
    pub(crate) fn put_in_force(&self, all: &Ids<Arc<Balancer>>) {
        *self.lock() = all.clone();
        self.changed.notify_one();
    }

    #[cfg(test)]
    pub(crate) fn put_these_in_force(&self, all: &[Arc<Balancer>]) {
        let all = all.iter().map(|balancer| (balancer.id, balancer.clone()));
        self.put_in_force(&all.collect());
    }

    fn find(&self, id: Uuid) -> Option<Arc<Balancer>> {
        self.lock().get(&id).cloned()
    }

    /// Those in force.
    fn all(&self) -> Vec<Arc<Balancer>> {
        self.lock().iter().map(|(_, it)| it.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ids<Arc<Balancer>>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
