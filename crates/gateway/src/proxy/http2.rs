//! One client connection that speaks HTTP/2, by hyper.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sallyport_plugins::{Fields, Request as RequestHead};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::body::Http2Body;
use super::headers::Client;
use super::http1::framing::Length;
use super::http1::head::HEAD_BYTES_MAX;
use super::later::Later;
use super::pool::Pool;
use super::serve::{Answer, AnswerBody, serve};
use super::upstream::{SendError, Upstream};
use super::worker::Worker;

/// How often a silent client is asked whether it is still there, and how long it may take to say.
/// Without that, a client that went away unseen would be kept for good.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PONG_TIME_MAX: Duration = Duration::from_secs(20);

/// Serves requests until the connection ends, or until those under way at `stop` are answered.
pub(crate) async fn run<S>(worker: &Rc<Worker>, client: Client, stream: S, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let client = Rc::new(client);
    let service = service_fn(|request| {
        let (worker, client) = (worker.clone(), client.clone());
        async move { Ok::<_, Infallible>(answer(&worker, &client, request).await) }
    });
    let connection = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PONG_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Client,
    request: Request<Incoming>,
) -> Response<AnswerStream> {
    let (mut head, body) = request.into_parts();
    join_cookies(&mut head.headers);
    let head_only = head.method == Method::HEAD;
    let head = RequestHead {
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers: Fields::from(&head.headers),
    };
    let Answer {
        status,
        headers,
        body,
        mut later,
    } = serve(worker, client, head, &mut Http2Body(body)).await;
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
        AnswerBody::Full(_) if head_only => AnswerStream::Full(None),
        AnswerBody::Full(bytes) => AnswerStream::Full(Some(bytes).filter(|b| !b.is_empty())),
        // only HTTP/1.1 can ask for a tunnel
        AnswerBody::Tunnel(_) => AnswerStream::Full(None),
        AnswerBody::Upstream(upstream, length) => AnswerStream::Upstream {
            length: if upstream.is_over() {
                Length::Exact(0)
            } else {
                length
            },
            upstream: Some(upstream),
            pool: worker.pool.clone(),
            later,
        },
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = map;
    response
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

/// A response body as hyper wants it.
enum AnswerStream {
    Full(Option<Bytes>),
    Upstream {
        upstream: Option<Box<Upstream>>,
        length: Length,
        pool: Rc<Pool>,
        later: Option<Box<Later>>,
    },
}

impl Body for AnswerStream {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        match self.get_mut() {
            AnswerStream::Full(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            AnswerStream::Upstream {
                upstream,
                pool,
                later,
                ..
            } => {
                let Some(reading) = upstream else {
                    return Poll::Ready(None);
                };
                let polled = reading.poll_data(cx);
                if let (Poll::Ready(Some(Ok(data))), Some(later)) = (&polled, &mut *later) {
                    later.sent_more(data.len());
                    later.data(data);
                }
                if reading.is_over() {
                    if let Some(mut later) = later.take() {
                        later.whole();
                    }
                    pool.put(upstream.take().expect("it was there a line ago"));
                }
                polled.map(|data| data.map(|data| data.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerStream::Full(bytes) => bytes.is_none(),
            AnswerStream::Upstream { upstream, .. } => {
                upstream.as_ref().is_none_or(|upstream| upstream.is_over())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerStream::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            AnswerStream::Upstream {
                length: Length::Exact(bytes),
                ..
            } => SizeHint::with_exact(*bytes),
            AnswerStream::Upstream { .. } => SizeHint::default(),
        }
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        // hyper does not ask for more of a body that says it is over
        if let AnswerStream::Upstream {
            upstream,
            pool,
            later,
            ..
        } = self
            && let Some(upstream) = upstream.take()
        {
            if upstream.is_over()
                && let Some(mut later) = later.take()
            {
                later.whole();
            }
            pool.put(upstream);
        }
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
