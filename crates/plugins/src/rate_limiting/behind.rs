//! Counts of this gateway that Redis is told every `sync_rate` seconds.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ledger::{Due, Ledger};
use super::limits::Windows;
use super::{Rules, shared};
use crate::exchange::{Env, Exchange, Flow, Handler, Reply, Resume};
use crate::node::Node;
use crate::redis::RedisServer;

/// Counts that one command adds to.
const BATCH: usize = 500;

/// Counts here, and tells Redis.
pub(super) struct Behind {
    pub(super) rules: Arc<Rules>,
    pub(super) told: Arc<Told>,
}

/// The ledger of one configuration, and whom it is told.
pub(super) struct Told {
    server: Arc<RedisServer>,
    every: Duration,
    ledger: Mutex<Ledger>,
}

impl Told {
    pub(super) fn new(server: Arc<RedisServer>, every: Duration) -> Arc<Told> {
        Arc::new(Told {
            server,
            every,
            ledger: Mutex::default(),
        })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How old what Redis said may be: what is told anyway is not asked for.
    fn stale_ms(&self) -> u64 {
        2 * self.every.as_millis() as u64
    }

    /// Sees to it that Redis is told.
    fn arm(self: &Arc<Told>, node: &Arc<Node>) {
        if self.ledger().arm() {
            self.clone().later(node.clone());
        }
    }

    fn later(self: Arc<Told>, node: Arc<Node>) {
        let every = self.every;
        let telling = self.tell(node.clone());
        node.redis.later(every, telling);
    }

    fn tell(self: Arc<Told>, node: Arc<Node>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let due = self.ledger().due(unix_ms());
            for batch in due.chunks(BATCH) {
                self.tell_some(&node, batch).await;
            }
            if self.ledger().again() {
                self.later(node);
            }
        })
    }

    async fn tell_some(&self, node: &Node, due: &[Due]) {
        let answer = node.redis.ask(&self.server, shared::add_all(due)).await;
        let totals = answer
            .ok()
            .and_then(|answer| shared::counts(&answer, due.len()));
        match totals {
            Some(totals) => self.ledger().told(due, &totals, unix_ms()),
            None => self.ledger().untold(due),
        }
    }
}

impl Handler for Behind {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let limits = self.rules.limits.at(exchange.now_ms);
        let key = self.rules.key(exchange);
        let now_ms = exchange.now_ms;
        let taken = self
            .told
            .ledger()
            .take(&key, &limits, now_ms, self.told.stale_ms());
        if let Some(taken) = taken {
            self.told.arm(env.node);
            return self.rules.decide(exchange, &limits, taken);
        }
        let command = shared::get(&key, &limits);
        let asked = env.node.redis.ask(&self.told.server, command);
        let (rules, told) = (self.rules.clone(), self.told.clone());
        Flow::Wait(Box::pin(async move {
            let answer = asked.await;
            let resume: Resume = Box::new(move |exchange, env| {
                let limits: &Windows = &limits;
                let used = answer
                    .ok()
                    .and_then(|answer| shared::counts(&answer, limits.len()));
                let Some(used) = used else {
                    return match rules.fault_tolerant {
                        true => Flow::Continue,
                        false => Flow::Respond(Reply::failure()),
                    };
                };
                let taken = {
                    let mut ledger = told.ledger();
                    ledger.learn(&key, limits, &used, now_ms);
                    ledger.take(&key, limits, now_ms, told.stale_ms())
                };
                told.arm(env.node);
                match taken {
                    Some(taken) => rules.decide(exchange, limits, taken),
                    None => Flow::Continue, // what was learned a moment ago is not stale
                }
            });
            resume
        }))
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
