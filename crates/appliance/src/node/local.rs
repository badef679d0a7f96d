//! The socket by which operators of this machine talk to the running node: a file in the data
//! directory, so its permissions are the authentication, and no port is open.
//!
//! It speaks HTTP/1.1 with JSON; what is refused is `{"message": …}`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, State as Extract};
use axum::middleware;
use axum::routing::{get, post};
use http::{Method, StatusCode};
use sallyport_store::{Actor, CliKey, ClusterType, NodeRole, Store, StoreError, Wanted};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::admission::new_token;
use super::database::Fatal;
use super::plane::Plane;
use super::recorded::{RECORDED, record};
use super::state::State;
use super::status::Status;
use crate::appliance_cli::AllowedKey;
use crate::node_control::{CallError, converse, exchange_with, matrix, rotate};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// For one request to be answered; a doctor's run takes a while.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// The socket cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// It cannot be made.
    #[error("could not make the socket {path}")]
    Open {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process answers on it.
    #[error("another process runs this node already (it answers on {path})")]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// Nobody answers on it.
    #[error(
        "the node does not run on this machine (nobody answers on {path}); start it with `sallyport node run`"
    )]
    NotRunning {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The answer did not come or cannot be read.
    #[error("the node did not answer: {0}")]
    Broken(String),
    /// The node refused.
    #[error("{0}")]
    Refused(String),
}

/// The listening socket.
pub(super) struct Local {
    listener: UnixListener,
    path: PathBuf,
    state: Arc<State>,
    plane: Arc<dyn Plane>,
}

impl Local {
    pub(super) fn open(state: &Arc<State>, plane: Arc<dyn Plane>) -> Result<Local, LocalError> {
        let path = state.socket();
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(LocalError::InUse { path });
        }
        let opened = || {
            _ = std::fs::remove_file(&path); // of a process that was killed
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        match opened() {
            Ok(listener) => Ok(Local {
                listener,
                path,
                state: Arc::clone(state),
                plane,
            }),
            Err(source) => Err(LocalError::Open { path, source }),
        }
    }

    pub(super) async fn serve(self, stop: CancellationToken) -> Result<(), Fatal> {
        let state = Arc::clone(&self.state);
        let router = router(Arc::clone(&state))
            .merge(matrix(Arc::clone(&state), self.plane))
            .layer(middleware::from_fn_with_state(state, record));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(converse(stream, router.clone(), ANSWER_TIME_MAX));
                    }
                }
            }
        }
        connections.shutdown().await;
        _ = std::fs::remove_file(&self.path);
        Ok(())
    }
}

/// An answer that refuses.
pub(crate) type Refusal = (StatusCode, Json<Value>);

pub(crate) fn refusal(status: StatusCode, message: impl std::fmt::Display) -> Refusal {
    (status, Json(json!({"message": message.to_string()})))
}

fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/control-planes", get(control_planes))
        .route("/token", post(token))
        .route("/want", post(want))
        .route("/rotate", post(renew))
        .route("/cli-keys", get(cli_keys))
        .route("/cli-keys/allow", post(allow_cli_key))
        .route("/cli-keys/revoke", post(revoke_cli_key))
        .fallback(|| async {
            refusal(
                StatusCode::NOT_FOUND,
                "the node does not know this command; is it older than this program?",
            )
        })
        .with_state(state)
}

async fn status(Extract(state): Extract<Arc<State>>) -> Json<Status> {
    Json(state.status())
}

/// The control planes of the cluster, by the prefix of their names.
async fn control_planes(Extract(state): Extract<Arc<State>>) -> Result<Json<Value>, Refusal> {
    let unavailable =
        |error: &dyn std::fmt::Display| refusal(StatusCode::SERVICE_UNAVAILABLE, error);
    let store = state.store().ok_or_else(|| {
        unavailable(&"this node has no database at the moment, or is a witness; ask another node")
    })?;
    let planes = store.control_planes().await;
    let planes = planes.map_err(|error| unavailable(&error))?;
    let told = planes.iter().map(|it| {
        let ingress = it.cluster_type == ClusterType::K8sIngressController;
        json!({"prefix": it.prefix, "ingress_controller": ingress})
    });
    Ok(Json(told.collect()))
}

/// Asks for a token.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenWish {
    /// `data` or `witness`.
    pub role: String,
    /// How long it is valid.
    pub secs: u32,
}

async fn token(
    Extract(state): Extract<Arc<State>>,
    Json(wish): Json<TokenWish>,
) -> Result<Json<Value>, Refusal> {
    let role: NodeRole = parsed(&wish.role)?;
    match new_token(&state, &operator(), role, wish.secs).await {
        Ok(token) => Ok(Json(json!({"token": token.text()}))),
        Err(error) => Err(refusal(StatusCode::CONFLICT, error)),
    }
}

/// Says what is wanted of a node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wish {
    /// Name of the node.
    pub name: String,
    /// `active`, `cordoned`, `drained` or `removed`.
    pub wanted: String,
}

