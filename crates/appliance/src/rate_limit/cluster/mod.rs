//! Several nodes that count together.
//!
//! Each key belongs to one of the nodes that can be reached; the others forward what they are
//! asked for it, on one connection to each node. The connection is the sign of life: a node whose
//! connection is down owns nothing. What is answered while a node is silent, its bucket types say.

mod lease;
mod link;
mod members;
mod owner;
mod pending;

use std::sync::Arc;

use arc_swap::ArcSwap;
use sallyport_runtime::Tasks;
use sallyport_wire::rate_limit::{Method, Request, Taken};

use super::limits::count;
use super::server::Outbox;
use lease::{Here, Leases};
use members::Known;
pub use members::{Admits, Members, Peer, Peers};
use pending::Pending;
pub(super) use pending::{Gathered, Why};

/// The node that a key belongs to while all of `nodes` can be reached; `None` without nodes.
///
/// Nodes are known by their names alone, in any order.
pub fn owner_of<'a>(nodes: &[&'a str], bucket: &[u8], key: &[u8]) -> Option<&'a str> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    let seeds = nodes.iter().map(|name| owner::seed(name)).enumerate();
    owner::owner(seeds, owner::of_key(bucket, key)).map(|at| nodes[at])
}

/// What a node is asked for by ALPN on the listener that it shares with clients.
pub const ALPN: &[u8] = b"sallyport-rate-limit/1";

/// The nodes, as one of them sees them.
pub(super) struct Cluster {
    nodes: ArcSwap<Vec<Known>>,
    leases: Arc<Leases>,
    limits: Arc<super::Limits>,
}

/// Where a request is answered.
pub(super) enum Routed {
    /// Here, from this node's buckets.
    Here,
    /// Here, from what the owner debited ahead.
    Leased(Taken),
    /// By its owner; the answer will be in the outbox.
    Sent,
    /// Its owner is silent: here, as the bucket type says.
    Silent,
}

impl Cluster {
    /// The node among its peers; links to the others are made by `tasks`.
    pub(super) fn start(
        peers: Peers,
        limits: &Arc<super::Limits>,
        tasks: &mut Tasks,
    ) -> Arc<Cluster> {
        let cluster = Arc::new(Cluster {
            nodes: ArcSwap::default(),
            leases: Arc::new(Leases::new()),
            limits: limits.clone(),
        });
        let own = cluster.clone();
        tasks.spawn("rate_limit members", |stop| {
            members::follow(own, peers, stop)
        });
        cluster
    }

    /// Finds who answers a request about a key, and sends it there if that is another node.
    pub(super) fn route(&self, request: &Request<'_>, outbox: &Arc<Outbox>) -> Routed {
        let nodes = self.nodes.load();
        let alive = |(at, known): (usize, &Known)| {
            let alive = known.link.as_ref().is_none_or(|link| link.is_up());
            alive.then_some((at, known.seed))
        };
        let alive = nodes.iter().enumerate().filter_map(alive);
        let key = owner::of_key(request.bucket, request.key);
        let owner = owner::owner(alive, key).and_then(|at| nodes[at].link.as_ref());
        let Some(link) = owner else {
            return Routed::Here;
        };
        let mut lease = None;
        if request.method == Method::Take || request.method == Method::Put {
            let name = self.leases.name(request.bucket, request.key);
            match (request.method, count(request)) {
                (Method::Take, Some(count)) => {
                    match self.leases.take(name, count, self.limits.now().ms) {
                        Here::Answer(taken) => return Routed::Leased(taken),
                        Here::Ask { lease: 0 } => {}
                        Here::Ask { lease: more } => lease = Some((name, more)),
                    }
                }
                _ => self.leases.forget(name),
            }
        }
        match link.send(Pending::new(request, outbox.clone(), lease)) {
            true => Routed::Sent,
            false => Routed::Silent,
        }
    }

    /// Asks every node that can be reached for its part of a STATUS.
    pub(super) fn gather(&self, request: &Request<'_>, gathered: &Arc<Gathered>) {
        let nodes = self.nodes.load();
        let links = nodes.iter().filter_map(|known| known.link.as_ref());
        for link in links.filter(|link| link.is_up()) {
            link.send(Pending::part(request, gathered.clone()));
        }
    }
}
