//! Who is there: `chitchat` over mTLS.
//!
//! Each node tells its [`Facts`]; data nodes tell the roster too, for witnesses, which have no
//! database. Membership is transitive: a node that only a third one reaches is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chitchat::{Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig};
use sallyport_store::{NodeRole, Roster};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use uuid::Uuid;

use super::Tls;
use super::gossip::{Heard, Mesh};
use crate::node::{Facts, Fatal, MemberFile, RawRoster, State, learn};

/// Between rounds of gossip: every node hears of a change after about three.
const GOSSIP_EVERY: Duration = Duration::from_millis(500);
/// Between looks at what gossip brought.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After how many looks nodes that are not there are asked anew.
const ASK_EVERY: u32 = 8;
const FACTS: &str = "facts";
const ROSTER: &str = "roster";

/// Gossips until `stop`.
pub(crate) async fn membership(
    state: Arc<State>,
    tls: Tls,
    heard: mpsc::Receiver<Heard>,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    let mesh = Mesh {
        state: Arc::clone(&state),
        tls: tls.gossip,
        heard: Mutex::new(Some(heard)),
        links: TaskTracker::new(),
        stop: stop.clone(),
    };
    let broken = |error: anyhow::Error| Fatal::Part(format!("membership failed: {error:#}"));
    let handle = chitchat::spawn_chitchat(config(&state)?, Vec::new(), &mesh);
    let handle = handle.await.map_err(broken)?;
    let mut terminated = std::pin::pin!(handle.termination_watcher());
    let mut rounds = 0u32;
    let ended = loop {
        if let Err(fatal) = look(&state, &handle, rounds.is_multiple_of(ASK_EVERY)).await {
            break Err(fatal);
        }
        rounds = rounds.wrapping_add(1);
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            ended = &mut terminated => break Err(match ended {
                Ok(()) => Fatal::Part("membership ended".to_owned()),
                Err(error) => broken(error),
            }),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    };
    handle.abort();
    mesh.stop.cancel();
    mesh.links.close();
    mesh.links.wait().await;
    ended
}

fn config(state: &State) -> Result<ChitchatConfig, Fatal> {
    let me = state.identity.id.to_string();
    let others = state.members();
    let others = others.iter().filter(|it| it.id != state.identity.id);
    Ok(ChitchatConfig {
        chitchat_id: ChitchatId::new(me, generation(state)?, state.address),
        cluster_id: state.identity.cluster.to_string(),
        gossip_interval: GOSSIP_EVERY,
        listen_addr: state.address,
        seed_nodes: others.map(|it| it.address.clone()).collect(),
        failure_detector_config: FailureDetectorConfig {
            initial_interval: Duration::from_secs(1),
            dead_node_grace_period: Duration::from_secs(600),
            ..FailureDetectorConfig::default()
        },
        marked_for_deletion_grace_period: Duration::from_secs(600),
        catchup_callback: None,
        extra_liveness_predicate: None,
    })
}

/// A number that grows with each start, also where the clock was set back or the disk was restored.
fn generation(state: &State) -> Result<u64, Fatal> {
    let file = state.settings.data.join("generation");
    let failed = |error: crate::node::IdentityError| Fatal::Part(format!("{error}"));
    let last = crate::node::read(&file).map_err(failed)?;
    let last: u64 = last.and_then(|it| it.trim().parse().ok()).unwrap_or(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let next = last.saturating_add(1).max(now.map_or(0, |it| it.as_secs()));
    crate::node::write(&file, &next.to_string()).map_err(failed)?;
    Ok(next)
}

/// Tells what changed here and takes over what changed elsewhere.
async fn look(state: &State, handle: &ChitchatHandle, ask: bool) -> Result<(), Fatal> {
    let facts = serde_json::to_string(&state.facts()).expect("plain values are always JSON");
    let roster = match state.identity.role {
        NodeRole::Data => Some(
            serde_json::to_string(&RawRoster::of_members(&state.roster()))
                .expect("plain values are always JSON"),
        ),
        NodeRole::Witness => None,
    };
    let (live, told) = handle
        .with_chitchat(|chitchat| {
            let own = chitchat.self_node_state();
            own.set(FACTS, &facts);
            if let Some(roster) = &roster {
                own.set(ROSTER, roster);
            }
            seen(state, chitchat)
        })
        .await;
    if state.identity.role == NodeRole::Witness
        && let Some(roster) = told
    {
        let there = roster.members.iter().any(|it| it.id == state.identity.id);
        if roster.revision > state.roster().revision && !there {
            return Err(Fatal::Removed);
        }
        learn(state, &MemberFile::of(&state.settings.data), roster)?;
    }
    report(state, &live);
    if ask {
        for member in state.members() {
            if !live.contains_key(&member.id)
                && let Ok(address) = member.address.parse()
            {
                let _ = handle.gossip(address); // fails when it has ended, which is watched
            }
        }
    }
    state.live.send_if_modified(|known| {
        let changed = **known != live;
        if changed {
            *known = Arc::new(live);
        }
        changed
    });
    Ok(())
}

/// The nodes of the roster that are there, and the newest roster that one of them tells.
fn seen(state: &State, chitchat: &Chitchat) -> (BTreeMap<Uuid, Facts>, Option<Roster>) {
    let members = state.members();
    let mut newest: BTreeMap<Uuid, (u64, Facts)> = BTreeMap::new();
    let mut told: Option<Roster> = None;
    for id in chitchat.live_nodes() {
        let Some(node) = chitchat.node_state(id) else {
            continue;
        };
        let Ok(uuid) = id.node_id.parse::<Uuid>() else {
            continue;
        };
        let text = |key| node.get(key);
        if let Some(roster) = text(ROSTER).and_then(|it| serde_json::from_str::<RawRoster>(it).ok())
            && let Ok(roster) = roster.typed()
            && told.as_ref().is_none_or(|it| it.revision < roster.revision)
        {
            told = Some(roster);
        }
        if !members.iter().any(|it| it.id == uuid) {
            continue;
        }
        let facts = text(FACTS).and_then(|it| serde_json::from_str(it).ok());
        let facts: Facts = facts.unwrap_or_default();
        let entry = newest.entry(uuid).or_default();
        if entry.0 <= id.generation_id {
            *entry = (id.generation_id, facts);
        }
    }
    let live = newest.into_iter().map(|(id, (_, facts))| (id, facts));
    (live.collect(), told)
}

fn report(state: &State, live: &BTreeMap<Uuid, Facts>) {
    let known = state.live();
    for member in state.members() {
        match (
            known.contains_key(&member.id),
            live.contains_key(&member.id),
        ) {
            (false, true) => info!(node = member.name, "node is there"),
            (true, false) => warn!(node = member.name, "node is gone"),
            _ => {}
        }
    }
}
