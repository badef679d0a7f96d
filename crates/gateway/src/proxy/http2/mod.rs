//! One client connection that speaks HTTP/2, by hyper.

mod answer;
mod watch;

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sallyport_plugins::{Fields, Request as RequestHead};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use self::answer::{AnswerStream, Reading, Source};
use self::watch::{Active, Counted, Verdict, Watch};
use crate::logs::CLIENT_FAULTS;
use crate::proxy::body::Http2Body;
use crate::proxy::headers::Client;
use crate::proxy::http1::framing::Length;
use crate::proxy::http1::head::{HEAD_BYTES_MAX, agrees, is_host};
use crate::proxy::serve::{Answer, AnswerBody, refuse_line, serve};
use crate::proxy::worker::Worker;

/// How often a silent client is asked whether it is still there, and how long it may take to say.
/// Without that, a client that went away unseen would be kept for good.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PONG_TIME_MAX: Duration = Duration::from_secs(20);
/// Most requests at once on one connection. Source: nginx `http2_max_concurrent_streams`.
const STREAMS_MAX: u32 = 128;
/// What of one response waits in memory for the client to take it, bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves requests until the connection ends, or until those under way at `stop` are answered.
pub(crate) async fn run<S>(worker: &Rc<Worker>, client: Client, stream: S, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let client = Rc::new(client);
    let limits = worker.options.client;
    let watch = Watch::new();
    let service = service_fn(|request| {
        let (worker, client, watch) = (worker.clone(), client.clone(), watch.clone());
        async move { Ok::<_, Infallible>(answer(&worker, &client, &watch, request).await) }
    });
    let stream = Counted {
        stream,
        watch: watch.clone(),
    };
    let connection = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PONG_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(Watch::interval(&limits)) => match watch.look(&limits) {
                Verdict::Fine => {}
                Verdict::Silent => {
                    let (fault, peer, reason) = ("client", client.peer, "it never spoke HTTP/2");
                    info!(target: CLIENT_FAULTS, fault, %peer, reason, "connection ended");
                    return;
                }
                Verdict::Idle if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                Verdict::Idle => {}
            },
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Client,
    watch: &Rc<Watch>,
    request: Request<Incoming>,
) -> Response<AnswerStream> {
    let active = Active::new(watch);
    let (mut head, body) = request.into_parts();
    join_cookies(&mut head.headers);
    let head_only = head.method == Method::HEAD;
    let is_clear = names_one_host(&head);
    let head = RequestHead {
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers: Fields::from(&head.headers),
    };
    let answer = match is_clear {
        true => serve(worker, client, head, &mut Http2Body::new(body)).await,
        false => {
            let line = format!("{} {} HTTP/2.0", head.method, head.uri);
            info!(
                target: CLIENT_FAULTS, fault = "client", peer = %client.peer,
                reason = "no host, or several", "bad request head"
            );
            refuse_line(worker, client, StatusCode::BAD_REQUEST, line.as_bytes())
        }
    };
    let Answer {
        status,
        headers,
        body,
        mut later,
    } = answer;
    let map = headers.to_map();
    if let Some(later) = &mut later {
        // what it would be without compression
        let bytes = headers.text_bytes();
        later.head(headers, bytes);
        later.sent_more(bytes);
    }
    if let AnswerBody::Full(bytes) = &body
        && let Some(mut later) = later.take()
    {
        if !head_only {
            later.sent_more(bytes.len());
        }
        later.data(bytes);
        later.whole();
    }
    let body = match body {
        AnswerBody::Full(_) if head_only => Source::Full(None),
        AnswerBody::Full(bytes) => Source::Full(Some(bytes).filter(|b| !b.is_empty())),
        // only HTTP/1.1 can ask for a tunnel
        AnswerBody::Tunnel(_) => Source::Full(None),
        AnswerBody::Upstream(upstream, length) => Source::Upstream {
            length: if upstream.is_over() {
                Length::Exact(0)
            } else {
                length
            },
            upstream: Some(upstream),
            trailers: None,
            pool: worker.pool.clone(),
            later,
        },
        AnswerBody::Call(call, length) => Source::Call {
            call,
            length,
            later,
        },
    };
    let reading = Reading::new(body, client.peer);
    watch.reads(&reading);
    let mut response = Response::new(AnswerStream::new(reading, active));
    *response.status_mut() = status;
    *response.headers_mut() = map;
    response
}

/// Whether `:authority` and `Host` say the same host, or one of them says it alone.
fn names_one_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if head.method == Method::CONNECT {
        return true; // refused later, by name
    }
    hosts.next().is_none()
        && host.is_none_or(is_host)
        && agrees(&head.uri, host)
        && (host.is_some() || head.uri.authority().is_some())
}

/// HTTP/2 may send a cookie in pieces, HTTP/1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if pieces.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// Runs a connection's streams on the worker's own thread; they end with the connection.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
