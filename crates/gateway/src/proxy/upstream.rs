//! Connections to upstreams, driven inside the request that uses them.
//!
//! There is no task per connection: the request's own task polls the connection while it waits
//! for the head and for each part of the body, and puts it back into the pool when the body is
//! over. That saves a wake-up and a channel hop per message.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::client::TlsStream;

use super::body::{BodyError, BodyProgress, RequestBody};
use super::pool::{Key, Pool};

/// How long a client may pause while it sends a body. Source: nginx `client_body_timeout`.
const CLIENT_PAUSE_MAX: Duration = Duration::from_secs(60);

/// An open connection to an upstream.
pub(crate) struct Upstream {
    sender: SendRequest<RequestBody>,
    connection: Pin<Box<Connection<TokioIo<Metered>, RequestBody>>>,
    closed: bool,
    meter: Rc<Meter>,
    timer: Pin<Box<Sleep>>,
    limits: Limits,
    progress: Rc<BodyProgress>,
    /// Requests sent so far.
    pub(super) requests: u64,
    /// When it was last put into the pool.
    pub(super) idle_since: Instant,
    /// Where it leads.
    pub(super) key: Key,
}

/// Longest silence while a request is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) write: Duration,
    pub(crate) read: Duration,
}

/// Why a request on an open connection got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Silence for too long.
    #[error("the upstream is silent")]
    Timeout,
    /// Closed, reset, or not HTTP.
    #[error("{0}")]
    Broken(hyper::Error),
    /// The client's body is larger than allowed.
    #[error("the request body is too large")]
    TooLarge,
    /// The client stopped sending its body.
    #[error("the client stopped sending")]
    ClientTimeout,
    /// The client went away while it sent its body.
    #[error("the client went away")]
    ClientGone,
}

impl Upstream {
    /// Speaks HTTP/1.1 on a fresh connection.
    pub(crate) async fn handshake(stream: Stream, key: Key) -> hyper::Result<Upstream> {
        let now = Instant::now();
        let meter = Rc::new(Meter { progress: Cell::new(now), write_blocked: Cell::new(false) });
        let io = TokioIo::new(Metered { stream, meter: meter.clone() });
        let (sender, connection) =
            hyper::client::conn::http1::Builder::new().handshake(io).await?;
        Ok(Upstream {
            sender,
            connection: Box::pin(connection),
            closed: false,
            meter,
            timer: Box::pin(tokio::time::sleep_until(now + Duration::from_secs(60))),
            limits: Limits::default(),
            progress: Rc::default(),
            requests: 0,
            idle_since: now,
            key,
        })
    }

    /// Whether it can still take a request; an idle connection that the upstream closed cannot.
    pub(super) fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        !self.closed && self.sender.is_ready()
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.closed && self.connection.as_mut().poll(cx).is_ready() {
            self.closed = true;
        }
    }

    /// Sends a request and waits for the response head.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
        limits: Limits,
        progress: Rc<BodyProgress>,
    ) -> Result<Response<Incoming>, SendError> {
        self.requests += 1;
        self.limits = limits;
        self.progress = progress;
        self.meter.progress.set(Instant::now());
        let mut response = std::pin::pin!(self.sender.send_request(request));
        // split borrow: the future only holds the sender's channel, not the sender
        let result = std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = response.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            if !self.closed && self.connection.as_mut().poll(cx).is_ready() {
                self.closed = true;
            }
            if let Poll::Ready(result) = response.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            silence(&self.meter, &mut self.timer, self.limits, &self.progress, cx).map(|()| None)
        })
        .await;
        let progress = &self.progress;
        match result {
            Some(Ok(response)) => Ok(response),
            _ if progress.too_large.get() => Err(SendError::TooLarge),
            _ if progress.client_failed.get() => Err(SendError::ClientGone),
            Some(Err(error)) => Err(SendError::Broken(error)),
            None if progress.waits_for_client.get() => Err(SendError::ClientTimeout),
            None => Err(SendError::Timeout),
        }
    }
}

/// Ready when nothing has moved for longer than the limit that applies.
///
/// The timer is only ever moved when it fires too early, not for every request.
fn silence(
    meter: &Meter,
    timer: &mut Pin<Box<Sleep>>,
    limits: Limits,
    progress: &BodyProgress,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let limit = if progress.waits_for_client.get() {
        CLIENT_PAUSE_MAX
    } else if meter.write_blocked.get() {
        limits.write
    } else {
        limits.read
    };
    let deadline = meter.progress.get() + limit;
    if timer.deadline() > deadline {
        timer.as_mut().reset(deadline);
    }
    while timer.as_mut().poll(cx).is_ready() {
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        timer.as_mut().reset(deadline);
    }
    Poll::Pending
}

/// A response body that keeps its connection moving, and gives it back at the end.
pub(crate) struct UpstreamBody {
    body: Incoming,
    upstream: Option<Upstream>,
    pool: Rc<Pool>,
}

impl UpstreamBody {
    /// The body of a response that came on `upstream`.
    pub(crate) fn new(body: Incoming, upstream: Upstream, pool: Rc<Pool>) -> UpstreamBody {
        let mut body = UpstreamBody { body, upstream: Some(upstream), pool };
        if body.body.is_end_stream() {
            body.give_back(&mut Context::from_waker(std::task::Waker::noop()));
        }
        body
    }

    fn give_back(&mut self, cx: &mut Context<'_>) {
        if let Some(mut upstream) = self.upstream.take()
            && upstream.is_open(cx)
        {
            self.pool.put(upstream);
        }
    }

    /// The next part of the body.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(upstream) = &mut self.upstream
        {
            upstream.drive(cx);
            polled = Pin::new(&mut self.body).poll_frame(cx);
            if polled.is_pending() {
                let Upstream { meter, timer, limits, progress, .. } = upstream;
                return silence(meter, timer, *limits, progress, cx)
                    .map(|()| Some(Err(SendError::Timeout.into())));
            }
        }
        match polled {
            Poll::Ready(Some(Err(error))) => {
                self.upstream = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if self.body.is_end_stream() {
                    self.give_back(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.give_back(cx);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// How much is left, if the upstream said.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// When bytes last moved on a connection.
struct Meter {
    progress: Cell<Instant>,
    write_blocked: Cell<bool>,
}

/// The bytes under HTTP.
pub(crate) enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A stream that notes when bytes move.
struct Metered {
    stream: Stream,
    meter: Rc<Meter>,
}

impl Metered {
    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        self.meter.write_blocked.set(polled.is_pending());
        if polled.is_ready() {
            self.meter.progress.set(Instant::now());
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if polled.is_ready() {
            self.meter.progress.set(Instant::now());
        }
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
