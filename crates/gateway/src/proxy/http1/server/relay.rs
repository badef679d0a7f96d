//! Bodies of responses on their way to the client, and tunnels.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Asked, COPIED_BYTES_MAX, Connection, End};
use crate::proxy::calls::Call;
use crate::proxy::http1::trailers;
use crate::proxy::http1::write::{self, Framing};
use crate::proxy::later::Later;
use crate::proxy::tunnel::Way;
use crate::proxy::upstream::{SendError, Upstream, fill};

/// What a client may send ahead of the answer that it waits for, bytes.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Sends what is in `out` and then the body of a response, as it comes.
    pub(super) async fn relay(
        &mut self,
        upstream: &mut Upstream,
        chunks: Chunks,
        mut later: Option<&mut Later>,
    ) -> Result<(), End> {
        let chunked = chunks != Chunks::No;
        loop {
            // what is here goes out together with what is already written
            while self.out.len() < COPIED_BYTES_MAX {
                let length = match upstream.body_here() {
                    None | Some(Ok([])) => break,
                    Some(Err(error)) => {
                        // the client gets as far as the upstream came
                        _ = self.flush().await;
                        if let Some(later) = &mut later {
                            later.sent(self.sent);
                        }
                        return Err(End::Upstream(error));
                    }
                    Some(Ok(data)) => {
                        if let Some(later) = &mut later {
                            later.data(data);
                        }
                        match chunked {
                            true => write::chunk(&mut self.out, data),
                            false => self.out.extend_from_slice(data),
                        }
                        data.len()
                    }
                };
                upstream.consumed(length);
            }
            let over = upstream.is_over();
            if over && let Some(later) = &mut later {
                later.whole();
            }
            if over && chunked {
                let trailers = upstream.take_trailers();
                let trailers = trailers.filter(|_| chunks == Chunks::WithTrailers);
                trailers::write(&mut self.out, trailers.as_ref());
            }
            let flushed = self.flush().await;
            if let Some(later) = &mut later {
                later.sent(self.sent);
            }
            flushed?;
            if over {
                return Ok(());
            }
            let Connection { stream, buffer, .. } = &mut *self;
            let length = poll_fn(|cx| {
                if let Poll::Ready(polled) = upstream.poll_body(cx) {
                    return Poll::Ready(polled.map(<[u8]>::len).map_err(End::Upstream));
                }
                poll_left(stream, buffer, cx).map(|()| Err(End::Left))
            })
            .await?;
            if length == 0 && !upstream.is_over() {
                return Err(End::Upstream(SendError::Closed));
            }
        }
    }

    /// As [`relay`](Connection::relay), for what came over HTTP/2.
    pub(super) async fn relay_call(
        &mut self,
        call: &mut Call,
        chunks: Chunks,
        mut later: Option<&mut Later>,
    ) -> Result<(), End> {
        let mut trailers = None;
        loop {
            self.flush().await?;
            let Connection { stream, buffer, .. } = &mut *self;
            let frame = poll_fn(|cx| {
                if let Poll::Ready(frame) = call.poll_frame(cx) {
                    return Poll::Ready(frame.transpose().map_err(End::Upstream));
                }
                poll_left(stream, buffer, cx).map(|()| Err(End::Left))
            })
            .await?;
            match frame.map(http_body::Frame::into_data) {
                Some(Ok(data)) => {
                    if let Some(later) = &mut later {
                        later.data(&data);
                    }
                    match chunks {
                        Chunks::No => self.out.extend_from_slice(&data),
                        _ => write::chunk(&mut self.out, &data),
                    }
                }
                Some(Err(frame)) => trailers = frame.into_trailers().ok(),
                None => break,
            }
        }
        if let Some(later) = &mut later {
            later.whole();
        }
        if chunks != Chunks::No {
            let trailers = trailers.filter(|_| chunks == Chunks::WithTrailers);
            trailers::write(&mut self.out, trailers.as_ref());
        }
        let flushed = self.flush().await;
        if let Some(later) = &mut later {
            later.sent(self.sent);
        }
        flushed
    }

    /// Passes bytes both ways until either side closes.
    pub(super) async fn tunnel(&mut self, upstream: &mut Upstream) -> Result<(), End> {
        let mut out = Way::new(self.buffer.split());
        let mut back = Way::new(upstream.take_rest());
        let stream = &mut self.stream;
        poll_fn(|cx| upstream.poll_tunnel(stream, &mut out, &mut back, cx))
            .await
            .map_err(End::Tunnel)
    }
}

/// Whether a body is sent in chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    No,
    Plain,
    WithTrailers,
}

impl Chunks {
    pub(super) fn of(framing: Framing, asked: Asked) -> Chunks {
        match (framing, asked.takes_trailers) {
            (Framing::Chunked, true) => Chunks::WithTrailers,
            (Framing::Chunked, false) => Chunks::Plain,
            _ => Chunks::No,
        }
    }
}

/// Ready once a client that waits for its response has left: it closed its side, as nginx sees it,
/// or its connection failed. What it sends meanwhile waits in `buffer`, up to a bound.
pub(super) fn poll_left<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<()> {
    while buffer.len() < AHEAD_BYTES_MAX {
        match ready!(fill(Pin::new(&mut *stream), buffer, cx)) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(_) => {}
        }
    }
    Poll::Pending
}
