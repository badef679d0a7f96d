//! The endpoints. `/testall` is for load balancers and open; everything else wants the key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, Query, Request, State as Extract};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use ring::hmac;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::checks::{Check, Verdict, ask};
use super::limit::Calls;
use super::tls::{Secured, arrived};
use super::{metrics, samples};
use crate::node::{Fatal, State};

/// Connections at once.
const CONNECTIONS_MAX: usize = 128;
/// For one request, with every check in it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Between looks whether the certificate's files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The user of the key.
const USER: &str = "api_keys_health";
/// What the reference answers where a check fails.
const FAILED: u16 = 520;

struct Shared {
    state: Arc<State>,
    calls: Mutex<Calls>,
}

type Handle = Extract<Arc<Shared>>;

/// Serves until `stop`, over TLS too with a certificate.
pub(crate) async fn serve(
    listener: TcpListener,
    mut secured: Option<Secured>,
    state: Arc<State>,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    let router = router(state);
    let mut connections = JoinSet::new();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            _ = looks.tick(), if secured.is_some() => {
                if let Some(secured) = &mut secured {
                    secured.look();
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let tls = secured.as_ref().map(Secured::acceptor);
                    connections.spawn(arrived(stream, tls, router.clone(), ANSWER_TIME_MAX));
                }
                Err(error) => {
                    warn!(%error, "could not accept a connection for health");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    connections.shutdown().await;
    Ok(())
}

fn router(state: Arc<State>) -> Router {
    let shared = Arc::new(Shared {
        state,
        calls: Mutex::default(),
    });
    Router::new()
        .route("/status/{check}", get(status))
        // as behind a node's own front, where existing monitors look
        .route("/health/status/{check}", get(status))
        .route("/metrics", get(metric))
        .route("/health", get(detail))
        .route("/history", get(history))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&shared),
            require_key,
        ))
        .route("/testall", get(testall))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .with_state(shared)
}

async fn testall(Extract(shared): Handle) -> Response {
    let (serving, why_not) = shared.state.serving();
    let (status, text) = match serving {
        true => (StatusCode::OK, "OK".to_owned()),
        // Not the reason: anybody may ask.
        false => (StatusCode::SERVICE_UNAVAILABLE, "NOT OK".to_owned()),
    };
    if let Some(why) = why_not {
        tracing::debug!(why, "testall");
    }
    let headers = [(CONTENT_TYPE, "text/plain"), (CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}

/// Lets in who shows the key; nobody if there is none.
async fn require_key(Extract(shared): Handle, request: Request, next: Next) -> Response {
    let key = shared.state.settings.healthcheck.as_ref();
    let key = key.and_then(|it| it.key.as_ref());
    let shown = shown(request.headers());
    let well = match (key, shown) {
        (Some(key), Some(shown)) => same(&shown, &format!("{USER}:{}", key.0)),
        _ => false,
    };
    if !well {
        let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"healthcheck\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    next.run(request).await
}

fn shown(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    let bytes = STANDARD.decode(rest.trim()).ok()?;
    scheme
        .eq_ignore_ascii_case("basic")
        .then(|| String::from_utf8(bytes).ok())?
}

/// Compares without telling by time how much is right.
fn same(a: &str, b: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"healthcheck");
    hmac::verify(&key, a.as_bytes(), hmac::sign(&key, b.as_bytes()).as_ref()).is_ok()
}

impl Shared {
    fn admit(&self, endpoint: &'static str) -> bool {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.admit(endpoint, Instant::now())
    }
}

fn too_many() -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "1")]).into_response()
}

/// 204 if the check is well, 520 if not, 429 if asked too often; the body is always empty.
async fn status(Extract(shared): Handle, Path(check): Path<String>) -> Response {
    let Some(check) = Check::from_word(&check) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if !shared.admit(check.as_str()) {
        return too_many();
    }
    let answer = ask(&shared.state, check).await;
    match answer.verdict {
        Verdict::Ok | Verdict::Skipped => StatusCode::NO_CONTENT.into_response(),
        Verdict::Failed => {
            let status = StatusCode::from_u16(FAILED).unwrap_or(StatusCode::BAD_GATEWAY);
            status.into_response()
        }
    }
}

async fn detail(Extract(shared): Handle) -> Response {
    if !shared.admit("health") {
        return too_many();
    }
    axum::Json(samples::take(&shared.state).await).into_response()
}

async fn history(
    Extract(shared): Handle,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if !shared.admit("history") {
        return too_many();
    }
    let state = Arc::clone(&shared.state);
    let read = tokio::task::spawn_blocking(move || {
        samples::of_day(&state, query.get("day").map(String::as_str))
    });
    match read.await {
        Ok(Ok(samples)) => axum::Json(json!({"samples": samples})).into_response(),
        Ok(Err(message)) => (
            StatusCode::BAD_REQUEST,
            axum::Json(json!({"message": message})),
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn metric(Extract(shared): Handle) -> Response {
    if !shared.admit("metrics") {
        return too_many();
    }
    let mut checks = Vec::new();
    // Those that ask nobody outside: a scrape is frequent and must not wait.
    for check in [
        Check::Cpu,
        Check::Memory,
        Check::Disk,
        Check::Services,
        Check::Db,
        Check::Replicaset,
    ] {
        checks.push((check, ask(&shared.state, check).await.verdict));
    }
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, metrics::text(&shared.state, &checks)).into_response()
}
