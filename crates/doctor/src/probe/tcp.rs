//! TCP connections, with their failures told apart.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::seen::End;

/// Connects within `limit`; `segment_bytes` bounds the segments of both directions.
pub(super) async fn connect(
    address: SocketAddr,
    limit: Duration,
    segment_bytes: Option<u32>,
) -> Result<TcpStream, End> {
    let socket = socket(address, segment_bytes).map_err(|error| end(&error))?;
    match timeout(limit, socket.connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(end(&error)),
        Err(_) => Err(End::Silent),
    }
}

fn socket(address: SocketAddr, segment_bytes: Option<u32>) -> io::Result<TcpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = segment_bytes {
        socket.set_tcp_mss(bytes)?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// What an error of the system means.
pub(super) fn end(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionRefused => End::Refused,
        ErrorKind::TimedOut => End::Silent,
        ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => {
            End::NoRoute
        }
        ErrorKind::PermissionDenied => End::Forbidden,
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or(&text);
            End::Unreachable(text.to_owned())
        }
    }
}
