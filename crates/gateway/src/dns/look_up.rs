//! One look-up: which kinds of record are asked for, in which order, and what comes of it.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::hosts::Hosts;
use crate::conf::{Dns, RecordKind};

/// How often one look-up may go on with another name (CNAME, SRV).
const DEPTH_MAX: usize = 5;
/// How long an entry of the hosts file is used; the file is read once.
const HOSTS_TTL: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Seconds it may be kept.
    pub(crate) ttl: u32,
    pub(crate) data: Data,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Ip(IpAddr),
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: String,
    },
    Cname(String),
}

/// Why there are no records of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AskError {
    /// The name, or this kind of it, does not exist.
    NotFound,
    /// The servers did not answer in time.
    Silent,
    /// They said something else.
    Failed(String),
}

/// Somebody who can be asked for records.
pub(crate) trait Ask: Send + Sync {
    /// The records of one kind of a name.
    fn ask(
        &self,
        name: &str,
        kind: RecordKind,
    ) -> impl Future<Output = Result<Vec<Record>, AskError>> + Send;
}

/// One address of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) ip: IpAddr,
    /// From an SRV record.
    pub(crate) service: Option<FoundService>,
}

/// What an SRV record adds to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundService {
    /// The name that the record points to.
    pub(crate) name: Arc<str>,
    pub(crate) port: u16,
    /// Share of requests; to be compared with those of the same answer only.
    pub(crate) weight: u32,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// At least one, in an order that does not depend on the server's.
    pub(crate) found: Vec<Found>,
    /// How long they may be used.
    pub(crate) ttl: Duration,
    /// The kind that answered.
    pub(crate) kind: RecordKind,
}

/// Why a look-up found no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Whether the servers say that there is none, as opposed to saying nothing useful.
    pub(crate) not_found: bool,
    pub(crate) reason: String,
}

/// The addresses of `name`, by the hosts file or whoever can be asked; `last` is the kind that
/// answered the last time.
///
/// # Errors
/// There is no address, or nobody says.
pub(crate) async fn look_up(
    name: &str,
    last: Option<RecordKind>,
    dns: &Dns,
    hosts: &Hosts,
    asked: &impl Ask,
) -> Result<Answer, Failure> {
    let search = Search { dns, hosts, asked };
    let mut answer = search.name(name, last, true, DEPTH_MAX).await?;
    if let Some(valid) = dns.valid_ttl {
        answer.ttl = valid;
    }
    answer
        .found
        .sort_by(|a, b| a.ip.cmp(&b.ip).then_with(|| a.port().cmp(&b.port())));
    answer
        .found
        .dedup_by(|a, b| a.ip == b.ip && a.port() == b.port());
    Ok(answer)
}

impl Found {
    fn port(&self) -> Option<u16> {
        self.service.as_ref().map(|service| service.port)
    }
}

struct Search<'a, A> {
    dns: &'a Dns,
    hosts: &'a Hosts,
    asked: &'a A,
}

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + 'a>>;

