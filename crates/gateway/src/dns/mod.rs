//! Addresses of names: one look-up for all who wait, and nobody waits who has an answer.
//!
//! Answers are kept for their TTL. After that the next who needs one goes on with the old answer
//! while the name is looked up in the background. Names are shared by all workers, who read what
//! is known with a plain load. Source: data-plane reference 5.4.

mod hosts;
mod known;
mod look_up;
#[cfg(test)]
mod look_up_tests;
mod servers;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use hosts::Hosts;
use look_up::{Ask, look_up};
use servers::Servers;

use crate::conf::Dns;
pub(crate) use known::{Known, Next};
pub(crate) use look_up::{Answer, Failure, FoundService};

/// Look-ups that may wait for their turn.
const WAITING_MAX: usize = 10_000;
/// Look-ups under way at once.
const UNDER_WAY_MAX: usize = 256;
/// Longest look-up, all kinds of record and all servers together.
const LOOK_UP_TIME_MAX: Duration = Duration::from_secs(15);

/// A name that is looked up when somebody needs it.
#[derive(Debug)]
pub(crate) struct Name {
    text: Box<str>,
    known: ArcSwap<Known>,
    asking: AtomicBool,
    /// Told whenever a look-up ends.
    told: Notify,
}

impl Name {
    /// What is known, without waiting.
    pub(crate) fn known(&self) -> Guard<Arc<Known>> {
        self.known.load()
    }
}

/// A name has no address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("name resolution failed: {name}: {reason}")]
pub(crate) struct ResolveError {
    name: Box<str>,
    reason: String,
}

/// Names and who looks them up.
pub(crate) struct Names {
    dns: Dns,
    by_text: Mutex<HashMap<Box<str>, Weak<Name>>>,
    ask: mpsc::Sender<Asked>,
    /// Taken by whoever runs the look-ups.
    asked: Mutex<Option<mpsc::Receiver<Asked>>>,
}

/// A look-up that was asked for; whatever becomes of it, the name can be asked for again.
struct Asked(Arc<Name>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.asking.store(false, Ordering::Release);
        self.0.told.notify_waiters();
    }
}

impl Names {
    /// No names yet. Nothing is looked up before [`run`](Names::run).
    pub(crate) fn new(dns: Dns) -> Names {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        Names {
            dns,
            by_text: Mutex::default(),
            ask,
            asked: Mutex::new(Some(asked)),
        }
    }

    /// The one entry of a name; it lives as long as somebody holds it.
    pub(crate) fn name(&self, text: &str) -> Arc<Name> {
        let mut by_text = self.by_text.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = by_text.get(text).and_then(Weak::upgrade) {
            return name;
        }
        if by_text.len() == by_text.capacity() {
            by_text.retain(|_, name| name.strong_count() > 0);
        }
        let name = Arc::new(Name {
            text: text.into(),
            known: ArcSwap::default(),
            asking: AtomicBool::new(false),
            told: Notify::new(),
        });
        by_text.insert(text.into(), Arc::downgrade(&name));
        name
    }

    /// Has a name looked up in the background, unless that is under way.
    pub(crate) fn refresh(&self, name: &Arc<Name>) {
        // looked at before it is written: all workers may come by while a look-up is under way
        let merges = self.dns.merge;
        if merges && name.asking.load(Ordering::Acquire) {
            return;
        }
        if name.asking.swap(true, Ordering::AcqRel) && merges {
            return;
        }
        if let Err(error) = self.ask.try_send(Asked(name.clone())) {
            let reason = match error {
                mpsc::error::TrySendError::Full(_) => "too many look-ups wait",
                mpsc::error::TrySendError::Closed(_) => "the resolver has stopped",
            };
            self.note(name, Err(failure(reason)));
        }
    }

    /// The addresses of a name: what is known, however stale, else what a look-up says.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn find(&self, name: &Arc<Name>) -> Result<Arc<Answer>, ResolveError> {
        self.wait(name, true).await
    }

    /// As [`find`](Names::find), but a stale answer counts only once a look-up has failed.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn find_fresh(&self, name: &Arc<Name>) -> Result<Arc<Answer>, ResolveError> {
        self.wait(name, false).await
    }

    async fn wait(
        &self,
        name: &Arc<Name>,
        stale_will_do: bool,
    ) -> Result<Arc<Answer>, ResolveError> {
        loop {
            let mut told = std::pin::pin!(name.told.notified());
            told.as_mut().enable();
            match name.known().next(Instant::now()) {
                Next::Take { answer, stale } if !stale || stale_will_do => {
                    if stale {
                        self.refresh(name);
                    }
                    return Ok(answer.clone());
                }
                Next::Fail(failure) => {
                    return Err(ResolveError {
                        name: name.text.clone(),
                        reason: failure.reason.clone(),
                    });
                }
                Next::Take { .. } | Next::Ask => self.refresh(name),
            }
            told.await;
        }
    }

    fn note(&self, name: &Name, outcome: Result<Answer, Failure>) {
        let now = Instant::now();
        name.known
            .rcu(|known| known.with(outcome.clone(), &self.dns, now));
    }

    /// Looks up what is asked for, until `stop`. Works once.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let hosts = match std::fs::read_to_string(&self.dns.hosts_file) {
            Ok(text) => Hosts::parse(&text),
            Err(error) => {
                let path = self.dns.hosts_file.display();
                warn!(%error, %path, "no hosts file");
                Hosts::parse("")
            }
        };
        match Servers::new(&self.dns) {
            Ok(servers) => self.look_ups(hosts, servers, stop).await,
            Err(error) => {
                warn!(%error, "names cannot be looked up");
                drop(self.take_asked());
            }
        }
    }

    fn take_asked(&self) -> Option<mpsc::Receiver<Asked>> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn look_ups(
        self: Arc<Self>,
        hosts: Hosts,
        servers: impl Ask + 'static,
        stop: CancellationToken,
    ) {
        let Some(mut asked) = self.take_asked() else {
            return;
        };
        let with = Arc::new((hosts, servers));
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = under_way.join_next() => {
                    if let Err(error) = ended {
                        warn!(%error, "a look-up ended early");
                    }
                }
                next = asked.recv(), if under_way.len() < UNDER_WAY_MAX => {
                    let Some(next) = next else { break };
                    under_way.spawn(self.clone().look_up(next, with.clone()));
                }
            }
        }
        under_way.shutdown().await;
    }

    async fn look_up(self: Arc<Self>, asked: Asked, with: Arc<(Hosts, impl Ask)>) {
        let Asked(name) = &asked;
        let last = name.known().last();
        let (hosts, servers) = &*with;
        let looking = look_up(&name.text, last, &self.dns, hosts, servers);
        let outcome = timeout(LOOK_UP_TIME_MAX, looking)
            .await
            .unwrap_or_else(|_| Err(failure("the name servers do not answer")));
        match &outcome {
            Ok(answer) => debug!(name = %name.text, addresses = answer.found.len(), "name found"),
            Err(failure) => warn!(name = %name.text, reason = %failure.reason, "name not found"),
        }
        self.note(name, outcome);
    }
}

fn failure(reason: &str) -> Failure {
    Failure {
        not_found: false,
        reason: reason.to_owned(),
    }
}