async fn want(
    Extract(state): Extract<Arc<State>>,
    Json(wish): Json<Wish>,
) -> Result<Json<Value>, Refusal> {
    let wanted: Wanted = parsed(&wish.wanted)?;
    let store = database(&state)?;
    let wanted = store.want(&operator(), &wish.name, wanted).await;
    let member = wanted.map_err(|error| match error {
        StoreError::NotFound => {
            let names: Vec<String> = state.members().into_iter().map(|it| it.name).collect();
            let message = format!(
                "there is no node {:?}; there are: {}",
                wish.name,
                names.join(", ")
            );
            refusal(StatusCode::NOT_FOUND, message)
        }
        other => refusal(StatusCode::SERVICE_UNAVAILABLE, other),
    })?;
    Ok(Json(
        json!({"name": member.name, "wanted": member.wanted.as_str(), "revision": member.wanted_at}),
    ))
}

async fn renew(Extract(state): Extract<Arc<State>>) -> Result<Json<Value>, Refusal> {
    let renewed = rotate(&state).await;
    renewed.map_err(|why| refusal(StatusCode::CONFLICT, why))?;
    Ok(Json(json!({})))
}

fn database(state: &State) -> Result<Store, Refusal> {
    state.store().ok_or_else(|| {
        let message = "this node has no database at the moment, or is a witness; ask another node";
        refusal(StatusCode::SERVICE_UNAVAILABLE, message)
    })
}

async fn cli_keys(Extract(state): Extract<Arc<State>>) -> Result<Json<Value>, Refusal> {
    let keys = database(&state)?.cli_keys().await;
    let keys = keys.map_err(|error| refusal(StatusCode::SERVICE_UNAVAILABLE, error))?;
    let lines: Vec<String> = keys
        .iter()
        .map(|key| AllowedKey::from(key).public())
        .collect();
    Ok(Json(json!({"keys": lines})))
}

#[derive(Debug, Deserialize)]
struct CliKeyWish {
    /// The public line, or the name of one to take out.
    key: String,
}

async fn allow_cli_key(
    Extract(state): Extract<Arc<State>>,
    Json(wish): Json<CliKeyWish>,
) -> Result<Json<Value>, Refusal> {
    let key = AllowedKey::from_public(&wish.key);
    let key = key.map_err(|error| refusal(StatusCode::BAD_REQUEST, error))?;
    let named = key.name.clone();
    let new = CliKey {
        name: key.name,
        digest: key.digest.0,
    };
    let allowed = database(&state)?.allow_cli_key(&operator(), new).await;
    allowed.map_err(|error| match error {
        StoreError::UniqueTaken { value, .. } => {
            let message =
                format!("the name {value:?} belongs to another key; give it another with --name");
            refusal(StatusCode::CONFLICT, message)
        }
        other => refusal(StatusCode::SERVICE_UNAVAILABLE, other),
    })?;
    Ok(Json(json!({"name": named})))
}

async fn revoke_cli_key(
    Extract(state): Extract<Arc<State>>,
    Json(wish): Json<CliKeyWish>,
) -> Result<Json<Value>, Refusal> {
    let revoked = database(&state)?
        .revoke_cli_key(&operator(), &wish.key)
        .await;
    revoked.map_err(|error| match error {
        StoreError::NotFound => {
            let message = format!("no key of the cluster is called {:?}", wish.key);
            refusal(StatusCode::NOT_FOUND, message)
        }
        other => refusal(StatusCode::SERVICE_UNAVAILABLE, other),
    })?;
    Ok(Json(json!({})))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(word: &str) -> Result<T, Refusal> {
    word.parse()
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, error))
}

/// Whoever may use the socket.
fn operator() -> Actor {
    Actor("operator of the node".to_owned())
}

/// Asks the node that runs on this machine.
///
/// # Errors
/// See [`LocalError`].
pub async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<Value, LocalError> {
    asked(socket, method, path, body, &[]).await
}

/// As [`ask`], for a command that was recorded already where it came in.
///
/// # Errors
/// See [`LocalError`].
pub async fn pass_on(
    socket: &Path,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<Value, LocalError> {
    asked(socket, method, path, body, &[(RECORDED, "1")]).await
}

async fn asked(
    socket: &Path,
    method: Method,
    path: &str,
    body: &Value,
    headers: &[(&str, &str)],
) -> Result<Value, LocalError> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|source| LocalError::NotRunning {
        path: socket.to_owned(),
        source,
    })?;
    let timed = tokio::time::timeout(
        ANSWER_TIME_MAX,
        exchange_with(stream, method, path, body, headers),
    )
    .await;
    let answer = timed.map_err(|_| LocalError::Broken("not in time".to_owned()))?;
    answer.map_err(|error| match error {
        CallError::Refused(message) => LocalError::Refused(message),
        other => LocalError::Broken(other.to_string()),
    })
}
