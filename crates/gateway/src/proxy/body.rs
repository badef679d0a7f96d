//! Request bodies on their way upstream.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use hyper::body::Incoming;
use sallyport_plugins::{Exchange, RequestBody};

use super::http1::framing::Length;
use super::options::Options;
use super::serve::Refusal;

/// How long a client may pause while a plugin waits for its body. Source: nginx
/// `client_body_timeout`.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The client's connection failed, or what it sends is not a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientGone;

/// Where a request body comes from.
pub(crate) trait BodySource {
    /// How long it is, as the head said.
    fn length(&self) -> Length;

    /// The next part; `None` at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientGone>>>;
}

/// A body that arrives over HTTP/2.
pub(crate) struct Http2Body(pub(crate) Incoming);

impl BodySource for Http2Body {
    fn length(&self) -> Length {
        if self.0.is_end_stream() {
            return Length::Exact(0);
        }
        self.0
            .size_hint()
            .exact()
            .map_or(Length::Chunked, Length::Exact)
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientGone>>> {
        loop {
            let frame = match Pin::new(&mut self.0).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(ClientGone))),
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            // trailers are not passed on yet
            if let Ok(data) = frame.into_data() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }
}

/// A body of which plugins may have read a part, or all.
pub(super) struct HeldBody<'a> {
    source: &'a mut dyn BodySource,
    /// Bytes that came from it.
    taken: &'a Cell<u64>,
    /// What was read and is not sent yet.
    parts: VecDeque<Bytes>,
    /// Length of what takes the place of the client's body, bytes.
    replaced: Option<u64>,
}

impl<'a> HeldBody<'a> {
    pub(super) fn new(source: &'a mut dyn BodySource, taken: &'a Cell<u64>) -> HeldBody<'a> {
        HeldBody {
            source,
            taken,
            parts: VecDeque::new(),
            replaced: None,
        }
    }

    /// Reads the body for a plugin that takes this many bytes; see [`RequestBody`].
    ///
    /// # Errors
    /// The client does not send it, or more than the gateway takes.
    pub(super) async fn hold(
        &mut self,
        exchange: &mut Exchange,
        bytes_max: u64,
        options: &Options,
    ) -> Result<(), Refusal> {
        if matches!(exchange.body, RequestBody::Here(_)) {
            return Ok(());
        }
        let failure = |status| Err(Refusal::failure(status, options));
        let mut bytes: u64 = self.parts.iter().map(|part| part.len() as u64).sum();
        while bytes <= bytes_max {
            let next = poll_fn(|cx| self.poll_source(cx));
            match tokio::time::timeout(PAUSE_MAX, next).await {
                Err(_) => return failure(StatusCode::REQUEST_TIMEOUT),
                Ok(Some(Err(ClientGone))) => return failure(StatusCode::BAD_REQUEST),
                Ok(Some(Ok(part))) => {
                    bytes += part.len() as u64;
                    if bytes > options.body_bytes_max {
                        return failure(StatusCode::PAYLOAD_TOO_LARGE);
                    }
                    self.parts.push_back(part);
                }
                Ok(None) => {
                    let mut whole = BytesMut::with_capacity(bytes as usize);
                    for part in self.parts.drain(..) {
                        whole.extend_from_slice(&part);
                    }
                    exchange.body = RequestBody::Here(whole.freeze());
                    return Ok(());
                }
            }
        }
        exchange.body = RequestBody::TooLarge;
        Ok(())
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientGone>>> {
        let polled = self.source.poll_data(cx);
        if let Poll::Ready(Some(Ok(part))) = &polled {
            self.taken.set(self.taken.get() + part.len() as u64);
        }
        polled
    }

    /// Sends what plugins made of the body, if they have all of it.
    pub(super) fn replace(&mut self, body: &RequestBody) {
        if let RequestBody::Here(bytes) = body {
            self.parts = [bytes.clone()].into();
            self.parts.retain(|part| !part.is_empty());
            self.replaced = Some(bytes.len() as u64);
        }
    }
}

impl BodySource for HeldBody<'_> {
    fn length(&self) -> Length {
        self.replaced
            .map_or_else(|| self.source.length(), Length::Exact)
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientGone>>> {
        match self.parts.pop_front() {
            Some(part) => Poll::Ready(Some(Ok(part))),
            None if self.replaced.is_some() => Poll::Ready(None),
            None => self.poll_source(cx),
        }
    }
}
