//! HTTP/1.1 with JSON, one request a connection: between nodes over TLS, and on the local socket.

use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sallyport_runtime::dial;
use sallyport_runtime::dial::DialError;
use sallyport_runtime::tls::{TlsFailure, connect};
use sallyport_store::Member;
use sallyport_wire::node_control::name_of;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::debug;

use super::Tls;

/// For a connection to another node, its handshake included.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// For the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// An answer that is read.
const ANSWER_LEN_MAX: usize = 16 * 1024 * 1024;

/// Why a node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Its address in the roster is none.
    #[error("the address {0:?} of the node cannot be dialled")]
    Address(String),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No handshake.
    #[error(transparent)]
    Tls(#[from] TlsFailure),
    /// No answer, or one that cannot be read.
    #[error("no answer from the node: {0}")]
    Broken(String),
    /// The node refuses.
    #[error("{0}")]
    Refused(String),
}

/// Asks another node.
///
/// # Errors
/// See [`CallError`].
pub(crate) async fn call_with(
    tls: &Tls,
    member: &Member,
    method: Method,
    path: &str,
    body: &Value,
    limit: Duration,
) -> Result<Value, CallError> {
    let address: std::net::SocketAddr = member
        .address
        .parse()
        .map_err(|_| CallError::Address(member.address.clone()))?;
    let late = || CallError::Broken(format!("not within {} s", limit.as_secs()));
    let host = address.ip().to_string();
    let stream = dial("node_control", &host, address.port(), CONNECT_TIME_MAX).await?;
    let name = name_of(&member.id.to_string());
    let secured = timeout(
        CONNECT_TIME_MAX,
        connect(tls.commands.clone(), &name, stream),
    )
    .await;
    let stream =
        secured.map_err(|_| CallError::Broken("no TLS handshake in time".to_owned()))??;
    timeout(limit, exchange(stream, method, path, body))
        .await
        .map_err(|_| late())?
}

/// As [`call_with`], for a node that runs.
///
/// # Errors
/// See [`CallError`].
pub async fn call(
    state: &crate::node::State,
    member: &Member,
    method: Method,
    path: &str,
    body: &Value,
    limit: Duration,
) -> Result<Value, CallError> {
    let tls = state.tls.get();
    let tls = tls.ok_or_else(|| CallError::Broken("this node has no way to others".to_owned()))?;
    call_with(tls, member, method, path, body, limit).await
}

/// One request and its answer. What is refused has a `message`.
pub(crate) async fn exchange<S>(
    stream: S,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<Value, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    exchange_with(stream, method, path, body, &[]).await
}

/// As [`exchange`], with further headers.
pub(crate) async fn exchange_with<S>(
    stream: S,
    method: Method,
    path: &str,
    body: &Value,
    headers: &[(&str, &str)],
) -> Result<Value, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: &dyn std::fmt::Display| CallError::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let request = headers
        .iter()
        .fold(Request::builder(), |request, (name, value)| {
            request.header(*name, *value)
        })
        .method(method)
        .uri(path)
        .header("host", "node")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| broken(&error))?;
    let asked = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|it| broken(&it))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect();
        Ok((status, body.await.map_err(|it| broken(&it))?.to_bytes()))
    };
    let (mut asked, mut connection) = (std::pin::pin!(asked), std::pin::pin!(connection));
    let answered: Result<_, CallError> = tokio::select! {
        answered = &mut asked => answered,
        _ = &mut connection => asked.await,
    };
    let (status, bytes) = answered?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| broken(&error))?;
    if status.is_success() {
        return Ok(value);
    }
    let message = value["message"].as_str().map(str::to_owned);
    Err(CallError::Refused(
        message.unwrap_or_else(|| value.to_string()),
    ))
}

/// Serves one connection, for at most `limit`.
pub(crate) async fn converse<S>(stream: S, router: Router, limit: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(limit, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection ended early"),
        Err(_) => debug!("a connection took too long"),
    }
}
