//! Which nodes count together now, and the links to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::link::{self, Link};
use super::{Cluster, owner};

/// Where another node listens, and what its certificate bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// DNS name in its certificate.
    pub certified: String,
}

/// The nodes among which keys are divided, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Whether this node owns keys. One that is drained asks the others for every key, as long as
    /// there is one.
    pub here: bool,
    /// The others, by name.
    pub others: BTreeMap<String, Peer>,
    /// Counts changes of whom this node knows, so that connections of nodes that were cast out end.
    pub revision: u64,
}

/// Whether a certificate is that of a node; says why not.
pub type Admits = Arc<dyn Fn(Option<&CertificateDer<'_>>) -> Result<(), String> + Send + Sync>;

/// How this node takes part among others.
#[derive(Clone)]
pub struct Peers {
    /// This node's name.
    pub node: String,
    /// Who there is, as it changes.
    pub members: watch::Receiver<Members>,
    /// For nodes that dial this one; offers [`ALPN`](super::ALPN).
    pub accept: Arc<ServerConfig>,
    /// For dialling them.
    pub dial: Arc<ClientConfig>,
    /// Who is let in, beyond what `accept` checks.
    pub admits: Admits,
    /// How long another node may take to answer, before the bucket type's policy does.
    pub answer_within: Duration,
}

/// One node of several.
pub(super) struct Known {
    /// What it is known by in scores.
    pub(super) seed: u64,
    /// `None` for this node.
    pub(super) link: Option<Arc<Link>>,
}

struct Running {
    peer: Peer,
    link: Arc<Link>,
    stop: CancellationToken,
}

/// Keeps a link to each of the others, until `stop`.
pub(super) async fn follow(cluster: Arc<Cluster>, peers: Peers, stop: CancellationToken) {
    let mut members = peers.members.clone();
    let mut links: BTreeMap<String, Running> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let now = members.borrow_and_update().clone();
        let mut gone = Vec::new();
        links.retain(|name, running| {
            let stays = now.others.get(name) == Some(&running.peer);
            if !stays {
                info!(node = name, "node takes no keys any more");
                gone.push(running.stop.clone());
            }
            stays
        });
        for (name, peer) in &now.others {
            links.entry(name.clone()).or_insert_with(|| {
                let (leases, limits) = (cluster.leases.clone(), cluster.limits.clone());
                let link = Arc::new(Link::new(name, peer, &peers, leases, limits));
                let stop = CancellationToken::new();
                tasks.spawn(link::run(link.clone(), stop.clone()));
                let peer = peer.clone();
                Running { peer, link, stop }
            });
        }
        let mut nodes: Vec<Known> = links
            .iter()
            .map(|(name, running)| Known {
                seed: owner::seed(name),
                link: Some(running.link.clone()),
            })
            .collect();
        if now.here {
            let (seed, link) = (owner::seed(&peers.node), None);
            nodes.push(Known { seed, link });
        }
        cluster.nodes.store(Arc::new(nodes));
        // Only now: what comes back from these goes to who owns its key from now on.
        for link in gone {
            link.cancel();
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    for running in links.values() {
                        running.stop.cancel();
                    }
                    while tasks.join_next().await.is_some() {}
                    return;
                }
                Some(ended) = tasks.join_next() => if let Err(error) = ended && error.is_panic() {
                    error!(%error, "a link to another node ended with a panic");
                },
                changed = members.changed() => match changed {
                    Ok(()) => break,
                    // nobody changes them: they are those of a file
                    Err(_) => stop.cancelled().await,
                },
            }
        }
    }
}
