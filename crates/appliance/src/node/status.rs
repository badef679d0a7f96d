//! The cluster as one node sees it, for people and scripts.

use sallyport_store::Wanted;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::State;

/// What `sallyport node list` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub cluster: Uuid,
    /// The node that was asked.
    pub node: String,
    /// Counts changes of the list of nodes.
    pub revision: u64,
    /// Name of the leader.
    pub leader: Option<String>,
    /// Its epoch, or the last one.
    pub epoch: u64,
    /// Whether the node that was asked sees more than half of the nodes.
    pub majority: bool,
    /// Whether it reaches the database.
    pub database: bool,
    /// Every node of the cluster, by name.
    pub nodes: Vec<NodeStatus>,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// `data` or `witness`.
    pub role: String,
    /// Where the others reach it.
    pub address: String,
    /// Whether it is there.
    pub live: bool,
    /// Whether it leads.
    pub leader: bool,
    /// What is wanted of it.
    pub wanted: String,
    /// What it does, if it is there.
    pub state: Option<String>,
    /// Whether it serves, if it is there; a witness never does.
    pub serving: Option<bool>,
    /// Version of its build, if it is there.
    pub version: Option<String>,
}

impl State {
    /// The cluster as this node sees it.
    pub fn status(&self) -> Status {
        let (roster, live, lease) = (self.roster(), self.live(), self.lease());
        let there = roster.members.iter();
        let nodes: Vec<NodeStatus> = there
            .filter(|it| it.wanted != Wanted::Removed)
            .map(|it| {
                let facts = live.get(&it.id);
                NodeStatus {
                    name: it.name.clone(),
                    id: it.id,
                    role: it.role.to_string(),
                    address: it.address.clone(),
                    live: facts.is_some(),
                    leader: lease.holder == Some(it.id),
                    wanted: it.wanted.to_string(),
                    state: facts.map(|it| it.state.clone()),
                    serving: facts.map(|it| it.serving),
                    version: facts.map(|it| it.version.clone()),
                }
            })
            .collect();
        Status {
            cluster: self.identity.cluster,
            node: self.identity.name.clone(),
            revision: roster.revision,
            leader: nodes.iter().find(|it| it.leader).map(|it| it.name.clone()),
            epoch: lease.epoch,
            majority: self.sees_majority(),
            database: self.vitals.borrow().database,
            nodes,
        }
    }
}
