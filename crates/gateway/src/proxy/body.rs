//! Request bodies on their way upstream.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use sallyport_plugins::{Exchange, RequestBody};

use super::http1::framing::Length;
use super::options::Options;
use super::serve::Refusal;

/// The client's connection failed, or what it sends is not a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientGone;

/// Where a request body comes from.
pub(crate) trait BodySource {
    /// How long it is, as the head said.
    fn length(&self) -> Length;

    /// The next part; `None` at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientGone>>>;

    /// The trailer fields, once, after the end.
    fn take_trailers(&mut self) -> Option<Box<HeaderMap>>;

    /// Ready once the client is known to have left. To be asked after the end.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// What is left of it as a value of its own, if it can outlive the request's future.
    fn detach(&mut self) -> Option<Box<dyn BodySource>>;
}

/// A body that arrives over HTTP/2.
pub(crate) struct Http2Body {
    /// `None` once it was detached.
    incoming: Option<Incoming>,
    trailers: Option<Box<HeaderMap>>,
}

impl Http2Body {
    pub(crate) fn new(incoming: Incoming) -> Http2Body {
        Http2Body {
            incoming: Some(incoming),
            trailers: None,
        }
    }
}

impl BodySource for Http2Body {
    fn length(&self) -> Length {
        match &self.incoming {
            Some(incoming) if !incoming.is_end_stream() => incoming
                .size_hint()
                .exact()
                .map_or(Length::Chunked, Length::Exact),
            _ => Length::Exact(0),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientGone>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        loop {
            let frame = match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(ClientGone))),
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(data))),
                Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
            }
        }
    }

    fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.trailers.take()
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending // hyper drops the request then
    }

    fn detach(&mut self) -> Option<Box<dyn BodySource>> {
        Some(Box::new(Http2Body {
            incoming: self.incoming.take(),
            trailers: self.trailers.take(),
        }))
    }
}

/// A body that left the request's future, and what had been read of it before.
struct Detached {
    parts: VecDeque<Bytes>,
    /// `None` if nothing follows.
    source: Option<Box<dyn BodySource>>,
}

impl BodySource for Detached {
    fn length(&self) -> Length {
        Length::Chunked
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientGone>>> {
        match (self.parts.pop_front(), &mut self.source) {
            (Some(part), _) => Poll::Ready(Some(Ok(part))),
            (None, Some(source)) => source.poll_data(cx),
            (None, None) => Poll::Ready(None),
        }
    }

    fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.source.as_mut()?.take_trailers()
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn detach(&mut self) -> Option<Box<dyn BodySource>> {
        None
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
    /// All of it, while it may have to be sent again.
    kept: Option<Bytes>,
    /// Whether the source has ended.
    ended: bool,
    trailers: Option<Box<HeaderMap>>,
}

impl<'a> HeldBody<'a> {
    pub(super) fn new(source: &'a mut dyn BodySource, taken: &'a Cell<u64>) -> HeldBody<'a> {
        HeldBody {
            source,
            taken,
            parts: VecDeque::new(),
            replaced: None,
            kept: None,
            ended: false,
            trailers: None,
        }
    }

    /// Waits for all of a body that has no more than these bytes; the start of a larger one is
    /// read too, and the rest streams. So an upstream is not held up by who sends slowly or not at
    /// all, and a whole body can be sent again.
    ///
    /// # Errors
    /// What the client is answered, if it does not send it, or more than the gateway takes.
    pub(super) async fn buffer(
        &mut self,
        bytes_max: u64,
        options: &Options,
    ) -> Result<(), StatusCode> {
        if self.replaced.is_none() {
            let mut bytes: u64 = self.parts.iter().map(|part| part.len() as u64).sum();
            if matches!(self.length(), Length::Exact(length) if length > bytes_max) {
                return Ok(());
            }
            while bytes < bytes_max {
                let next = poll_fn(|cx| self.poll_source(cx));
                match tokio::time::timeout(options.client.body, next).await {
                    Err(_) => return Err(StatusCode::REQUEST_TIMEOUT),
                    Ok(Some(Err(ClientGone))) => return Err(StatusCode::BAD_REQUEST),
                    Ok(Some(Ok(part))) => {
                        bytes += part.len() as u64;
                        if bytes > options.body_bytes_max {
                            return Err(StatusCode::PAYLOAD_TOO_LARGE);
                        }
                        self.parts.push_back(part);
                    }
                    Ok(None) => {
                        self.trailers = self.source.take_trailers();
                        self.ended = true;
                        break;
                    }
                }
            }
            if !self.ended {
                return Ok(());
            }
            if self.trailers.is_none() {
                self.replaced = Some(bytes); // no need for chunks
            }
        }
        let whole = match self.parts.len() {
            0 => Bytes::new(),
            1 => self.parts[0].clone(),
            _ => self.parts.iter().flatten().copied().collect(),
        };
        self.kept = Some(whole);
        Ok(())
    }

    /// Starts again with the first byte; whether that is possible.
    pub(super) fn rewind(&mut self) -> bool {
        let Some(kept) = &self.kept else {
            return false;
        };
        self.parts = [kept.clone()].into();
        self.parts.retain(|part| !part.is_empty());
        true
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
            match tokio::time::timeout(options.client.body, next).await {
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
            None if self.replaced.is_some() || self.ended => Poll::Ready(None),
            None => self.poll_source(cx),
        }
    }

    fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        match self.ended {
            true => self.trailers.clone(),
            false => self.source.take_trailers(),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.source.poll_gone(cx)
    }

    fn detach(&mut self) -> Option<Box<dyn BodySource>> {
        let is_whole = self.replaced.is_some() || self.ended;
        let source = match is_whole {
            true => None,
            false => Some(self.source.detach()?),
        };
        Some(Box::new(Detached {
            parts: std::mem::take(&mut self.parts),
            source,
        }))
    }
}
