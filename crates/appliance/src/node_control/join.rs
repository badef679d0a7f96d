//! A machine becomes a node: its key stays on it, a request for a certificate travels, and a token
//! says that it may.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Json, State as Extract};
use axum::routing::post;
use http::{Method, StatusCode};
use sallyport_runtime::certs::{CertsError, NewKey};
use sallyport_runtime::dial;
use sallyport_runtime::dial::DialError;
use sallyport_runtime::tls::{CertDigest, TlsFailure, anchored_client_config, connect};
use sallyport_wire::node_control::{ANY_NODE, Admitted, JOIN, JoinRequest, JoinToken, TokenError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tracing::{info, warn};

use super::calls::{CallError, exchange};
use crate::node::{
    AdmissionError, Identity, IdentityError, MemberFile, Refusal, Settings, State, admit, admitted,
    read, refusal, write,
};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// A request to join is a name, an address and a certificate request.
const REQUEST_LEN_MAX: usize = 16 * 1024;

/// What a machine without a certificate may ask.
pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/join", post(welcome))
        .layer(DefaultBodyLimit::max(REQUEST_LEN_MAX))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "only joining is possible here") })
        .with_state(state)
}

async fn welcome(
    Extract(state): Extract<Arc<State>>,
    Json(asked): Json<JoinRequest>,
) -> Result<Json<Admitted>, Refusal> {
    let secret = hex(&asked.secret).ok_or_else(|| {
        refusal(
            StatusCode::BAD_REQUEST,
            "a token's secret has 32 hexadecimal digits",
        )
    })?;
    let (name, address) = (asked.name.clone(), asked.address.clone());
    match admit(&state, asked, Sha256::digest(secret).into()).await {
        Ok(admission) => {
            info!(name, address, role = admission.role, "node taken in");
            Ok(Json(admission))
        }
        Err(error) => {
            warn!(name, address, %error, "a machine may not join");
            let status = match error {
                AdmissionError::Token(_) => StatusCode::FORBIDDEN,
                AdmissionError::Taken { .. } => StatusCode::CONFLICT,
                AdmissionError::NoDatabase | AdmissionError::Store(_) => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                _ => StatusCode::BAD_REQUEST,
            };
            Err(refusal(status, error))
        }
    }
}

fn hex(text: &str) -> Option<[u8; 16]> {
    let fits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = fits.then(|| u128::from_str_radix(text, 16).ok())?;
    number.map(u128::to_be_bytes)
}

/// Why a machine could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The machine is a node already.
    #[error(
        "this machine is a node already ({0}); to join another cluster, delete its data directory"
    )]
    Already(String),
    /// The token's node cannot be dialled.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It is not who the token says.
    #[error(transparent)]
    Tls(#[from] TlsFailure),
    /// It does not answer, or refuses.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Its answer cannot be used.
    #[error("the node's answer cannot be used: {0}")]
    Answer(String),
    /// No key or request could be made.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// A file.
    #[error(transparent)]
    File(#[from] IdentityError),
}

/// A machine that has joined.
#[derive(Debug)]
pub struct Joined {
    /// Who it is.
    pub identity: Identity,
    /// Address of the cluster's database; empty for a witness.
    pub database: String,
    /// What the others were told to dial.
    pub address: SocketAddr,
}

/// The key of a machine that is joining: the same one until it has an answer, so that a lost answer
/// can be asked for again.
#[derive(Serialize, Deserialize)]
struct Pending {
    key: String,
    request: String,
}

/// Joins the cluster of a token. `advertise` is what the others shall dial; without it, the address
/// by which this machine reaches the token's node, with the port of the listener.
///
/// # Errors
/// See [`JoinError`]. The same call may be repeated.
pub async fn join(
    settings: &Settings,
    token: &str,
    advertise: Option<SocketAddr>,
) -> Result<Joined, JoinError> {
    let token = JoinToken::parse(token)?;
    let there = Identity::path(&settings.data);
    if there.exists() {
        return Err(JoinError::Already(there.display().to_string()));
    }
    let pending_file = settings.data.join("join.pending");
    let pending = pending(&settings.data, &pending_file)?;
    let (host, port) = split(&token.address).ok_or(TokenError::Damaged)?;
    let stream = dial("node_control", host, port, CONNECT_TIME_MAX).await?;
    let local = stream.local_addr().map(|it| it.ip());
    let address = match (advertise, local) {
        (Some(address), _) => address,
        (None, Ok(ip)) => SocketAddr::new(ip, settings.node_control.listen.port()),
        (None, Err(error)) => return Err(CallError::Broken(error.to_string()).into()),
    };
    let config = anchored_client_config(CertDigest(token.authority));
    let mut config = config.map_err(|error| JoinError::Answer(error.to_string()))?;
    config.alpn_protocols = vec![JOIN.to_vec()];
    let secured = timeout(
        CONNECT_TIME_MAX,
        connect(Arc::new(config), ANY_NODE, stream),
    )
    .await;
    let late = || CallError::Broken(format!("{} does not shake hands", token.address));
    let stream = secured.map_err(|_| late())??;
    let asked = JoinRequest {
        secret: format!("{:032x}", u128::from_be_bytes(token.secret)),
        name: settings.name.clone(),
        address: address.to_string(),
        request: pending.request,
    };
    let body = serde_json::to_value(asked).map_err(|error| JoinError::Answer(error.to_string()))?;
    let answer = timeout(
        ANSWER_TIME_MAX,
        exchange(stream, Method::POST, "/join", &body),
    )
    .await;
    let answer = answer.map_err(|_| CallError::Broken("not in time".to_owned()))??;
    let answer: Admitted =
        serde_json::from_value(answer).map_err(|error| JoinError::Answer(error.to_string()))?;
    let taken = admitted(settings, answer, pending.key).map_err(JoinError::Answer)?;
    let (identity, roster, database) = taken;
    identity
        .tls()
        .map_err(|error| JoinError::Answer(error.to_string()))?;
    MemberFile::of(&settings.data).store(&roster)?;
    identity.store(&settings.data, "identity.json")?;
    _ = std::fs::remove_file(pending_file);
    Ok(Joined {
        identity,
        database,
        address,
    })
}

fn pending(data: &Path, file: &Path) -> Result<Pending, JoinError> {
    if let Some(text) = read(file)?
        && let Ok(pending) = serde_json::from_str(&text)
    {
        return Ok(pending);
    }
    let new = NewKey::create()?;
    let pending = Pending {
        key: new.key,
        request: new.request,
    };
    crate::node::make_directory(data)?;
    let text = serde_json::to_string(&pending).expect("plain values are always JSON");
    write(file, &text)?;
    Ok(pending)
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port.parse().ok()?))
}
