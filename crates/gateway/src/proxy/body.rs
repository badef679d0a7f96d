//! Request bodies on their way upstream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;

use super::http1::framing::Length;

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
