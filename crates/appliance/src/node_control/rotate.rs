//! A node changes its key and certificate while it runs.
//!
//! The new key is made on the node; a data node certifies it and notes that either key is the node's.
//! Once every node that is there has heard so, the node keeps and shows the new one, and the old one
//! becomes nobody's. Cut short anywhere, the node starts with one of the two, and both are its own until
//! the change is finished.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Json, State as Extract};
use axum::routing::post;
use axum::{Extension, Router};
use http::{Method, StatusCode};
use sallyport_runtime::certs::{NewKey, Request};
use sallyport_store::{Actor, Member, NodeRole, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::calls::call;
use super::listener::Peer;
use crate::node::{Authority, Fatal, Identity, Refusal, Secret, State, refusal};

/// For another node to certify or to finish.
const CALL_TIME_MAX: Duration = Duration::from_secs(15);
/// For every node to hear of the new key.
const HEARD_TIME_MAX: Duration = Duration::from_secs(30);
/// Between looks at whether a change is to be finished.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a data node answers to a request for a certificate.
#[derive(Debug, Serialize, Deserialize)]
struct Certified {
    certificate: String,
    /// The roster that says so.
    revision: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Wish {
    /// PEM.
    request: String,
}

/// What a node answers to other nodes.
pub(super) fn router(state: Arc<State>) -> Router<Arc<State>> {
    Router::new()
        .route("/certify", post(certify_peer))
        .route("/settle", post(settle_peer))
        .with_state(state)
}

async fn certify_peer(
    Extract(state): Extract<Arc<State>>,
    Extension(Peer(peer)): Extension<Peer>,
    Json(wish): Json<Wish>,
) -> Result<Json<Value>, Refusal> {
    let certified = certify(&state, &peer, &wish.request).await;
    let certified = certified.map_err(|why| refusal(StatusCode::CONFLICT, why))?;
    Ok(Json(json!(certified)))
}

async fn settle_peer(
    Extract(state): Extract<Arc<State>>,
    Extension(Peer(peer)): Extension<Peer>,
) -> Result<Json<Value>, Refusal> {
    // By the connection's own key, which `recognise` knew as the announced one.
    let settled = settle(&state, &peer, peer.next_key).await;
    settled.map_err(|why| refusal(StatusCode::CONFLICT, why))?;
    Ok(Json(json!({})))
}

fn actor(member: &Member) -> Actor {
    Actor(format!("node {}", member.name))
}

/// Notes the key of a request as a node's next one and certifies it.
async fn certify(state: &State, of: &Member, request: &str) -> Result<Certified, String> {
    let request = Request::parse(request).map_err(|error| error.to_string())?;
    let store = state
        .store()
        .ok_or("this node has no database at the moment, or is a witness")?;
    let cluster = store.cluster().await.map_err(|error| error.to_string())?;
    let cluster = cluster.ok_or("the database holds no cluster")?;
    let authority = Authority::open(&cluster, &state.identity.secret);
    let authority = authority.map_err(|error| error.to_string())?;
    let digest = request.key_digest();
    let certificate = authority.certify(request, of.id, &of.name);
    let certificate = certificate.map_err(|error| error.to_string())?;
    let revision = store.announce_key(&actor(of), of.id, digest).await;
    Ok(Certified {
        certificate,
        revision: revision.map_err(|error| error.to_string())?,
    })
}

async fn settle(state: &State, of: &Member, key: [u8; 32]) -> Result<(), String> {
    let store = state
        .store()
        .ok_or("this node has no database at the moment, or is a witness")?;
    match store.settle_key(&actor(of), of.id, key).await {
        Ok(()) => Ok(()),
        Err(StoreError::NotFound) => Err("no such change was announced".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Asks this node, or another data node that is there.
async fn through(state: &State, path: &str, body: &Value) -> Result<Value, String> {
    let live = state.live();
    let mut why = "no data node is there".to_owned();
    for member in state.members() {
        let asks = member.role == NodeRole::Data
            && member.id != state.identity.id
            && live.get(&member.id).is_some_and(|facts| facts.database);
        if !asks {
            continue;
        }
        match call(state, &member, Method::POST, path, body, CALL_TIME_MAX).await {
            Ok(answer) => return Ok(answer),
            Err(error) => why = format!("{}: {error}", member.name),
        }
    }
    Err(why)
}

fn own(state: &State) -> Result<Member, String> {
    let members = state.members().into_iter();
    let mut mine = members.filter(|it| it.id == state.identity.id);
    mine.next()
        .ok_or_else(|| "this node is not on the list of nodes".to_owned())
}

/// Changes this node's key.
pub(crate) async fn rotate(state: &State) -> Result<(), String> {
    let tls = state
        .tls
        .get()
        .ok_or("a node that is alone has no use for another key")?;
    let new = NewKey::create().map_err(|error| error.to_string())?;
    let me = own(state)?;
    let certified = match state.store() {
        Some(_) => certify(state, &me, &new.request).await?,
        None => {
            let wish = Wish {
                request: new.request.clone(),
            };
            let answer = through(state, "/certify", &json!(wish)).await?;
            serde_json::from_value(answer).map_err(|error| error.to_string())?
        }
    };
    heard(state, certified.revision).await?;
    let identity = Identity {
        certificate: certified.certificate,
        key: Secret(new.key),
        ..state.identity.clone()
    };
    let shown = identity.tls().map_err(|error| error.to_string())?;
    let stored = identity.store(&state.settings.data, "identity.json");
    stored.map_err(|error| error.to_string())?;
    tls.shown.show(shown);
    info!("this node has a new key and certificate");
    Ok(())
}

/// Waits until every node that is there knows this revision of the roster.
async fn heard(state: &State, revision: u64) -> Result<(), String> {
    let mut live = state.live.subscribe();
    let all = live.wait_for(|live| live.values().all(|facts| facts.revision >= revision));
    if timeout(HEARD_TIME_MAX, all).await.is_ok() {
        return Ok(());
    }
    let live = state.live();
    let deaf: Vec<String> = state
        .members()
        .into_iter()
        .filter(|it| live.get(&it.id).is_some_and(|it| it.revision < revision))
        .map(|it| it.name)
        .collect();
    Err(format!(
        "the key stays as it was: {} did not hear of the new one; try again when the database is there",
        deaf.join(", ")
    ))
}

/// Finishes changes that this node's key shows to be under way, until `stop`.
pub(crate) async fn settle_own(state: Arc<State>, stop: CancellationToken) -> Result<(), Fatal> {
    let mut told = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(LOOK_EVERY) => {}
        }
        let key = state.tls.get().and_then(|tls| tls.shown.key_digest());
        let (Some(key), Ok(me)) = (key, own(&state)) else {
            continue;
        };
        if me.key_digest == key || me.next_key != key {
            continue;
        }
        let settled = match state.store() {
            Some(_) => settle(&state, &me, key).await,
            None => through(&state, "/settle", &json!({})).await.map(drop),
        };
        match settled {
            Ok(()) => {
                told = false;
                info!("the former key of this node is nobody's now");
            }
            Err(why) if !told => {
                told = true;
                warn!(why, "the change of this node's key is not finished yet");
            }
            Err(_) => {}
        }
    }
}
