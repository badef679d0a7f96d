//! Connections to upstreams, driven inside the request that uses them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode};
pub(crate) use sallyport_runtime::forward_proxy::Way as Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::body::{BodySource, ClientGone};
use super::clock::recent;
use super::http1::framing::{Body, Length, Step};
use super::http1::head::{HeadError, ResponseHead, take_response};
use super::http1::trailers::{self, checked};
use super::http1::write;
use super::pool::Key;
use super::silence::Silence;
use super::tunnel::{self, TunnelError, Way};
use crate::balancer::Lease;

/// A request body is read from the client only while less than this waits to be sent, bytes.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// Most interim responses (1xx) to one request. They are dropped, so without a bound an upstream
/// could go on for ever.
pub(super) const INTERIM_MAX: u32 = 16;
/// Room made for one read, bytes.
const READ_BYTES: usize = 16 * 1024;

/// An open connection to an upstream, and the response that is being read from it.
pub(crate) struct Upstream {
    stream: Stream,
    /// What came and is not used yet.
    buffer: BytesMut,
    /// What is to be sent.
    out: BytesMut,
    silence: Silence,
    read_timeout: Duration,
    /// Bytes of the body that were read and given back.
    ahead: Bytes,
    /// Body of the response; over when there is none.
    body: Body,
    /// Whether another request may follow once the body is over.
    reusable: bool,
    /// Requests sent so far.
    pub(super) requests: u64,
    /// When it was last put into the pool.
    pub(super) idle_since: Instant,
    /// Where it leads.
    pub(super) key: Key,
    /// Held until the response is over, where that counts.
    pub(super) lease: Option<Lease>,
}

/// Longest silence while a request is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) write: Duration,
    pub(crate) read: Duration,
    /// Of the client, while its body is waited for.
    pub(crate) client: Duration,
    /// Largest request body, bytes.
    pub(crate) body_bytes_max: u64,
}

/// Why a request on an open connection got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the upstream is silent")]
    Timeout,
    #[error("the upstream's connection failed: {0}")]
    Io(io::Error),
    #[error("the upstream closed the connection")]
    Closed,
    #[error("the upstream's answer is not HTTP/1.1 ({0:?})")]
    NotHttp(HeadError),
    #[error("the request body is too large")]
    TooLarge,
    #[error("the client stopped sending")]
    ClientTimeout,
    #[error("the client broke off its body, or framed it wrongly")]
    ClientGone,
    #[error("the client left before there was an answer")]
    ClientLeft,
    #[error("the client took nothing for {} s", .0.as_secs_f32())]
    ClientStuck(Duration),
    #[error("the upstream's HTTP/2 stream failed: {0}")]
    Http2(#[source] h2::Error),
    #[error("the request cannot be told over HTTP/2")]
    Untellable,
}

impl Upstream {
    /// A fresh connection.
    pub(crate) fn new(stream: Stream, key: Key) -> Upstream {
        Upstream {
            stream,
            buffer: BytesMut::new(),
            out: BytesMut::new(),
            silence: Silence::new(),
            read_timeout: Duration::ZERO,
            ahead: Bytes::new(),
            body: Body::new(Length::Exact(0)),
            reusable: true,
            requests: 0,
            idle_since: recent(),
            key,
            lease: None,
        }
    }

