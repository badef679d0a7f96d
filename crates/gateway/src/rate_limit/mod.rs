//! The way to the appliance's nodes that count for several gateways (contract entry
//! `rate_limit.gateway`).
//!
//! Requests on all cores hand their question to one task, which keeps one pipelined connection to
//! the first node that can be reached and sends what has come together. Answers come in any order.
//! While no node can be reached, every question is answered at once: nobody waits for a dead node.

mod link;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use sallyport_plugins::{CountAnswer, CountError, CountNodes};
use sallyport_wire::rate_limit::{Counted, Windows};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Questions that may wait to be sent; further ones are answered as if no node were there.
const WAITING_MAX: usize = 10_000;

/// The nodes, and how they are asked.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Host and port of each, the preferred one first.
    pub(crate) nodes: Vec<(String, u16)>,
    /// How the connection is encrypted, if it is.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// How long connecting may take, and each answer.
    pub(crate) timeout: Duration,
}

/// What happened, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Whether a node is connected.
    pub(crate) connected: AtomicBool,
    /// Requests that were decided without the nodes.
    pub(crate) without: AtomicU64,
}

/// A question and where its answer goes.
struct Ask {
    key: Vec<u8>,
    windows: Windows,
    answer: oneshot::Sender<Result<Counted, CountError>>,
}

/// The end of plugins.
pub(crate) struct Nodes {
    asks: Option<mpsc::Sender<Ask>>,
    stats: Arc<Stats>,
}

/// The end of the task.
pub(crate) struct Counting {
    settings: Settings,
    asked: mpsc::Receiver<Ask>,
    stats: Arc<Stats>,
}

impl Nodes {
    /// Both ends; without nodes there is no task.
    pub(crate) fn new(settings: Settings) -> (Nodes, Option<Counting>) {
        let stats = Arc::new(Stats::default());
        if settings.nodes.is_empty() {
            return (Nodes { asks: None, stats }, None);
        }
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let counting = Counting {
            settings,
            asked,
            stats: stats.clone(),
        };
        let asks = Some(asks);
        (Nodes { asks, stats }, Some(counting))
    }

    /// What happened; `None` where no nodes are configured.
    pub(crate) fn stats(&self) -> Option<Arc<Stats>> {
        self.asks.as_ref().map(|_| self.stats.clone())
    }
}

impl CountNodes for Nodes {
    fn count(&self, key: Vec<u8>, windows: Windows) -> CountAnswer {
        let failed = |error| -> CountAnswer { Box::pin(std::future::ready(Err(error))) };
        let Some(asks) = &self.asks else {
            return failed(CountError::NoNodes);
        };
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            key,
            windows,
            answer,
        };
        match asks.try_send(ask) {
            Ok(()) => Box::pin(async move {
                let ended = |_| Err(CountError::Unreachable("the gateway stops".into()));
                answered.await.unwrap_or_else(ended)
            }),
            Err(error) => failed(CountError::Unreachable(error.to_string().into())),
        }
    }

    fn went_without(&self) {
        self.stats.without.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers what plugins ask, until `stop`.
pub(crate) async fn run(counting: Counting, stop: CancellationToken) {
    let Counting {
        settings,
        asked,
        stats,
    } = counting;
    tokio::select! {
        () = stop.cancelled() => {}
        () = link::keep(settings, asked, stats) => {}
    }
}
