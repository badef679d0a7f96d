//! One client connection that speaks HTTP/1.

mod relay;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TE, TRAILER};
use http::{HeaderMap, Method, StatusCode, Version};
use sallyport_plugins::Request;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tracing::{error, info};

use self::relay::{Chunks, poll_left};
use super::framing::{Body, Length, Step};
use super::head::{HEAD_BYTES_MAX, HeadError, RequestHead, take_request};
use super::write::{self, Framing};
use crate::conf::ClientLimits;
use crate::logs::CLIENT_FAULTS;
use crate::proxy::body::{BodySource, ClientGone};
use crate::proxy::headers::{Client, contains_token};
use crate::proxy::serve::{Answer, AnswerBody, refuse_line, serve};
use crate::proxy::silence::Silence;
use crate::proxy::spare::Spare;
use crate::proxy::tunnel::TunnelError;
use crate::proxy::upstream::{SendError, fill};
use crate::proxy::worker::Worker;

/// After an answer to a request that is not read to its end: how long and how much more is read,
/// so that the client sees the answer and not a reset.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Parts of a body smaller than this are copied behind the head and sent with it, bytes.
const COPIED_BYTES_MAX: usize = 16 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Serves requests until the connection ends.
///
/// `busy` is true while a request is under way; an idle connection may be dropped at any time.
/// Once the worker stops, the connection ends after the request under way.
pub(crate) async fn run<S>(worker: &Rc<Worker>, client: &Client, stream: S, busy: &Cell<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection {
        stream,
        buffer: BytesMut::new(),
        out: BytesMut::new(),
        silence: Silence::new(),
        limits: worker.options.client,
        sent: 0,
    };
    let ended = connection.requests(worker, client, busy).await;
    if let Err(reason) = ended {
        let peer = client.peer;
        match reason {
            End::Upstream(reason) => {
                error!(fault = "upstream", %reason, %peer, "a response broke off");
            }
            reason => {
                info!(target: CLIENT_FAULTS, fault = "client", %reason, %peer, "connection ended");
            }
        }
    }
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client's connection failed: {0}")]
    Client(#[from] io::Error),
    #[error("the client took nothing for {} s", .0.as_secs_f32())]
    Stuck(Duration),
    #[error("a request head took too long")]
    SlowHead,
    #[error("the client closed within a request head")]
    HalfHead,
    #[error("the client left before its response was over")]
    Left,
    #[error("the tunnel broke off: {0}")]
    Tunnel(TunnelError),
    #[error("the response broke off: {0}")]
    Upstream(SendError),
}

struct Connection<S> {
    stream: S,
    /// What came and is not used yet.
    buffer: BytesMut,
    /// What is to be sent.
    out: BytesMut,
    silence: Silence,
    limits: ClientLimits,
    /// Bytes of the answer under way that went out.
    sent: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn requests(
        &mut self,
        worker: &Rc<Worker>,
        client: &Client,
        busy: &Cell<bool>,
    ) -> Result<(), End> {
        for left in (0..self.limits.requests).rev() {
            busy.set(!self.buffer.is_empty());
            let head = match self.head(&worker.spare, busy).await? {
                None => return Ok(()),
                Some(Ok(head)) => head,
                Some(Err(error)) => {
                    let status = match error {
                        HeadError::Bad => StatusCode::BAD_REQUEST,
                        HeadError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                        HeadError::UriTooLong => StatusCode::URI_TOO_LONG,
                        HeadError::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
                        HeadError::UnknownExpectation => StatusCode::EXPECTATION_FAILED,
                    };
                    let (fault, peer) = ("client", client.peer);
                    info!(target: CLIENT_FAULTS, fault, %peer, reason = ?error, "bad request head");
                    let asked = Asked {
                        version: Version::HTTP_11,
                        head_only: false,
                        takes_trailers: false,
                    };
                    let line = first_line(&self.buffer);
                    let answer = refuse_line(worker, client, status, line);
                    self.answer(worker, answer, asked, false).await?;
                    self.linger().await;
                    return Ok(());
                }
            };
            let asked = Asked {
                version: head.request.version,
                head_only: head.request.method == Method::HEAD,
                takes_trailers: takes_trailers(&head.request),
            };
            // what follows a refused CONNECT may be meant for the tunnel
            let may_follow = head.keep_alive && head.request.method != Method::CONNECT;
            let mut body = RequestBody {
                connection: self,
                body: Body::new(head.length),
                length: head.length,
                owes: if head.expects_continue { CONTINUE } else { b"" },
                gone: false,
            };
            let answer = serve(worker, client, head.request, &mut body).await;
            if body.gone {
                return Err(End::Left);
            }
            let read_all = body.skip_here();
            let keep_alive = may_follow && read_all && left > 0 && !worker.is_stopping();
            let kept = self.answer(worker, answer, asked, keep_alive).await?;
            if !kept {
                if !read_all {
                    self.linger().await;
                }
                // TLS says good-bye, which a client that takes nothing would hold up for good
                _ = tokio::time::timeout(LINGER_TIME, self.stream.shutdown()).await;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next request head; `None` when the client is done.
    async fn head(
        &mut self,
        spare: &Spare,
        busy: &Cell<bool>,
    ) -> Result<Option<Result<RequestHead, HeadError>>, End> {
        self.silence.broken();
        let Connection {
            stream,
            buffer,
            out,
            silence,
            limits,
            ..
        } = self;
        // a head ends with a line feed: without a new one, reading it all again would cost the
        // square of its length
        let mut read = 0;
        poll_fn(|cx| {
            loop {
                let may_end = read == 0
                    || buffer.len() >= HEAD_BYTES_MAX
                    || memchr::memchr(b'\n', &buffer[read..]).is_some();
                if !buffer.is_empty() && may_end {
                    busy.set(true);
                    match take_request(buffer) {
                        // nothing is left of empty lines
                        Ok(None) => {
                            busy.set(!buffer.is_empty());
                            read = buffer.len();
                        }
                        Ok(Some(head)) => return Poll::Ready(Ok(Some(Ok(head)))),
                        Err(error) => return Poll::Ready(Ok(Some(Err(error)))),
                    }
                }
                let first = buffer.is_empty();
                spare.lend(buffer);
                match fill(Pin::new(stream), buffer, cx) {
                    Poll::Ready(Ok(0)) if buffer.is_empty() => return Poll::Ready(Ok(None)),
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::HalfHead)),
                    Poll::Ready(Ok(_)) if first => silence.broken(),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    // the whole head has a limit, not each of its bytes
                    Poll::Pending if buffer.is_empty() => {
                        spare.take_back(buffer);
                        spare.take_back(out);
                        return silence.poll(limits.idle, cx).map(|()| Ok(None));
                    }
                    Poll::Pending => {
                        return silence.poll(limits.head, cx).map(|()| Err(End::SlowHead));
                    }
                }
            }
        })
        .await
    }

    /// Sends an answer; whether the connection can take another request.
    async fn answer(
        &mut self,
        worker: &Worker,
        mut answer: Answer,
        asked: Asked,
        keep_alive: bool,
    ) -> Result<bool, End> {
        let no_body = asked.head_only
            || matches!(
                answer.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let framing = match &answer.body {
            AnswerBody::Full(bytes) if asked.head_only => {
                answer
                    .headers
                    .set_number(&CONTENT_LENGTH, bytes.len() as u64);
                Framing::None
            }
            AnswerBody::Tunnel(_) => Framing::Tunnel,
            _ if no_body => Framing::None,
            AnswerBody::Full(bytes) => Framing::Exact(bytes.len() as u64),
            AnswerBody::Upstream(_, Length::Exact(bytes)) => Framing::Exact(*bytes),
            AnswerBody::Call(_, Length::Exact(bytes)) => Framing::Exact(*bytes),
            _ if asked.version == Version::HTTP_10 => Framing::Close,
            _ => Framing::Chunked,
        };
        if !asked.takes_trailers {
            answer.headers.remove(&TRAILER);
        }
        let keep_alive = match framing {
            Framing::Close => false,
            Framing::Tunnel => true, // what the head says, not what happens
            _ => keep_alive,
        };
        self.out.clear();
        worker.spare.lend(&mut self.out);
        let Answer {
            status,
            headers,
            body,
            mut later,
        } = answer;
        write::response(
            &mut self.out,
            asked.version,
            status,
            &headers,
            framing,
            keep_alive,
        );
        self.sent = 0;
        if let Some(later) = &mut later {
            later.head(headers, self.out.len());
        }
        match body {
            AnswerBody::Full(bytes) => {
                if framing != Framing::None {
                    self.out.extend_from_slice(&bytes);
                }
                if let Some(later) = &mut later {
                    later.data(&bytes);
                    later.whole();
                }
                let flushed = self.flush().await;
                if let Some(later) = &mut later {
                    later.sent(self.sent);
                }
                flushed?;
            }
            AnswerBody::Tunnel(mut upstream) => {
                self.flush().await?;
                if let Some(later) = &mut later {
                    later.sent(self.sent);
                }
                self.tunnel(&mut upstream).await?;
                return Ok(false);
            }
            AnswerBody::Upstream(mut upstream, _) => {
                let chunks = Chunks::of(framing, asked);
                self.relay(&mut upstream, chunks, later.as_deref_mut())
                    .await?;
                worker.pool.put(upstream);
            }
            AnswerBody::Call(mut call, _) => {
                let chunks = Chunks::of(framing, asked);
                self.relay_call(&mut call, chunks, later.as_deref_mut())
                    .await?;
            }
        }
        Ok(keep_alive)
    }

    async fn flush(&mut self) -> Result<(), End> {
        self.silence.broken();
        let Connection {
            stream,
            out,
            silence,
            sent: all_sent,
            limits,
            ..
        } = self;
        let send_max = limits.send;
        poll_fn(|cx| {
            while !out.is_empty() {
                match Pin::new(&mut *stream).poll_write(cx, out) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                    }
                    Poll::Ready(Ok(sent)) => {
                        silence.broken();
                        *all_sent += sent as u64;
                        out.advance(sent);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => {
                        return silence
                            .poll(send_max, cx)
                            .map(|()| Err(End::Stuck(send_max)));
                    }
                }
            }
            Pin::new(&mut *stream).poll_flush(cx).map_err(End::from)
        })
        .await
    }

    /// Lets the client finish sending what will not be read, for a while.
    async fn linger(&mut self) {
        let read = async {
            self.stream.shutdown().await?;
            let mut read = 0;
            while read < LINGER_BYTES_MAX {
                self.buffer.clear();
                let (stream, buffer) = (&mut self.stream, &mut self.buffer);
                match poll_fn(|cx| fill(Pin::new(&mut *stream), buffer, cx)).await? {
                    0 => break,
                    length => read += length,
                }
            }
            Ok::<_, io::Error>(())
        };
        _ = tokio::time::timeout(LINGER_TIME, read).await;
    }
}

/// How what came begins, up to the end of the line.
fn first_line(buffer: &[u8]) -> &[u8] {
    const SHOWN_MAX: usize = 1024;
    let end = memchr::memchr2(b'\r', b'\n', buffer).unwrap_or(buffer.len());
    &buffer[..end.min(SHOWN_MAX)]
}

/// What of a request decides how it is answered.
#[derive(Clone, Copy)]
struct Asked {
    version: Version,
    head_only: bool,
    /// Whether the client wants to have trailers (RFC 9110 section 6.5.1).
    takes_trailers: bool,
}

fn takes_trailers(request: &Request) -> bool {
    let mut lines = request.headers.get_all(&TE);
    lines.any(|line| contains_token(line, "trailers"))
}

/// The body of the request under way.
struct RequestBody<'a, S> {
    connection: &'a mut Connection<S>,
    body: Body,
    length: Length,
    /// What is sent before the first byte is waited for.
    owes: &'static [u8],
    /// Whether the client left before it was answered.
    gone: bool,
}

impl<S> RequestBody<'_, S> {
    /// Passes over what is here of a body that nobody read; whether that was all of it. An answer
    /// without the upstream then leaves the connection open.
    fn skip_here(&mut self) -> bool {
        while let Step::Data(length) = self.body.step(&mut self.connection.buffer) {
            self.connection.buffer.advance(length);
            self.body.consumed(length);
        }
        self.body.is_over()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> BodySource for RequestBody<'_, S> {
    fn length(&self) -> Length {
        self.length
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientGone>>> {
        let Connection { stream, buffer, .. } = &mut *self.connection;
        loop {
            match self.body.step(buffer) {
                Step::Data(length) => {
                    let data = buffer.split_to(length).freeze();
                    self.body.consumed(length);
                    return Poll::Ready(Some(Ok(data)));
                }
                Step::End => return Poll::Ready(None),
                Step::Bad => return Poll::Ready(Some(Err(ClientGone))),
                Step::More => {}
            }
            while !self.owes.is_empty() {
                match ready!(Pin::new(&mut *stream).poll_write(cx, self.owes)) {
                    Ok(sent) if sent > 0 => self.owes = &self.owes[sent..],
                    _ => return Poll::Ready(Some(Err(ClientGone))),
                }
            }
            match ready!(fill(Pin::new(&mut *stream), buffer, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(ClientGone))),
                Ok(_) => {}
            }
        }
    }

    fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.body.take_trailers()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Connection { stream, buffer, .. } = &mut *self.connection;
        ready!(poll_left(stream, buffer, cx));
        self.gone = true;
        Poll::Ready(())
    }

    fn detach(&mut self) -> Option<Box<dyn BodySource>> {
        None // it reads from the connection that the response goes to
    }
}
