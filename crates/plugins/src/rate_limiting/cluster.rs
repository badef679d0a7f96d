//! Counts on the appliance's nodes, for all gateways that ask them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sallyport_wire::rate_limit::{Counted, Period, Windows as Limited};

use super::counters::{Key, Taken};
use super::limits::Windows;
use super::{Flow, Handler, Reply, Rules};
use crate::exchange::{Env, Exchange, Resume};

/// Why the nodes did not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountError {
    /// The gateway knows no nodes.
    #[error("this gateway knows no nodes that count (sallyport_rate_limit in kong.conf)")]
    NoNodes,
    /// None can be reached, or the one that counts the key cannot.
    #[error("the nodes that count cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// The answer did not come in time.
    #[error("no answer in time")]
    Timeout,
}

/// What the nodes say, once they do.
pub type CountAnswer = Pin<Box<dyn Future<Output = Result<Counted, CountError>>>>;

/// The way to the nodes that count. Whoever implements it keeps a connection open, and says in the
/// log when there is none.
pub trait CountNodes: Send + Sync {
    /// Counts one more for a key, in every window or in none.
    fn count(&self, key: Vec<u8>, windows: Limited) -> CountAnswer;

    /// A request was let through or refused without them.
    fn went_without(&self);
}

/// Reaches nobody.
pub(crate) struct NoNodes;

impl CountNodes for NoNodes {
    fn count(&self, _: Vec<u8>, _: Limited) -> CountAnswer {
        Box::pin(std::future::ready(Err(CountError::NoNodes)))
    }

    fn went_without(&self) {}
}

/// Counts on the nodes; while they are gone in this gateway, or nobody passes.
pub(super) struct Cluster(pub(super) Arc<Rules>);

impl Handler for Cluster {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let limits = self.0.limits.at(exchange.now_ms);
        let key = self.0.key(exchange);
        let asked = env.node.nodes.count(name(&key), limited(&limits));
        let rules = self.0.clone();
        Flow::Wait(Box::pin(async move {
            let counted = asked.await;
            let resume: Resume = Box::new(move |exchange, env| match counted {
                Ok(counted) => rules.decide(exchange, &limits, taken(&limits, &counted)),
                Err(_) => {
                    env.node.nodes.went_without();
                    if !rules.fault_tolerant {
                        return Flow::Respond(Reply::failure());
                    }
                    let taken = env.node.counters.take(key, &limits, exchange.now_ms);
                    rules.decide(exchange, &limits, taken)
                }
            });
            resume
        }))
    }
}

/// What the nodes know a key by. Ids and addresses cannot hold a colon at their end, so what a client
/// chose comes last.
fn name(key: &Key) -> Vec<u8> {
    let id = |id: Option<uuid::Uuid>| id.unwrap_or_default();
    let (route, service) = (id(key.route), id(key.service));
    format!("{route}:{service}:{}", key.identity).into_bytes()
}

fn limited(limits: &Windows) -> Limited {
    let mut limited = Limited::default();
    for limit in limits.iter() {
        limited.0[limit.period as usize] = Some(limit.limit);
    }
    limited
}

fn taken(limits: &Windows, counted: &Counted) -> Taken {
    let mut used = [0; Period::ALL.len()];
    for (used, limit) in used.iter_mut().zip(limits.iter()) {
        *used = counted.used[limit.period as usize];
    }
    let refused_by = counted.refused_by;
    let refused_by =
        refused_by.and_then(|period| limits.iter().position(|limit| limit.period == period));
    Taken { used, refused_by }
}
