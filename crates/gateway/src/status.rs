//! The Status API: what a load balancer and an operator ask a gateway.
//!
//! `/status` gives counters and the hash of the configuration in force; `/status/ready` is 200
//! only while a configuration that is not empty is served; `/upstreams/{name or id}/health` is the
//! health of targets. Source: data-plane reference 8.5.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sallyport_runtime::listen::listen;
use sallyport_runtime::tls::Identity;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::balancer::{UpstreamHealth, Upstreams};
use crate::conf::Listener;
use crate::proxy::Shared;
use crate::start::{StartError, tls_config};

const SETTING: &str = "status_listen in kong.conf";
/// Largest request body, bytes.
const BODY_BYTES_MAX: usize = 4096;
const TIME_MAX: Duration = Duration::from_secs(10);

/// Sockets of the Status API, not yet served.
pub(crate) type Sockets = Vec<Socket>;

/// One of them.
pub(crate) struct Socket {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Socket {
    /// Where it listens.
    pub(crate) fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }
}

/// Opens the sockets.
///
/// # Errors
/// An address that cannot be used.
pub(crate) fn open(listeners: &[Listener], identities: &[Identity]) -> Result<Sockets, StartError> {
    let tls = tls_config(identities, false)?.map(TlsAcceptor::from);
    let mut sockets = Vec::new();
    for wanted in listeners {
        let options = sallyport_runtime::listen::ListenOptions {
            reuse_port: false,
            ..wanted.options()
        };
        let listener = listen("status", wanted.addr()?, SETTING, options)?;
        sockets.push(Socket {
            listener,
            tls: tls.clone().filter(|_| wanted.tls),
        });
    }
    Ok(sockets)
}

/// The running Status API.
pub(crate) struct Server(JoinSet<()>);

impl Server {
    /// Waits until it has stopped.
    pub(crate) async fn finish(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

struct Node {
    shared: Arc<Shared>,
    draining: AtomicBool,
}

/// Answers until `stop`.
pub(crate) fn serve(sockets: Sockets, shared: Arc<Shared>, stop: CancellationToken) -> Server {
    let node = Arc::new(Node {
        shared,
        draining: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    for socket in sockets {
        tasks.spawn(accept(socket, node.clone(), stop.clone()));
    }
    Server(tasks)
}

async fn accept(socket: Socket, node: Arc<Node>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = socket.listener.accept() => match accepted {
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok((stream, _)) => {
                    let (node, tls) = (node.clone(), socket.tls.clone());
                    connections.spawn(async move {
                        match tls {
                            None => answer_all(TokioIo::new(stream), node).await,
                            Some(tls) => match timeout(TIME_MAX, tls.accept(stream)).await {
                                Ok(Ok(stream)) => answer_all(TokioIo::new(stream), node).await,
                                Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
                                Err(_) => debug!("TLS handshake timed out"),
                            },
                        }
                    });
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn answer_all<I>(io: I, node: Arc<Node>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(|request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(answer(request, &node).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIME_MAX)
        .serve_connection(io, service);
    if let Err(error) = connection.await {
        debug!(%error, "connection ended");
    }
}

async fn answer(request: Request<Incoming>, node: &Node) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match (head.method, head.uri.path()) {
        (Method::GET | Method::HEAD, "/status") => reply(StatusCode::OK, &status(&node.shared)),
        (Method::GET | Method::HEAD, "/status/ready") => ready(node),
        (Method::POST, "/status/ready") => {
            let read = Limited::new(body, BODY_BYTES_MAX).collect();
            let draining = match timeout(TIME_MAX, read).await {
                Ok(Ok(body)) => asks_to_drain(&body.to_bytes()),
                _ => false,
            };
            if draining {
                node.draining.store(true, Ordering::Relaxed);
                return reply(StatusCode::NO_CONTENT, &Value::Null);
            }
            message(StatusCode::BAD_REQUEST, "status: expected one of: draining")
        }
        (_, "/status" | "/status/ready") => {
            message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
        }
        (Method::GET | Method::HEAD, path) => match upstream_health(path, &node.shared) {
            Some(health) => reply(StatusCode::OK, &health.to_json()),
            None => message(StatusCode::NOT_FOUND, "Not found"),
        },
        _ => message(StatusCode::NOT_FOUND, "Not found"),
    }
}

/// `/upstreams/{name or id}/health`.
fn upstream_health(path: &str, shared: &Shared) -> Option<UpstreamHealth> {
    let upstream = path.strip_prefix("/upstreams/")?.strip_suffix("/health")?;
    Upstreams(shared.balancers.clone()).health_of(upstream)
}

/// Whether a form or a JSON body says `status=draining`.
fn asks_to_drain(body: &[u8]) -> bool {
    body == b"status=draining"
        || serde_json::from_slice::<Value>(body).is_ok_and(|body| body["status"] == "draining")
}

fn status(shared: &Shared) -> Value {
    let accepted = shared.accepted.load(Ordering::Relaxed);
    json!({
        "server": {
            "connections_accepted": accepted,
            "connections_handled": accepted,
            "connections_active": shared.open.load(Ordering::Relaxed),
            "total_requests": shared.requests.load(Ordering::Relaxed),
        },
        "configuration_hash": shared.configuration().hash.as_str(),
    })
}

fn ready(node: &Node) -> Response<Full<Bytes>> {
    let unready = |text| message(StatusCode::SERVICE_UNAVAILABLE, text);
    if node.draining.load(Ordering::Relaxed) {
        return unready("draining");
    }
    if node.shared.configuration().hash.is_zero() {
        return unready("no configuration available (empty configuration present)");
    }
    message(StatusCode::OK, "ready")
}

fn message(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    reply(status, &json!({ "message": text }))
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let bytes = if body.is_null() {
        Bytes::new()
    } else {
        Bytes::from(body.to_string())
    };
    let mut response = Response::new(Full::new(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
