//! What operators want of nodes: the database holds it, the leader brings it about, one node at a
//! time, and gossip tells that it is done.
//!
//! Each step may be repeated, by the same leader or the next one. A node obeys no leader whose epoch
//! is older than one it has obeyed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Json, State as Extract};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::{Method, StatusCode};
use sallyport_store::{ClusterRefusal, Member, NodeRole, Step, Store, StoreError, Wanted};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::Tls;
use super::calls::call_with;
use super::listener::Peer;
use crate::node::{Fatal, Plane, Refusal, State, refusal};

const TICK: Duration = Duration::from_millis(500);
/// For a node to do what is wanted; a control plane that stops lets requests finish.
const STEP_TIME_MAX: Duration = Duration::from_secs(60);
/// After a failed step, before the node is asked again.
const AGAIN: Duration = Duration::from_secs(10);

/// `POST /apply` between nodes.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    epoch: u64,
    wanted: String,
}

/// What a node answers to other nodes.
pub(super) fn router(state: Arc<State>, plane: Arc<dyn Plane>) -> Router {
    Router::new()
        .merge(super::doctor::router(Arc::clone(&state), plane))
        .merge(super::rotate::router(Arc::clone(&state)))
        .route("/ping", get(ping))
        .route("/apply", post(obey))
        .fallback(|| async {
            refusal(
                StatusCode::NOT_FOUND,
                "this node does not know the command; its build is older",
            )
        })
        .with_state(state)
}

async fn ping(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    Json(json!({"node": state.identity.name, "facts": state.facts()}))
}

async fn obey(
    Extract(state): Extract<Arc<State>>,
    Extension(Peer(peer)): Extension<Peer>,
    Json(order): Json<Order>,
) -> Result<Json<Value>, Refusal> {
    if peer.role != NodeRole::Data {
        return Err(refusal(StatusCode::FORBIDDEN, "a witness leads nobody"));
    }
    let wanted: Wanted = order
        .wanted
        .parse()
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, error))?;
    apply(&state, order.epoch, wanted)
        .await
        .map_err(|why| refusal(StatusCode::CONFLICT, why))?;
    Ok(Json(json!({"state": wanted.as_str()})))
}

/// Does what is wanted of this node, and waits until it is done.
async fn apply(state: &State, epoch: u64, wanted: Wanted) -> Result<(), String> {
    if !state.admit_epoch(epoch) {
        return Err(format!(
            "a leader with a later epoch than {epoch} has taken over"
        ));
    }
    state.set_duty(wanted).map_err(|error| error.to_string())?;
    if state.identity.role == NodeRole::Data {
        let mut plane = state.plane.subscribe();
        let stopped = wanted == Wanted::Drained;
        let reached = plane.wait_for(|address| address.is_none() == stopped);
        let timed = timeout(STEP_TIME_MAX - Duration::from_secs(5), reached).await;
        if timed.is_err() {
            let what = if stopped { "stop" } else { "start" };
            return Err(format!("the control plane did not {what} in time"));
        }
    }
    Ok(())
}

/// While this node leads: brings about what is wanted. Until `stop`.
pub(crate) async fn execute(
    state: Arc<State>,
    tls: Option<Tls>,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    let mut failed: HashMap<Uuid, Instant> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(TICK) => {}
        }
        let (Some(epoch), Some(store)) = (state.lease().mine(), state.store()) else {
            continue;
        };
        failed.retain(|_, at| at.elapsed() < AGAIN);
        let Some(member) = next(&state, &failed) else {
            continue;
        };
        let done = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            done = step(&state, tls.as_ref(), &store, epoch, &member) => done,
        };
        if !done {
            failed.insert(member.id, Instant::now());
        }
    }
}

/// The first node, by name, that is there and does not do what is wanted of it.
fn next(state: &State, failed: &HashMap<Uuid, Instant>) -> Option<Member> {
    let live = state.live();
    state.members().into_iter().find(|it| {
        let facts = live.get(&it.id);
        !failed.contains_key(&it.id) && facts.is_some_and(|facts| facts.state != it.wanted.as_str())
    })
}

/// One step for one node; whether it succeeded.
async fn step(
    state: &State,
    tls: Option<&Tls>,
    store: &Store,
    epoch: u64,
    member: &Member,
) -> bool {
    let note = |outcome: &str, detail: &str| {
        let step = Step {
            epoch,
            holder: state.identity.id,
            node: member.id,
            wanted: member.wanted,
            wanted_at: member.wanted_at,
            outcome: outcome.to_owned(),
            detail: detail.to_owned(),
            at_us: 0,
        };
        store.record_step(state.boot, step)
    };
    match note("begun", "").await {
        Ok(()) => {}
        Err(StoreError::Cluster(ClusterRefusal::NotLeader { .. })) => {
            warn!(epoch, "the lease is over, another node goes on");
            return false;
        }
        Err(error) => {
            warn!(%error, "what is wanted of nodes waits for the database");
            return false;
        }
    }
    let outcome = order(state, tls, epoch, member).await;
    let (word, detail) = match &outcome {
        Ok(()) => ("done", ""),
        Err(error) => ("failed", error.as_str()),
    };
    info!(node = member.name, wanted = %member.wanted, epoch, outcome = word, detail, "step");
    if let Err(error) = note(word, detail).await {
        warn!(%error, "the outcome of a step could not be noted; the next leader repeats it");
        return false;
    }
    outcome.is_ok()
}

async fn order(
    state: &State,
    tls: Option<&Tls>,
    epoch: u64,
    member: &Member,
) -> Result<(), String> {
    if member.id == state.identity.id {
        apply(state, epoch, member.wanted).await?;
    } else {
        let order = Order {
            epoch,
            wanted: member.wanted.to_string(),
        };
        let body = serde_json::to_value(order).map_err(|error| error.to_string())?;
        let tls = tls.ok_or("this node has no way to others")?;
        call_with(tls, member, Method::POST, "/apply", &body, STEP_TIME_MAX)
            .await
            .map_err(|error| error.to_string())?;
    }
    // The node says it itself, so that the next one begins only then.
    let mut live = state.live.subscribe();
    let id = member.id;
    let told = live.wait_for(|live| {
        let facts = live.get(&id);
        facts.is_none_or(|facts| facts.state == member.wanted.as_str())
    });
    match timeout(Duration::from_secs(15), told).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err("the node does not report it".to_owned()),
    }
}
