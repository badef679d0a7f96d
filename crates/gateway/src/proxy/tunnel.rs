//! Bytes both ways between a client and an upstream that agreed to speak something else than HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, UPGRADE};
use sallyport_plugins::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::http1::framing::Length;
use super::silence::Silence;
use super::upstream::fill;

/// The one protocol that a request may ask to go on with. Source: data-plane reference 8.4.
pub(super) const WEBSOCKET: &str = "websocket";

/// Whether a request asks to go on as WebSocket: HTTP/1.1, no body, and both headers say so.
pub(super) fn is_asked_for(request: &Request, length: Length) -> bool {
    let Some(protocol) = request.headers.get(&UPGRADE) else {
        return false;
    };
    protocol.eq_ignore_ascii_case(WEBSOCKET.as_bytes())
        && request.version == http::Version::HTTP_11
        && length == Length::Exact(0)
        && request.headers.get_all(&CONNECTION).any(|line| {
            line.split(|&byte| byte == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
}

/// One direction: what came and is not passed on yet.
#[derive(Default)]
pub(super) struct Way {
    pub(super) buffer: BytesMut,
    ended: bool,
    /// Bytes passed on so far.
    pub(super) moved: u64,
}

impl Way {
    pub(super) fn new(buffer: BytesMut) -> Way {
        Way {
            buffer,
            ended: false,
            moved: 0,
        }
    }

    /// Moves what can be moved; ready once the source ended and all of it arrived.
    pub(super) fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        from: &mut R,
        to: &mut W,
        silence: &mut Silence,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.buffer.is_empty() {
                match std::task::ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    sent => {
                        silence.broken();
                        self.moved += sent as u64;
                        self.buffer.advance(sent);
                    }
                }
            }
            std::task::ready!(Pin::new(&mut *to).poll_flush(cx))?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match std::task::ready!(fill(Pin::new(&mut *from), &mut self.buffer, cx))? {
                0 => self.ended = true,
                _ => silence.broken(),
            }
        }
    }
}

/// Why a tunnel ended other than by one side closing it.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    #[error("nothing moved either way for {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Moves bytes until one side closes and what it sent has arrived, or neither moves for `limit`.
pub(super) fn poll<C, U>(
    (client, out): (&mut C, &mut Way),
    (upstream, back): (&mut U, &mut Way),
    silence: &mut Silence,
    limit: Duration,
    cx: &mut Context<'_>,
) -> Poll<Result<(), TunnelError>>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    if let Poll::Ready(ended) = back.poll(upstream, client, silence, cx) {
        return Poll::Ready(ended.map_err(TunnelError::Io));
    }
    if let Poll::Ready(ended) = out.poll(client, upstream, silence, cx) {
        return Poll::Ready(ended.map_err(TunnelError::Io));
    }
    silence
        .poll(limit, cx)
        .map(|()| Err(TunnelError::Silent(limit)))
}
