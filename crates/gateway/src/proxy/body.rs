//! Bodies on the proxy path.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::upstream::UpstreamBody;

/// Why a body ended early.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A response body on its way to the client.
pub(crate) enum ResponseBody {
    /// Made by the gateway.
    Full(Option<Bytes>),
    /// From an upstream, as it comes.
    Upstream(Box<UpstreamBody>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            ResponseBody::Full(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            ResponseBody::Upstream(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Full(bytes) => bytes.is_none(),
            ResponseBody::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            ResponseBody::Upstream(body) => body.size_hint(),
        }
    }
}

/// What became of a request body while it was sent upstream.
#[derive(Debug, Default)]
pub(crate) struct BodyProgress {
    /// Whether the upstream waits for the client to send more.
    pub(crate) waits_for_client: Cell<bool>,
    /// Whether the client sent more than it may.
    pub(crate) too_large: Cell<bool>,
    /// Whether the client's connection failed while it sent.
    pub(crate) client_failed: Cell<bool>,
    /// Whether anything was taken from the client.
    pub(crate) started: Cell<bool>,
}

/// A request body on its way to the upstream.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    /// Bytes that may still come.
    left: u64,
    progress: Rc<BodyProgress>,
}

impl RequestBody {
    /// No body at all.
    pub(crate) fn empty(progress: Rc<BodyProgress>) -> RequestBody {
        RequestBody { incoming: None, left: 0, progress }
    }

    /// The client's body, of at most `bytes_max` bytes.
    pub(crate) fn streaming(
        incoming: Incoming,
        bytes_max: u64,
        progress: Rc<BodyProgress>,
    ) -> RequestBody {
        RequestBody { incoming: Some(incoming), left: bytes_max, progress }
    }
}

/// The body was cut off; [`BodyProgress`] says why.
#[derive(Debug, thiserror::Error)]
#[error("the request body was cut off")]
pub(crate) struct CutOff;

impl Body for RequestBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let body = self.get_mut();
        let Some(incoming) = &mut body.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        body.progress.waits_for_client.set(polled.is_pending());
        body.progress.started.set(true);
        polled.map(|frame| match frame? {
            Err(_) => {
                body.progress.client_failed.set(true);
                Some(Err(CutOff))
            }
            Ok(frame) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match body.left.checked_sub(length) {
                    Some(left) => {
                        body.left = left;
                        Some(Ok(frame))
                    }
                    None => {
                        body.progress.too_large.set(true);
                        Some(Err(CutOff))
                    }
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

