//! Reading the PROXY protocol header at the start of a connection.

use std::io;

use sallyport_wire::proxy_protocol::{HEADER_BYTES_MAX, Header, ProxyProtocolError, parse};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Why a connection that has to begin with a header is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error(transparent)]
    Protocol(#[from] ProxyProtocolError),
    #[error("the connection ended before its PROXY protocol header did")]
    Ended,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes the header off the stream, and no byte behind it.
pub(super) async fn take(stream: &mut TcpStream) -> Result<Header, HeaderError> {
    let mut bytes = Vec::with_capacity(128);
    let mut ahead = [0; HEADER_BYTES_MAX];
    loop {
        let here = stream.peek(&mut ahead).await?;
        if here == 0 {
            return Err(HeaderError::Ended);
        }
        let known = bytes.len();
        bytes.extend_from_slice(&ahead[..here]);
        let (header, length) = match parse(&bytes)? {
            Some((header, length)) => (Some(header), length),
            // all of it belongs to the header
            None => (None, bytes.len()),
        };
        stream.read_exact(&mut ahead[..length - known]).await?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}
