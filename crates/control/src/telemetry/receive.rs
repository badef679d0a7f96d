//! The HTTP side of the telemetry host: batches of our gateways, analytics of others.

use std::convert::Infallible;
use std::io::Read;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastwebsockets::upgrade::UpgradeFut;
use flate2::read::GzDecoder;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sallyport_wire::config_sync::OUTLET_PATH;
use sallyport_wire::config_sync::rpc::OUTLET_PATH as RPC_PATH;
use sallyport_wire::telemetry::{
    BATCH_HEADER, Batch, BatchId, CONTENT_TYPE as PROTOBUF, Decoded, METRICS_PATH, partial_success,
    status,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::rollup::count;
use super::writer::{Taken, now};
use super::{Failure, Telemetry, discard};
use crate::config_sync::{Guest, agree_to_upgrade, check_trust};
use sallyport_store::Store;

/// Paths where enterprise gateways send what nobody can read.
const ANALYTICS: [&str; 2] = ["/v1/analytics/reqlog", "/v1/ingest"];
/// Of one body, as it comes and unpacked.
const BODY_BYTES_MAX: usize = 4 << 20;
const UNPACKED_BYTES_MAX: usize = 16 << 20;
/// Records of one batch.
const RECORDS_MAX: usize = 20_000;
/// For a head to come; also the time that an idle connection is kept.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);
/// For a body to come, and for its turn.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// How often it is checked whether the gateway is still let in.
const TRUST_SECS: i64 = 5;

/// A gateway on its connection.
struct Caller {
    telemetry: Telemetry,
    store: Store,
    guest: Guest,
    /// Unix second at which it was let in, or last checked.
    checked: AtomicI64,
}

type Answer = Response<Full<Bytes>>;

/// Serves the connection of a data plane that was let in, until either side ends it.
pub(crate) async fn serve<S>(
    telemetry: &Telemetry,
    store: &Store,
    guest: Guest,
    stream: S,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let caller = Arc::new(Caller {
        telemetry: telemetry.clone(),
        store: store.clone(),
        guest,
        checked: AtomicI64::new(now()),
    });
    let agreed: Arc<Mutex<Option<(Uuid, UpgradeFut)>>> = Arc::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (caller, agreed) = (Arc::clone(&caller), Arc::clone(&agreed));
        async move {
            let (answer, upgrade) = answer(&caller, request).await;
            if upgrade.is_some() {
                *agreed.lock().unwrap_or_else(PoisonError::into_inner) = upgrade;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = served {
        return debug!(%error, "a data plane's telemetry connection failed");
    }
    let upgrade = agreed.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((node, upgrade)) = upgrade else {
        return;
    };
    match upgrade.await {
        Ok(socket) => {
            let control_plane = &caller.guest.control_plane.name;
            let frames = &caller.telemetry.0.counters.discarded_frames;
            discard::run(frames, control_plane, node, socket, stop).await;
        }
        Err(error) => debug!(%error, "a data plane's upgrade failed"),
    }
}

async fn answer(
    caller: &Caller,
    request: Request<Incoming>,
) -> (Answer, Option<(Uuid, UpgradeFut)>) {
    let path = request.uri().path();
    if ANALYTICS.contains(&path) {
        return agree_to_upgrade(request);
    }
    let answer = match (path, request.method()) {
        (METRICS_PATH, &Method::POST) => match metrics(caller, request).await {
            Ok(unknown) => taken(unknown),
            Err(refusal) => refusal.answer(caller),
        },
        (METRICS_PATH, _) => {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only POST is possible here");
            let headers = answer.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
            answer
        }
        // whoever asks that is no exporter
        (OUTLET_PATH | RPC_PATH, _) => {
            let text = "this is the host of telemetry; configurations come from the one with cp0 \
                        in the place of tp0 (cluster_server_name)";
            readable(StatusCode::NOT_FOUND, text)
        }
        (_, &Method::POST) => plain(StatusCode::NOT_FOUND, &elsewhere()),
        _ => readable(StatusCode::NOT_FOUND, &elsewhere()),
    };
    (answer, None)
}

/// Why a batch is not taken.
struct Refusal {
    status: StatusCode,
    reason: String,
}

fn refusal(status: StatusCode, reason: impl ToString) -> Refusal {
    Refusal {
        status,
        reason: reason.to_string(),
    }
}

impl Refusal {
    fn answer(self, caller: &Caller) -> Answer {
        let counters = &caller.telemetry.0.counters;
        let control_plane = &caller.guest.control_plane.name;
        let Refusal { status, reason } = self;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            count(&counters.postponed, 1);
            debug!(control_plane, reason, "telemetry was postponed");
        } else {
            count(&counters.refused, 1);
            warn!(control_plane, %status, reason, "telemetry was refused");
        }
        let mut answer = plain(status, &reason);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = answer.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

fn elsewhere() -> String {
    let paths = ANALYTICS.join(", ");
    format!("this host answers on {METRICS_PATH} and {paths} only")
}

/// An answer that says why not, to people.
fn readable(code: StatusCode, reason: &str) -> Answer {
    let body = serde_json::json!({"message": reason}).to_string();
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = code;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// An answer that says why not, as OTLP has it.
fn plain(code: StatusCode, reason: &str) -> Answer {
    protobuf(code, status(reason))
}

fn taken(unknown: u64) -> Answer {
    let reason = "metrics that nobody here knows were left out";
    protobuf(StatusCode::OK, partial_success(unknown, reason))
}

fn protobuf(code: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = code;
    let kind = HeaderValue::from_static(PROTOBUF);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// Takes a batch; how many data points nobody knows.
async fn metrics(caller: &Caller, request: Request<Incoming>) -> Result<u64, Refusal> {
    still_trusted(caller).await?;
    let (head, body) = request.into_parts();
    let id = batch_id(&head.headers)?;
    let is_gzip = encoding(&head.headers)?;
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large(BODY_BYTES_MAX));
    }
    let busy = |_| refusal(StatusCode::SERVICE_UNAVAILABLE, Failure::Busy);
    let turn = timeout(BODY_TIME_MAX, caller.telemetry.0.bodies.acquire());
    let turn = turn.await.map_err(busy)?;
    let turn = turn.map_err(|_| refusal(StatusCode::SERVICE_UNAVAILABLE, Failure::Closed))?;
    let collected = timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let slow = |_| refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
    let collected = collected.map_err(slow)?.map_err(|error| {
        let large = error.is::<http_body_util::LengthLimitError>();
        match large {
            true => too_large(BODY_BYTES_MAX),
            false => refusal(StatusCode::BAD_REQUEST, "the body did not come whole"),
        }
    })?;
    let body = collected.to_bytes();
    // a few hundred kilobytes are decoded in the time of a system call or two
    let decoded = match body.len() > 128 << 10 || is_gzip {
        false => decode(&body, is_gzip),
        true => tokio::task::spawn_blocking(move || decode(&body, is_gzip))
            .await
            .unwrap_or_else(|error| Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, error))),
    };
    drop(turn);
    let Decoded { batch, unknown } = decoded?;
    let control_plane = caller.guest.control_plane.id;
    let node = batch.source.node;
    match caller.telemetry.add(control_plane, id, batch).await {
        Ok(Taken::Stored) => Ok(unknown),
        Ok(Taken::Known) => {
            info!(%node, batch = %id, "a batch of telemetry came again, it counts once");
            Ok(unknown)
        }
        Err(failure) => Err(refusal(StatusCode::SERVICE_UNAVAILABLE, failure)),
    }
}

async fn still_trusted(caller: &Caller) -> Result<(), Refusal> {
    let now = now();
    if now - caller.checked.load(Ordering::Relaxed) < TRUST_SECS {
        return Ok(());
    }
    let checked = check_trust(&caller.store, &caller.guest).await;
    checked.map_err(|reason| refusal(StatusCode::FORBIDDEN, reason))?;
    caller.checked.store(now, Ordering::Relaxed);
    Ok(())
}

fn too_large(bytes_max: usize) -> Refusal {
    let reason = format!("the body is larger than {bytes_max} bytes");
    refusal(StatusCode::PAYLOAD_TOO_LARGE, reason)
}

fn batch_id(headers: &HeaderMap) -> Result<BatchId, Refusal> {
    let text = headers.get(BATCH_HEADER).and_then(|it| it.to_str().ok());
    let text = text.unwrap_or_default();
    text.parse()
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, error))
}

