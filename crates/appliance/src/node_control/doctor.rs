//! The doctor's matrix: each node tries the ways to the others when it is asked over the control
//! channel, and one node gathers what they found.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, State as Extract};
use axum::routing::post;
use http::{Method, StatusCode};
use sallyport_store::Member;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::calls::call;
use crate::node::{Plane, Refusal, State, refusal};

/// For one node to try all others.
const PROBE_TIME_MAX: Duration = Duration::from_secs(60);
/// Nodes that are asked to pass a question on, one after the other.
const RELAYS_MAX: usize = 2;

#[derive(Clone)]
struct Shared {
    state: Arc<State>,
    plane: Arc<dyn Plane>,
}

/// What a node answers to other nodes.
pub(super) fn router(state: Arc<State>, plane: Arc<dyn Plane>) -> Router<Arc<State>> {
    Router::new()
        .route("/probe", post(probe))
        .route("/probe/of", post(relay))
        .with_state(Shared { state, plane })
}

/// What a node answers to operators of its machine.
pub(crate) fn matrix(state: Arc<State>, plane: Arc<dyn Plane>) -> Router {
    Router::new()
        .route("/doctor", post(gather))
        .with_state(Shared { state, plane })
}

/// What to try.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Trial {
    /// Features of the contract that are in use although no node shows it.
    features: BTreeSet<String>,
}

async fn probe(
    Extract(shared): Extract<Shared>,
    Json(trial): Json<Trial>,
) -> Result<Json<Value>, Refusal> {
    let told = shared.plane.probe(&shared.state, trial.features).await;
    told.map(Json)
        .map_err(|error| refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")))
}

/// A trial by a node that the asking one does not reach itself.
#[derive(Debug, Serialize, Deserialize)]
struct Relayed {
    of: Uuid,
    trial: Trial,
}

async fn relay(
    Extract(shared): Extract<Shared>,
    Json(asked): Json<Relayed>,
) -> Result<Json<Value>, Refusal> {
    let members = shared.state.members();
    let of = members.iter().find(|it| it.id == asked.of);
    let of = of.ok_or_else(|| refusal(StatusCode::NOT_FOUND, "there is no such node"))?;
    let told = asked_directly(&shared, of, &asked.trial).await;
    told.map(Json)
        .map_err(|error| refusal(StatusCode::BAD_GATEWAY, error))
}

#[derive(Debug, Deserialize)]
struct Question {
    /// The one node that shall try; all of them without it.
    from: Option<String>,
    #[serde(flatten)]
    trial: Trial,
}

async fn gather(
    Extract(shared): Extract<Shared>,
    Json(question): Json<Question>,
) -> Result<Json<Value>, Refusal> {
    let members = shared.state.members();
    let names: Vec<String> = members.iter().map(|it| it.name.clone()).collect();
    let asked = members.into_iter();
    let asked: Vec<Member> = asked
        .filter(|it| question.from.as_ref().is_none_or(|name| *name == it.name))
        .collect();
    if asked.is_empty() {
        let name = question.from.unwrap_or_default();
        let message = format!("there is no node {name:?}; there are: {}", names.join(", "));
        return Err(refusal(StatusCode::NOT_FOUND, message));
    }
    let mut probes = JoinSet::new();
    for member in asked {
        probes.spawn(ask(shared.clone(), member, question.trial.clone()));
    }
    let mut lines = probes.join_all().await;
    lines.sort_by_key(|line| line["from"].as_str().unwrap_or_default().to_owned());
    Ok(Json(json!({"nodes": names, "matrix": lines})))
}

/// One line of the matrix.
async fn ask(shared: Shared, member: Member, trial: Trial) -> Value {
    let told = if member.id == shared.state.identity.id {
        let told = shared.plane.probe(&shared.state, trial.features).await;
        told.map_err(|error| format!("{error:#}"))
    } else {
        match asked_directly(&shared, &member, &trial).await {
            Ok(told) => Ok(told),
            Err(error) => by_way_of_another(&shared, &member, &trial)
                .await
                .ok_or(error),
        }
    };
    match told {
        Ok(told) => json!({"from": member.name, "ok": told["ok"], "rows": told["rows"]}),
        Err(error) => json!({"from": member.name, "ok": false, "error": error}),
    }
}

async fn asked_directly(shared: &Shared, member: &Member, trial: &Trial) -> Result<Value, String> {
    let body = json!({"features": trial.features});
    let (post, path) = (Method::POST, "/probe");
    let told = call(&shared.state, member, post, path, &body, PROBE_TIME_MAX);
    told.await.map_err(|error| error.to_string())
}

/// Where the way from here to `member` is cut, another node may have one.
async fn by_way_of_another(shared: &Shared, member: &Member, trial: &Trial) -> Option<Value> {
    let (own, live) = (shared.state.identity.id, shared.state.live());
    if !live.contains_key(&member.id) {
        return None;
    }
    let there = shared.state.members().into_iter();
    let others = there.filter(|it| it.id != own && it.id != member.id && live.contains_key(&it.id));
    for other in others.take(RELAYS_MAX) {
        let body = json!({"of": member.id, "trial": trial});
        let (post, path) = (Method::POST, "/probe/of");
        let told = call(&shared.state, &other, post, path, &body, PROBE_TIME_MAX);
        if let Ok(told) = told.await {
            return Some(told);
        }
    }
    None
}
