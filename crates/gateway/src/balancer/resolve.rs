//! Addresses of host names, through the system's resolver, kept for a while.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use super::{Host, Peer};

/// How long an answer is used before it is asked for again.
const FRESH: Duration = Duration::from_secs(10);
/// How much longer it is used while the resolver fails. Source: `dns_stale_ttl`.
const STALE: Duration = Duration::from_secs(3600);
/// Names kept; past this the oldest answers are dropped.
const NAMES_MAX: usize = 10_000;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
#[error("name resolution failed: {host}: {reason}")]
pub(crate) struct ResolveError {
    host: Box<str>,
    reason: String,
}

/// The resolver of one worker.
#[derive(Default)]
pub(crate) struct Resolver {
    answers: RefCell<AHashMap<Box<str>, Answer>>,
}

struct Answer {
    addresses: Rc<[IpAddr]>,
    asked: Instant,
    turn: usize,
}

impl Resolver {
    /// An address of a peer; several take turns.
    ///
    /// # Errors
    /// The name has no address, and no earlier answer is recent enough.
    pub(crate) async fn address(&self, peer: &Peer) -> Result<SocketAddr, ResolveError> {
        let name = match &peer.host {
            Host::Ip(ip) => return Ok(SocketAddr::new(*ip, peer.port)),
            Host::Name(name) => name,
        };
        if let Some(ip) = self.kept(name, FRESH) {
            return Ok(SocketAddr::new(ip, peer.port));
        }
        let reason = match tokio::net::lookup_host((&**name, peer.port)).await {
            Ok(found) => {
                let addresses: Rc<[IpAddr]> = found.map(|address| address.ip()).collect();
                match addresses.first() {
                    Some(&first) => {
                        self.keep(name, addresses);
                        return Ok(SocketAddr::new(first, peer.port));
                    }
                    None => "no address".to_owned(),
                }
            }
            Err(error) => error.to_string(),
        };
        match self.kept(name, FRESH + STALE) {
            Some(ip) => Ok(SocketAddr::new(ip, peer.port)),
            None => Err(ResolveError {
                host: name.clone(),
                reason,
            }),
        }
    }

    fn kept(&self, name: &str, age_max: Duration) -> Option<IpAddr> {
        let mut answers = self.answers.borrow_mut();
        let answer = answers
            .get_mut(name)
            .filter(|answer| answer.asked.elapsed() < age_max)?;
        answer.turn = answer.turn.wrapping_add(1);
        Some(answer.addresses[answer.turn % answer.addresses.len()])
    }

    fn keep(&self, name: &str, addresses: Rc<[IpAddr]>) {
        let mut answers = self.answers.borrow_mut();
        if answers.len() >= NAMES_MAX {
            answers.retain(|_, answer| answer.asked.elapsed() < FRESH);
        }
        answers.insert(
            name.into(),
            Answer {
                addresses,
                asked: Instant::now(),
                turn: 0,
            },
        );
    }
}
