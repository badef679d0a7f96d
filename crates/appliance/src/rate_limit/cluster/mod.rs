//! Several nodes that count together.
//!
//! Each key belongs to one of the nodes that can be reached; the others forward what they are
//! asked for it, on one connection to each node. The connection is the sign of life: a node whose
//! connection is down owns nothing. What is answered while a node is silent, its bucket types say.

mod lease;
mod link;
mod owner;
mod pending;

use std::sync::Arc;

use sallyport_runtime::Tasks;
use sallyport_wire::rate_limit::{Method, Request, Taken};

use super::limits::count;
use super::server::{Nodes, Outbox};
use lease::{Here, Leases};
use link::Link;
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
pub(super) const ALPN: &[u8] = b"sallyport-rate-limit/1";

/// The nodes, as one of them sees them.
pub(super) struct Cluster {
    /// Of all nodes, this one's link is `None`.
    nodes: Vec<(u64, Option<Arc<Link>>)>,
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
    /// The nodes of the configuration; links to the others are made by `tasks`.
    pub(super) fn start(nodes: Nodes, limits: &Arc<super::Limits>, tasks: &mut Tasks) -> Cluster {
        let leases = Arc::new(Leases::new());
        let mut all = Vec::new();
        for (name, address) in &nodes.addresses {
            let link = (*name != nodes.node).then(|| {
                let link = Link::new(name, address, &nodes, leases.clone(), limits.clone());
                let link = Arc::new(link);
                tasks.spawn("rate_limit link", |stop| link::run(link.clone(), stop));
                link
            });
            all.push((owner::seed(name), link));
        }
        Cluster {
            nodes: all,
            leases,
            limits: limits.clone(),
        }
    }

    /// Finds who answers a request about a key, and sends it there if that is another node.
    pub(super) fn route(&self, request: &Request<'_>, outbox: &Arc<Outbox>) -> Routed {
        let alive = |(at, (seed, link)): (usize, &(u64, Option<Arc<Link>>))| {
            let alive = link.as_ref().is_none_or(|link| link.is_up());
            alive.then_some((at, *seed))
        };
        let alive = self.nodes.iter().enumerate().filter_map(alive);
        let key = owner::of_key(request.bucket, request.key);
        let owner = owner::owner(alive, key).and_then(|at| self.nodes[at].1.as_ref());
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
        let links = self.nodes.iter().filter_map(|(_, link)| link.as_ref());
        for link in links.filter(|link| link.is_up()) {
            link.send(Pending::part(request, gathered.clone()));
        }
    }
}
