//! Addresses of host names, through the system's resolver, kept for a while.
//!
//! A name is asked for once at a time. Whoever finds an answer that is no longer fresh asks again;
//! everybody else goes on with it meanwhile, so that a resolver that is slow or gone holds up one
//! request at a time and not all of them. Source: data-plane reference 5.4.

use std::cell::RefCell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tokio::sync::Notify;

use super::{Host, Peer};

/// How long an answer is used before it is asked for again.
const FRESH: Duration = Duration::from_secs(10);
/// How much longer it is used while the resolver fails. Source: `dns_stale_ttl`.
const STALE: Duration = Duration::from_secs(3600);
/// How long a failure stands before the resolver is asked again.
const FAILED: Duration = Duration::from_secs(1);
/// Names kept; past this those without a fresh answer are dropped.
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
    names: RefCell<AHashMap<Box<str>, Rc<Name>>>,
}

/// What is known about one name.
#[derive(Default)]
struct Name {
    known: RefCell<Known>,
    /// Told whenever a look-up ends.
    asked: Notify,
}

#[derive(Default)]
struct Known {
    /// Empty until the first answer.
    addresses: Vec<IpAddr>,
    /// When they came.
    since: Option<Instant>,
    /// The latest failure since then.
    failure: Option<(Instant, String)>,
    /// Whether somebody is asking now.
    asking: bool,
    turn: usize,
}

/// What to do for an address.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Take(IpAddr),
    Fail(String),
    Wait,
    Ask,
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
        let look_up = async || {
            let found = tokio::net::lookup_host((&**name, peer.port)).await;
            match found.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>()) {
                Ok(found) if found.is_empty() => Err("no address".to_owned()),
                Ok(found) => Ok(found),
                Err(error) => Err(error.to_string()),
            }
        };
        match self.find(name, look_up).await {
            Ok(ip) => Ok(SocketAddr::new(ip, peer.port)),
            Err(reason) => Err(ResolveError {
                host: name.clone(),
                reason,
            }),
        }
    }

    async fn find<F>(&self, name: &str, mut look_up: impl FnMut() -> F) -> Result<IpAddr, String>
    where
        F: Future<Output = Result<Vec<IpAddr>, String>>,
    {
        let name = self.name(name);
        loop {
            let next = name.known.borrow_mut().next(Instant::now());
            match next {
                Next::Take(ip) => return Ok(ip),
                Next::Fail(reason) => return Err(reason),
                Next::Wait => name.asked.notified().await,
                Next::Ask => {
                    let asking = Asking::new(&name);
                    let found = look_up().await;
                    name.known.borrow_mut().note(found, Instant::now());
                    drop(asking);
                }
            }
        }
    }

    fn name(&self, name: &str) -> Rc<Name> {
        let mut names = self.names.borrow_mut();
        if let Some(known) = names.get(name) {
            return known.clone();
        }
        if names.len() >= NAMES_MAX {
            let now = Instant::now();
            names.retain(|_, name| name.known.borrow().is_worth_keeping(now));
        }
        names.entry(name.into()).or_default().clone()
    }
}

impl Known {
    fn age(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since))
    }

    fn is_worth_keeping(&self, now: Instant) -> bool {
        self.asking || self.age(now).is_some_and(|age| age < FRESH)
    }

    /// What to do now; takes turns between several addresses.
    fn next(&mut self, now: Instant) -> Next {
        let age = self.age(now);
        let failed = self
            .failure
            .as_ref()
            .filter(|(at, _)| now.saturating_duration_since(*at) < FAILED);
        let fresh = age.is_some_and(|age| age < FRESH);
        if !fresh && !self.asking && failed.is_none() {
            return Next::Ask;
        }
        if age.is_some_and(|age| age < FRESH + STALE) && !self.addresses.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            return Next::Take(self.addresses[self.turn % self.addresses.len()]);
        }
        match failed {
            Some((_, reason)) if !self.asking => Next::Fail(reason.clone()),
            _ => Next::Wait,
        }
    }

    fn note(&mut self, found: Result<Vec<IpAddr>, String>, now: Instant) {
        match found {
            Ok(addresses) => {
                self.addresses = addresses;
                self.since = Some(now);
                self.failure = None;
            }
            Err(reason) => self.failure = Some((now, reason)),
        }
    }
}

/// A look-up under way; those who wait hear of its end, even if it is given up.
struct Asking<'a>(&'a Name);

impl Asking<'_> {
    fn new(name: &Name) -> Asking<'_> {
        name.known.borrow_mut().asking = true;
        Asking(name)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.known.borrow_mut().asking = false;
        self.0.asked.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn those_who_ask_at_once_share_one_look_up() {
        let (resolver, asked) = (Resolver::default(), Cell::new(0));
        let look_up = || {
            asked.set(asked.get() + 1);
            async {
                tokio::task::yield_now().await;
                Ok(vec![A, B])
            }
        };
        let find = || resolver.find("a.test", look_up);
        let (first, second, third) = block_on(async { tokio::join!(find(), find(), find()) });
        assert_eq!(asked.get(), 1);
        let found = [first.unwrap(), second.unwrap(), third.unwrap()];
        assert!(found.contains(&A) && found.contains(&B), "they take turns");
    }

    #[test]
    fn a_look_up_that_is_given_up_holds_nobody_up() {
        let resolver = Resolver::default();
        let look_up = || async { Ok(vec![A]) };
        let found = block_on(async {
            let never = resolver.find("a.test", std::future::pending);
            let mut never = Box::pin(never);
            std::future::poll_fn(|cx| {
                assert!(never.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            let waits = resolver.find("a.test", look_up);
            let given_up = async {
                tokio::task::yield_now().await;
                drop(never);
            };
            tokio::join!(waits, given_up).0
        });
        assert_eq!(found, Ok(A));
    }

    #[test]
    fn old_answers_are_used_while_somebody_asks_or_nobody_can() {
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        let mut known = Known::default();
        assert_eq!(known.next(start), Next::Ask);
        known.asking = true;
        assert_eq!(known.next(start), Next::Wait, "nothing to go on with");
        known.asking = false;
        known.note(Err("gone".to_owned()), start);
        assert_eq!(known.next(start), Next::Fail("gone".to_owned()));
        assert_eq!(known.next(after(1)), Next::Ask);
        known.note(Ok(vec![A]), start);
        assert_eq!(known.next(after(9)), Next::Take(A));
        assert_eq!(known.next(after(10)), Next::Ask);
        known.asking = true;
        assert_eq!(known.next(after(10)), Next::Take(A), "another one asks");
        known.asking = false;
        known.note(Err("gone".to_owned()), after(20));
        assert_eq!(known.next(after(20)), Next::Take(A));
        assert_eq!(known.next(after(21)), Next::Ask, "it may be back");
        known.note(Err("gone".to_owned()), after(3610));
        assert_eq!(known.next(after(3610)), Next::Fail("gone".to_owned()));
    }
}
