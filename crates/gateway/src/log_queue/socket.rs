//! A TCP connection that is kept open, with TLS or without.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::ClientConfig;
use sallyport_runtime::tls;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream, encrypted if `tls` says the name to ask for and how.
pub(super) async fn encrypt(
    stream: TcpStream,
    tls: Option<(&str, &Arc<ClientConfig>)>,
    limit: Duration,
) -> Result<Box<dyn Io>, String> {
    let Some((name, config)) = tls else {
        return Ok(Box::new(stream));
    };
    match timeout(limit, tls::connect(config.clone(), name, stream)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no TLS handshake in time".to_owned()),
    }
}

/// A connection that only writes.
pub(super) struct Connection {
    io: Box<dyn Io>,
    used: Instant,
}

impl Connection {
    pub(super) async fn open(
        stream: TcpStream,
        tls: Option<(&str, &Arc<ClientConfig>)>,
        limit: Duration,
    ) -> Result<Connection, String> {
        Ok(Connection {
            io: encrypt(stream, tls, limit).await?,
            used: Instant::now(),
        })
    }

    /// The connection, if it may be written to again: not idle for too long, and still open at
    /// the far end. What that sends is read and forgotten.
    pub(super) fn if_fit(mut self, keepalive: Duration) -> Option<Connection> {
        (self.used.elapsed() < keepalive && self.is_open()).then_some(self)
    }

    fn is_open(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        // a far end that talks for ever is looked at again before the next write
        for _ in 0..16 {
            let mut part = [0; 1024];
            let mut part = ReadBuf::new(&mut part);
            match Pin::new(&mut self.io).poll_read(&mut cx, &mut part) {
                Poll::Pending => return true,
                Poll::Ready(Ok(())) if !part.filled().is_empty() => {}
                Poll::Ready(_) => return false,
            }
        }
        true
    }

    /// Hands everything to the system.
    pub(super) async fn write(&mut self, bytes: &[u8], limit: Duration) -> io::Result<()> {
        let written = async {
            self.io.write_all(bytes).await?;
            poll_fn(|cx| Pin::new(&mut self.io).poll_flush(cx)).await
        };
        match timeout(limit, written).await {
            Ok(written) => written?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        self.used = Instant::now();
        Ok(())
    }
}