impl<A: Ask> Search<'_, A> {
    fn kinds(&self, name: &str, last: Option<RecordKind>, srv: bool) -> Vec<RecordKind> {
        let srv = srv && (!self.dns.srv_by_name || name.starts_with('_'));
        let mut kinds = self.dns.order.clone();
        kinds.retain(|kind| *kind != RecordKind::Srv || srv);
        if self.dns.last_first
            && let Some(at) = kinds.iter().position(|kind| Some(*kind) == last)
        {
            kinds[..=at].rotate_right(1);
        }
        kinds
    }

    fn name<'a>(
        &'a self,
        name: &'a str,
        last: Option<RecordKind>,
        srv: bool,
        depth: usize,
    ) -> Boxed<'a> {
        Box::pin(async move {
            if let Some(found) = self.hosts.find(name, &self.dns.order) {
                let kind = match found[0] {
                    IpAddr::V4(_) => RecordKind::A,
                    IpAddr::V6(_) => RecordKind::Aaaa,
                };
                let plain = |ip| Found { ip, service: None };
                return Ok(Answer {
                    found: found.into_iter().map(plain).collect(),
                    ttl: HOSTS_TTL,
                    kind,
                });
            }
            let mut failure: Option<Failure> = None;
            for kind in self.kinds(name, last, srv) {
                let failed = match self.kind(name, kind, depth).await {
                    Ok(answer) => return Ok(answer),
                    Err(AskError::NotFound) => Failure {
                        not_found: true,
                        reason: "no such name".to_owned(),
                    },
                    Err(AskError::Failed(reason)) => Failure {
                        not_found: false,
                        reason,
                    },
                    // whoever is silent on one kind is silent on all
                    Err(AskError::Silent) => {
                        return Err(Failure {
                            not_found: false,
                            reason: "the name servers do not answer".to_owned(),
                        });
                    }
                };
                // one server that fails weighs more than one that knows nothing
                if failure.as_ref().is_none_or(|known| known.not_found) {
                    failure = Some(failed);
                }
            }
            Err(failure.unwrap_or(Failure {
                not_found: true,
                reason: "no kind of record is asked for this name".to_owned(),
            }))
        })
    }

    async fn kind(&self, name: &str, kind: RecordKind, depth: usize) -> Result<Answer, AskError> {
        let records = self.asked.ask(name, kind).await?;
        let ttl = records.iter().map(|record| record.ttl).min();
        let ttl = Duration::from_secs(ttl.unwrap_or_default().into());
        let mut answer = Answer {
            found: Vec::new(),
            ttl,
            kind,
        };
        match kind {
            RecordKind::A | RecordKind::Aaaa => {
                let ips = records.iter().filter_map(|record| match record.data {
                    Data::Ip(ip) if ip.is_ipv4() == (kind == RecordKind::A) => Some(ip),
                    _ => None,
                });
                answer.found = ips.map(|ip| Found { ip, service: None }).collect();
            }
            RecordKind::Cname => {
                let next = records.iter().find_map(|record| match &record.data {
                    Data::Cname(next) => Some(next),
                    _ => None,
                });
                if let Some(next) = next {
                    let end = self.further(next, depth).await?;
                    answer.found = end.found;
                    answer.ttl = ttl.min(end.ttl);
                }
            }
            RecordKind::Srv => self.services(&records, depth, &mut answer).await?,
        }
        match answer.found.is_empty() {
            true => Err(AskError::NotFound),
            false => Ok(answer),
        }
    }

    /// The addresses behind the SRV records of the lowest priority; a target without any is left
    /// out as long as another one has some.
    async fn services(
        &self,
        records: &[Record],
        depth: usize,
        answer: &mut Answer,
    ) -> Result<(), AskError> {
        let lowest = records.iter().filter_map(|record| match &record.data {
            Data::Srv { priority, .. } => Some(*priority),
            _ => None,
        });
        let Some(lowest) = lowest.min() else {
            return Ok(());
        };
        let mut groups = Vec::new();
        let mut failed = None;
        for record in records {
            let Data::Srv {
                priority,
                weight,
                port,
                target,
            } = &record.data
            else {
                continue;
            };
            // RFC 2782: the root as a target says that the service is not there
            if *priority != lowest || target == "." || target.is_empty() {
                continue;
            }
            let end = match target.parse::<IpAddr>() {
                Ok(ip) => Ok((vec![ip], answer.ttl)),
                Err(_) => self.further(target, depth).await.map(|end| {
                    let ips = end.found.iter().map(|found| found.ip).collect();
                    (ips, end.ttl)
                }),
            };
            match end {
                Ok((ips, ttl)) => {
                    answer.ttl = answer.ttl.min(ttl);
                    groups.push((ips, u32::from((*weight).max(1)), *port, target));
                }
                Err(error) => failed = Some(error),
            }
        }
        if groups.is_empty() {
            return failed.map_or(Ok(()), Err);
        }
        // the addresses of one record share its weight
        let scale = groups.iter().map(|(ips, ..)| ips.len() as u32).fold(1, lcm);
        for (ips, weight, port, target) in groups {
            let name: Arc<str> = target.strip_suffix('.').unwrap_or(target).into();
            let weight = weight * scale / ips.len().max(1) as u32;
            answer.found.extend(ips.into_iter().map(|ip| Found {
                ip,
                service: Some(FoundService {
                    name: name.clone(),
                    port,
                    weight: weight.max(1),
                }),
            }));
        }
        Ok(())
    }

    async fn further(&self, name: &str, depth: usize) -> Result<Answer, AskError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(AskError::Failed("too many names on the way".to_owned()));
        };
        self.name(name, None, false, depth)
            .await
            .map_err(|failure| match failure.not_found {
                true => AskError::NotFound,
                false => AskError::Failed(failure.reason),
            })
    }
}

/// Least common multiple, as long as it is small; else the larger share is a little off.
fn lcm(a: u32, b: u32) -> u32 {
    let gcd = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a.max(1)
    };
    let both = a / gcd(a, b) * b.max(1);
    if both > 5040 { a } else { both }
}
