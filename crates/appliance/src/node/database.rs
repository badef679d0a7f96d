//! The database of a node: reached at some time, and then asked each second who belongs to the
//! cluster.

use std::sync::Arc;
use std::time::Duration;

use sallyport_store::{CliKey, ClusterRefusal, NodeRole, Roster, Store, StoreError, Wanted};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::identity::MemberFile;
use super::plane::Plane;
use super::state::State;
use crate::appliance_cli::{AllowedKey, AllowedKeys};

const AGAIN: Duration = Duration::from_secs(1);

/// Why a node cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The database is of another cluster, or of none.
    #[error("{0}")]
    WrongDatabase(String),
    /// The node was removed.
    #[error(
        "this node was removed from the cluster; to take the machine in again, delete its data \
         directory and join with a new token"
    )]
    Removed,
    /// Another process has started as this node.
    #[error(
        "another process has started as this node since (a copy of this machine's disk?); two \
         machines cannot be one node, so this one stops"
    )]
    Superseded,
    /// The address belongs to another node.
    #[error("another node of the cluster has the address {0} (node_control.advertise)")]
    AddressTaken(String),
    /// A part of the node ended.
    #[error("{0}")]
    Part(String),
}

/// Reaches the database and follows the roster in it, until `stop` or something fatal.
pub(super) async fn follow(
    state: Arc<State>,
    plane: Arc<dyn Plane>,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    let followed = async {
        let store = reach(&state, plane.as_ref()).await?;
        state.store.send_replace(Some(store.clone()));
        let file = MemberFile::of(&state.settings.data);
        let shared = AllowedKeys::of(&state.settings.data.join("control"));
        let mut keys = None;
        loop {
            keep_cli_keys(&store, &shared, &mut keys).await;
            match store.roster_for(state.identity.id, state.boot).await {
                Ok(roster) => learn(&state, &file, roster)?,
                Err(StoreError::Cluster(ClusterRefusal::Superseded)) => {
                    return Err(Fatal::Superseded);
                }
                Err(error) => warn!(%error, "could not read the list of nodes"),
            }
            sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = followed => ended,
    }
}

/// Keeps the keys that may give commands to every node in a file, so that they may also while the
/// database is away.
async fn keep_cli_keys(store: &Store, kept: &AllowedKeys, last: &mut Option<Vec<CliKey>>) {
    let Ok(now) = store.cli_keys().await else {
        return; // the list of nodes says so
    };
    if last.as_ref() == Some(&now) {
        return;
    }
    let keys: Vec<AllowedKey> = now.iter().map(AllowedKey::from).collect();
    match kept.share(&keys) {
        Ok(()) => *last = Some(now),
        Err(error) => warn!(%error, "could not keep the cluster's keys of the command line"),
    }
}

/// Takes over a roster that is newer than the known one.
pub(crate) fn learn(state: &State, file: &MemberFile, roster: Roster) -> Result<(), Fatal> {
    let known = state.roster();
    if roster.revision < known.revision || *known == roster {
        return Ok(());
    }
    let me = roster.members.iter().find(|it| it.id == state.identity.id);
    if me.is_some_and(|me| me.wanted == Wanted::Removed) {
        return Err(Fatal::Removed);
    }
    if let Err(error) = file.store(&roster) {
        warn!(%error, "could not keep the list of nodes");
    }
    state.roster.send_replace(Arc::new(roster));
    Ok(())
}

async fn reach(state: &State, plane: &dyn Plane) -> Result<Store, Fatal> {
    let mut told = false;
    loop {
        match plane.open().await {
            Ok(store) => match enter(state, &store).await {
                Ok(()) => {
                    info!("database reached");
                    return Ok(store);
                }
                Err(Entry::Fatal(fatal)) => return Err(fatal),
                Err(Entry::Later(error)) => {
                    warn!(%error, "the database does not answer");
                    store.close().await;
                }
            },
            Err(error) if !state.clustered => {
                return Err(Fatal::WrongDatabase(format!("{error:#}")));
            }
            Err(error) if !told => {
                told = true;
                warn!(
                    error = format!("{error:#}"),
                    "database not reached, trying on"
                );
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

enum Entry {
    Fatal(Fatal),
    Later(StoreError),
}

/// Makes sure that this is the cluster's database, and this process its node.
async fn enter(state: &State, store: &Store) -> Result<(), Entry> {
    let mine = state.identity.cluster;
    let cluster = store.cluster().await.map_err(Entry::Later)?;
    let wrong = match cluster {
        Some(cluster) if cluster.id == mine => None,
        Some(other) => Some(format!(
            "the database is of cluster {}, this node is of {mine}; check [database] url",
            other.id
        )),
        None => Some(format!(
            "the database holds no cluster, this node is of {mine}; check [database] url"
        )),
    };
    if let Some(wrong) = wrong {
        return Err(Entry::Fatal(Fatal::WrongDatabase(wrong)));
    }
    let address = state.address.to_string();
    let started = store.start_node(state.identity.id, state.boot, &address);
    started.await.map_err(|error| match error {
        StoreError::NotFound => Entry::Fatal(Fatal::Removed),
        StoreError::UniqueTaken { value, .. } => Entry::Fatal(Fatal::AddressTaken(value)),
        other => Entry::Later(other),
    })
}

/// Whether a node of this role has a database.
pub(super) fn has_database(role: NodeRole) -> bool {
    role == NodeRole::Data
}
