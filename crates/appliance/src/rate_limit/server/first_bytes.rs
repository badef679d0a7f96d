//! What a connection speaks: TLS and the bare protocol share a port.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// The peer closed before it said anything.
    Nothing,
    /// A TLS handshake.
    Tls,
    /// The bare protocol.
    Plain,
}

/// Reads into `head` until it tells what follows. A client may be silent for long before it asks
/// for something, but not between the first byte and the second.
pub(super) async fn first_bytes<S: AsyncRead + Unpin>(
    stream: &mut S,
    head: &mut Vec<u8>,
    stall_max: Duration,
) -> io::Result<First> {
    loop {
        // A TLS record of type handshake, of version 3.x. A message of 22 bytes begins with 0x16 as
        // well, but never with a 3 after it: that would be field 0.
        match head.as_slice() {
            [] | [0x16] => {}
            [0x16, 3, ..] => return Ok(First::Tls),
            _ => return Ok(First::Plain),
        }
        let mut chunk = [0; 1024];
        let read = match head.is_empty() {
            true => stream.read(&mut chunk).await?,
            false => match timeout(stall_max, stream.read(&mut chunk)).await {
                Ok(read) => read?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            },
        };
        if read == 0 {
            return Ok(First::Nothing);
        }
        head.extend_from_slice(&chunk[..read]);
    }
}

/// A stream of which the beginning has been read already.
pub(super) struct Replay<S> {
    head: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S> Replay<S> {
    /// Yields `head` first, then what `stream` still has.
    pub(super) fn new(head: Vec<u8>, stream: S) -> Replay<S> {
        let at = 0;
        Replay { head, at, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.head[self.at..];
        if rest.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let length = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..length]);
            self.at += length;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
