//! The doctor's matrix: each node tries the ways to the others when it is asked over the control
//! channel, and one node gathers what they found.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, State as Extract};
use axum::routing::post;
use http::{Method, StatusCode};
use sallyport_store::Member;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::calls::call;
use crate::node::{Plane, Refusal, State, refusal};

/// For one node to try all others.
const PROBE_TIME_MAX: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Shared {
    state: Arc<State>,
    plane: Arc<dyn Plane>,
}

/// What a node answers to other nodes.
pub(super) fn router(state: Arc<State>, plane: Arc<dyn Plane>) -> Router<Arc<State>> {
    Router::new()
        .route("/probe", post(probe))
        .with_state(Shared { state, plane })
}

/// What a node answers to operators of its machine.
pub(crate) fn matrix(state: Arc<State>, plane: Arc<dyn Plane>) -> Router {
    Router::new()
        .route("/doctor", post(gather))
        .with_state(Shared { state, plane })
}

async fn probe(Extract(shared): Extract<Shared>) -> Result<Json<Value>, Refusal> {
    let told = shared.plane.probe(&shared.state).await;
    told.map(Json)
        .map_err(|error| refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")))
}

#[derive(Debug, Deserialize)]
struct Question {
    /// The one node that shall try; all of them without it.
    from: Option<String>,
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
        probes.spawn(ask(shared.clone(), member));
    }
    let mut lines = probes.join_all().await;
    lines.sort_by_key(|line| line["from"].as_str().unwrap_or_default().to_owned());
    Ok(Json(json!({"matrix": lines})))
}

/// One line of the matrix.
async fn ask(shared: Shared, member: Member) -> Value {
    let told = if member.id == shared.state.identity.id {
        let told = shared.plane.probe(&shared.state).await;
        told.map_err(|error| format!("{error:#}"))
    } else {
        let nothing = json!({});
        let path = "/probe";
        let told = call(
            &shared.state,
            &member,
            Method::POST,
            path,
            &nothing,
            PROBE_TIME_MAX,
        );
        told.await.map_err(|error| error.to_string())
    };
    match told {
        Ok(told) => json!({"from": member.name, "ok": told["ok"], "rows": told["rows"]}),
        Err(error) => json!({"from": member.name, "ok": false, "error": error}),
    }
}