    /// Whether an idle connection can still take a request. One that the upstream closed, or on
    /// which it spoke unasked, cannot.
    pub(super) fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        Pin::new(&mut self.stream)
            .poll_read(cx, &mut buf)
            .is_pending()
    }

    /// Sends a request whose head `write_head` writes, and waits for the response head.
    ///
    /// `taken` becomes true when a part of the body is taken from `source`: then it cannot be
    /// sent again.
    pub(crate) async fn send(
        &mut self,
        method: &Method,
        write_head: impl FnOnce(&mut BytesMut),
        source: &mut dyn BodySource,
        taken: &mut bool,
        limits: Limits,
        upgrade: bool,
    ) -> Result<ResponseHead, SendError> {
        self.requests += 1;
        self.reusable = false;
        self.read_timeout = limits.read;
        self.out.clear();
        write_head(&mut self.out);
        self.silence.broken();
        let mut sending = Sending {
            chunked: source.length() == Length::Chunked,
            over: source.length() == Length::Exact(0),
            left: limits.body_bytes_max,
            upgrade,
            interim: 0,
        };
        let mut head =
            poll_fn(|cx| self.poll_send(&mut sending, source, taken, limits, cx)).await?;
        let no_body = *method == Method::HEAD
            || matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS
            );
        // whoever says that a 204 has a body may send one
        let strays = head.status == StatusCode::NO_CONTENT
            && !matches!(head.length, Length::Exact(0) | Length::UntilClose);
        if no_body {
            head.length = Length::Exact(0);
        }
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove(&CONTENT_LENGTH); // RFC 9110 section 8.6
        }
        self.body = Body::new(head.length);
        // an answer before the whole request was sent leaves the connection in between
        self.reusable = head.keep_alive
            && head.length != Length::UntilClose
            && sending.over
            && self.out.is_empty()
            && !strays;
        Ok(head)
    }

    fn poll_send(
        &mut self,
        sending: &mut Sending,
        source: &mut dyn BodySource,
        taken: &mut bool,
        limits: Limits,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, SendError>> {
        loop {
            let mut waits_for_client = false;
            while !sending.over && self.out.len() < OUT_BYTES_MAX {
                match source.poll_data(cx) {
                    Poll::Pending => {
                        waits_for_client = true;
                        break;
                    }
                    Poll::Ready(None) => {
                        sending.over = true;
                        if sending.chunked {
                            let trailers = source.take_trailers().map(|map| checked(*map));
                            trailers::write(&mut self.out, trailers.as_ref());
                        }
                    }
                    Poll::Ready(Some(Err(ClientGone))) => {
                        return Poll::Ready(Err(SendError::ClientGone));
                    }
                    Poll::Ready(Some(Ok(data))) => {
                        *taken = true;
                        self.silence.broken();
                        sending.left = match sending.left.checked_sub(data.len() as u64) {
                            Some(left) => left,
                            None => return Poll::Ready(Err(SendError::TooLarge)),
                        };
                        match sending.chunked {
                            true => write::chunk(&mut self.out, &data),
                            false => self.out.extend_from_slice(&data),
                        }
                    }
                }
            }
            let sent_some = !self.out.is_empty();
            // an upstream that answers early may stop reading: its answer still counts
            let write_failed = match self.poll_flush_out(cx) {
                Poll::Ready(Err(error)) => Some(error),
                Poll::Ready(Ok(())) | Poll::Pending => None,
            };
            if sent_some && self.out.is_empty() && !sending.over && !waits_for_client {
                continue;
            }
            match self.poll_fill(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(SendError::Io(error))),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(SendError::Closed)),
                Poll::Ready(Ok(_)) => match self.final_head(sending) {
                    Err(error) => return Poll::Ready(Err(SendError::NotHttp(error))),
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                },
                Poll::Pending => {
                    if let Some(error) = write_failed {
                        return Poll::Ready(Err(SendError::Io(error)));
                    }
                    if sending.over && source.poll_gone(cx).is_ready() {
                        return Poll::Ready(Err(SendError::ClientLeft));
                    }
                    let (limit, error) = if waits_for_client && self.out.is_empty() {
                        (limits.client, SendError::ClientTimeout)
                    } else if self.out.is_empty() {
                        (limits.read, SendError::Timeout)
                    } else {
                        (limits.write, SendError::Timeout)
                    };
                    return self.silence.poll(limit, cx).map(|()| Err(error));
                }
            }
        }
    }

    /// The response head, if it is here; interim ones before it are dropped.
    fn final_head(&mut self, sending: &mut Sending) -> Result<Option<ResponseHead>, HeadError> {
        loop {
            match take_response(&mut self.buffer)? {
                Some(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    // nobody may ask for another protocol than the one that the client named
                    return if sending.upgrade {
                        Ok(Some(head))
                    } else {
                        Err(HeadError::Bad)
                    };
                }
                Some(head) if head.status.is_informational() => {
                    sending.interim += 1;
                    if sending.interim > INTERIM_MAX {
                        return Err(HeadError::TooLarge);
                    }
                }
                other => return Ok(other),
            }
        }
    }

    fn poll_flush_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => {
                    self.silence.broken();
                    self.out.advance(sent);
                }
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = ready!(fill(Pin::new(&mut self.stream), &mut self.buffer, cx))?;
        self.silence.broken();
        Poll::Ready(Ok(read))
    }

    /// Moves bytes both ways after an upgrade; see [`tunnel::poll`].
    pub(super) fn poll_tunnel<C: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut C,
        out: &mut Way,
        back: &mut Way,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TunnelError>> {
        tunnel::poll(
            (client, out),
            (&mut self.stream, back),
            &mut self.silence,
            self.read_timeout,
            cx,
        )
    }

    /// What came behind the head that agreed to an upgrade.
    pub(super) fn take_rest(&mut self) -> BytesMut {
        self.reusable = false;
        self.buffer.split()
    }

    /// Whether the response body has been read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.ahead.is_empty() && self.body.is_over()
    }

    /// The trailer fields of the response, once, after its end.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.body.take_trailers().map(|map| *map)
    }

    /// Takes bytes of the body that nobody needed, to be read again.
    pub(super) fn give_back(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// Whether the connection may go back into the pool.
    pub(super) fn is_reusable(&self) -> bool {
        self.reusable && self.is_over() && self.buffer.is_empty()
    }

    /// The body's bytes that are here now; empty at the end of the body.
    ///
    /// [`consumed`](Upstream::consumed) says how many of them were used.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<&[u8], SendError>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(&self.ahead));
        }
        loop {
            match self.body.step(&mut self.buffer) {
                Step::Data(bytes) => return Poll::Ready(Ok(&self.buffer[..bytes])),
                Step::End => return Poll::Ready(Ok(&[])),
                Step::Bad => return Poll::Ready(Err(SendError::NotHttp(HeadError::Bad))),
                Step::More => match self.poll_fill(cx) {
                    Poll::Ready(Ok(0)) if self.body.ends_at_close() => {
                        self.body = Body::new(Length::Exact(0));
                        return Poll::Ready(Ok(&[]));
                    }
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(SendError::Closed)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(SendError::Io(error))),
                    Poll::Pending => {
                        let limit = self.read_timeout;
                        return self
                            .silence
                            .poll(limit, cx)
                            .map(|()| Err(SendError::Timeout));
                    }
                },
            }
        }
    }

    /// As [`poll_body`](Upstream::poll_body) without waiting; `None` if nothing is here.
    pub(super) fn body_here(&mut self) -> Option<Result<&[u8], SendError>> {
        if !self.ahead.is_empty() {
            return Some(Ok(&self.ahead));
        }
        match self.body.step(&mut self.buffer) {
            Step::Data(bytes) => Some(Ok(&self.buffer[..bytes])),
            Step::End => Some(Ok(&[])),
            Step::Bad => Some(Err(SendError::NotHttp(HeadError::Bad))),
            Step::More => None,
        }
    }

    /// Takes used bytes of the body away.
    pub(super) fn consumed(&mut self, bytes: usize) {
        if !self.ahead.is_empty() {
            return self.ahead.advance(bytes);
        }
        self.buffer.advance(bytes);
        self.body.consumed(bytes);
    }

    /// The body's next bytes as a value of their own; `None` at the end.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, SendError>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.ahead))));
        }
        let length = match ready!(self.poll_body(cx)) {
            Err(error) => return Poll::Ready(Some(Err(error))),
            Ok([]) => return Poll::Ready(None),
            Ok(data) => data.len(),
        };
        let data = self.buffer.split_to(length).freeze();
        self.body.consumed(length);
        Poll::Ready(Some(Ok(data)))
    }
}

/// What is left to do for a request body.
struct Sending {
    chunked: bool,
    over: bool,
    /// Bytes that may still come.
    left: u64,
    /// Whether the upstream may go on as WebSocket.
    upgrade: bool,
    /// Interim responses so far.
    interim: u32,
}

/// Reads what is there, once; 0 at the end of the stream.
pub(super) fn fill<S: AsyncRead>(
    stream: Pin<&mut S>,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.capacity() - buffer.len() < 1024 {
        buffer.reserve(READ_BYTES);
    }
    tokio_util::io::poll_read_buf(stream, cx, buffer)
}
