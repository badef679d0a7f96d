//! The control plane as a node sees it: a handle that the executable passes in, because roles meet
//! nowhere else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use sallyport_store::Store;
use serde_json::Value;

use super::authority::Authority;
use super::recorded::RecordsHere;
use super::state::{Accepts, State};

/// How to run a control plane on this node.
#[async_trait]
pub trait Plane: Send + Sync + 'static {
    /// Opens the database. A shared one may be out of reach; the node tries again.
    async fn open(&self) -> anyhow::Result<Store>;

    /// Tries the ways from this node to every other one, on every row of the contract between
    /// nodes that applies; `features` are in use although no node shows it. The doctor's JSON.
    async fn probe(&self, state: &State, features: BTreeSet<String>) -> anyhow::Result<Value>;

    /// Where this node listens for others, by contract id, as `9001/tcp`. Blocks for a moment.
    fn accepts(&self, state: &State) -> Accepts;

    /// Starts the control plane of this node, whose servers show certificates of the authority's
    /// `api`.
    async fn start(
        &self,
        state: &State,
        store: Store,
        authority: Authority,
    ) -> anyhow::Result<Box<dyn RunningPlane>>;
}

/// A control plane that runs.
#[async_trait]
pub trait RunningPlane: Send {
    /// Where its APIs are.
    fn address(&self) -> SocketAddr;

    /// Its audit log, for commands that are given on this machine.
    fn records(&self) -> Arc<dyn RecordsHere>;

    /// Waits for it to fail, which only a bug does; says what happened. May be dropped.
    async fn failed(&mut self) -> String;

    /// Lets open requests finish, within a bound, and ends.
    async fn stop(self: Box<Self>);
}
