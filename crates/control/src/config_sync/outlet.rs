//! The HTTP side of a data plane's connection: one request, which becomes a WebSocket.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request, upgrade};
use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sallyport_wire::config_sync::error_report::{TAKES_ERRORS, TAKES_HEADER};
use sallyport_wire::config_sync::rpc::{OUTLET_PATH as RPC_PATH, SUBPROTOCOL};
use sallyport_wire::config_sync::{OUTLET_PATH, OutletQuery};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use super::session::{self, Caller};
use super::{Guest, Links, rpc};

/// Which of a control plane's two hosts was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// `config_sync`.
    Configuration,
    /// `telemetry`.
    Telemetry,
}

/// Seconds for the request head to arrive.
const HEAD_SECS_MAX: u64 = 5;

/// Serves the connection of a data plane that was let in, until either side ends it.
pub(crate) async fn serve<S>(links: &Links, guest: Guest, stream: S, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let agreed: Mutex<Option<(Option<Caller>, UpgradeFut)>> = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let answer = match agree(request) {
            Ok((answer, caller, upgraded)) => {
                *agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some((caller, upgraded));
                answer
            }
            Err((status, message)) => refuse(status, &message),
        };
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_SECS_MAX));
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        () = stop.cancelled() => return,
        served = connection => if let Err(error) = served {
            debug!(%error, "a data plane's request failed");
            return;
        },
    }
    let agreed = agreed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Some((caller, upgraded)) = agreed else {
        return;
    };
    let socket = match upgraded.await {
        Ok(socket) => socket,
        Err(error) => {
            debug!(%error, "a data plane's upgrade failed");
            return;
        }
    };
    let name = guest.control_plane.name.clone();
    match caller {
        Some(caller) => {
            let node = caller.node_id;
            info!(%node, hostname = caller.hostname, control_plane = name, "data plane connected");
            let end = session::run(links, guest, caller, socket, stop).await;
            info!(%node, control_plane = name, reason = %end, "data plane disconnected");
        }
        None => {
            let (caller, end) = Box::pin(rpc::run(links, guest, socket, stop)).await;
            let node = caller.map(|caller| caller.node_id);
            info!(?node, control_plane = name, protocol = 2, reason = %end, "data plane disconnected");
        }
    }
}

/// The answer, and who asks unless the first frame will say so.
type Agreed = (Response<Full<Bytes>>, Option<Caller>, UpgradeFut);

/// Checks the request and prepares the answer that turns it into a WebSocket.
fn agree(request: Request<Incoming>) -> Result<Agreed, (StatusCode, String)> {
    if request.uri().path() == RPC_PATH {
        return agree_rpc(request);
    }
    if request.uri().path() != OUTLET_PATH {
        return Err((
            StatusCode::NOT_FOUND,
            format!("this host answers on {OUTLET_PATH} only"),
        ));
    }
    let (mut answer, caller, upgraded) = upgraded(request)?;
    let takes = HeaderValue::from_static(TAKES_ERRORS);
    answer.headers_mut().insert(TAKES_HEADER, takes);
    Ok((answer, caller, upgraded))
}

fn upgraded(mut request: Request<Incoming>) -> Result<Agreed, (StatusCode, String)> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let caller = caller(request.uri().query().unwrap_or_default()).map_err(bad)?;
    if !is_upgrade_request(&request) {
        return Err(bad("a WebSocket upgrade is expected".to_owned()));
    }
    let (answer, upgraded) = upgrade(&mut request).map_err(|error| bad(error.to_string()))?;
    Ok((answer.map(|_| Full::default()), Some(caller), upgraded))
}

/// The same for protocol v2, where the first frame says who asks.
fn agree_rpc(mut request: Request<Incoming>) -> Result<Agreed, (StatusCode, String)> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let offered = request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .into_iter();
    let known = offered
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            let mut words = value.split(',');
            words.any(|word| word.trim() == SUBPROTOCOL)
        });
    if !known {
        return Err(bad(format!("subprotocol {SUBPROTOCOL:?} is expected")));
    }
    if !is_upgrade_request(&request) {
        return Err(bad("a WebSocket upgrade is expected".to_owned()));
    }
    let (answer, upgraded) = upgrade(&mut request).map_err(|error| bad(error.to_string()))?;
    let mut answer = answer.map(|_| Full::default());
    let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
    answer
        .headers_mut()
        .insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    Ok((answer, None, upgraded))
}

/// The answer to a data plane's request for a WebSocket; with the node's id and the WebSocket to come
/// if it gets one.
pub(crate) fn agree_to_upgrade(
    request: Request<Incoming>,
) -> (Response<Full<Bytes>>, Option<(Uuid, UpgradeFut)>) {
    match upgraded(request) {
        Ok((answer, caller, upgrade)) => (answer, caller.map(|caller| (caller.node_id, upgrade))),
        Err((status, message)) => (refuse(status, &message), None),
    }
}

fn caller(query: &str) -> Result<Caller, String> {
    let query = OutletQuery::parse(query).map_err(|error| error.to_string())?;
    let node_id = Uuid::try_parse(&query.node_id)
        .map_err(|_| format!("query argument \"node_id\" is no UUID: {:?}", query.node_id))?;
    let hostname = query.node_hostname.unwrap_or_default();
    Ok(Caller {
        node_id,
        hostname,
        version: query.node_version,
    })
}

fn refuse(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({"message": message}).to_string();
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