/// Whether the body is gzip.
fn encoding(headers: &HeaderMap) -> Result<bool, Refusal> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|it: &HeaderValue| it.to_str().ok())
    };
    let unsupported = |reason: String| Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    let kind = text(CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case(PROTOBUF) {
        return unsupported(format!("Content-Type must be {PROTOBUF}, not {kind:?}"));
    }
    match text(CONTENT_ENCODING) {
        None | Some("identity") => Ok(false),
        Some("gzip") => Ok(true),
        Some(other) => unsupported(format!(
            "Content-Encoding must be gzip or none, not {other:?}"
        )),
    }
}

fn decode(body: &[u8], is_gzip: bool) -> Result<Decoded, Refusal> {
    let mut unpacked = Vec::new();
    let body = match is_gzip {
        false => body,
        true => {
            let mut reader = GzDecoder::new(body).take(UNPACKED_BYTES_MAX as u64 + 1);
            reader
                .read_to_end(&mut unpacked)
                .map_err(|error| refusal(StatusCode::BAD_REQUEST, format!("gzip: {error}")))?;
            if unpacked.len() > UNPACKED_BYTES_MAX {
                return Err(too_large(UNPACKED_BYTES_MAX));
            }
            &unpacked
        }
    };
    Batch::decode(body, RECORDS_MAX).map_err(|error| refusal(StatusCode::BAD_REQUEST, error))
}
