//! UDP sockets, by contract id.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{UdpSocket, lookup_host};

use crate::dial::DialError;
use crate::listen::{ListenError, ListenOptions};

/// Bytes of the kernel's buffer for datagrams that nobody has read yet, as far as the system allows
/// (`net.core.rmem_max`).
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Opens a UDP socket on `addr`, ready for the current tokio runtime.
///
/// Port 0 takes a free port. An IPv6 address keeps IPv4 out. `setting` names what the operator
/// changes to get another address.
///
/// # Errors
/// Whatever the system refuses, with address, contract id and setting.
///
/// # Panics
/// If `id` is not in the contract, or outside a tokio runtime.
pub fn listen_datagrams(
    id: &str,
    addr: SocketAddr,
    setting: &str,
) -> Result<UdpSocket, ListenError> {
    let socket = bind_datagrams(id, addr, setting, ListenOptions::default())?;
    UdpSocket::from_std(socket).map_err(|cause| ListenError {
        addr,
        id: id.to_owned(),
        setting: setting.to_owned(),
        cause,
    })
}

/// As [`listen_datagrams`], without needing a runtime. Of the options `reuse_port` and `ipv6_only`
/// count; with the former the kernel spreads clients over the sockets, each always to the same.
///
/// # Errors
/// As [`listen_datagrams`].
///
/// # Panics
/// If `id` is not in the contract.
pub fn bind_datagrams(
    id: &str,
    addr: SocketAddr,
    setting: &str,
    options: ListenOptions,
) -> Result<std::net::UdpSocket, ListenError> {
    let id = sallyport_contract::entry(id).id.as_str();
    open(addr, options).map_err(|cause| ListenError {
        addr,
        id: id.to_owned(),
        setting: setting.to_owned(),
        cause,
    })
}

fn open(addr: SocketAddr, options: ListenOptions) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.ipv6_only.unwrap_or(true))?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    // A smaller buffer only drops earlier.
    _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// A UDP socket that sends to this address and takes datagrams from nobody else.
///
/// # Errors
/// The system has no socket, or no way to the address.
///
/// # Panics
/// If `id` is not in the contract.
pub async fn connect_datagrams(id: &str, addr: SocketAddr) -> io::Result<UdpSocket> {
    let _ = sallyport_contract::entry(id);
    let own: SocketAddr = match addr {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(own).await?;
    socket.connect(addr).await?;
    Ok(socket)
}

/// A UDP socket that sends to the first address of `host`, a name or an address without brackets.
///
/// # Errors
/// The name has no address, or the system has no way to it.
///
/// # Panics
/// If `id` is not in the contract.
pub async fn dial_datagrams(id: &str, host: &str, port: u16) -> Result<UdpSocket, DialError> {
    let id = sallyport_contract::entry(id).id.as_str().to_owned();
    let resolved = lookup_host((host, port)).await;
    let mut addrs = resolved.map_err(|source| DialError::Resolve {
        host: host.to_owned(),
        id: id.clone(),
        source,
    })?;
    let mut tried = Vec::new();
    if let Some(addr) = addrs.next() {
        match connect_datagrams(&id, addr).await {
            Ok(socket) => return Ok(socket),
            Err(error) => tried.push((addr, error)),
        }
    }
    Err(DialError::Connect {
        host: host.to_owned(),
        port,
        id,
        tried,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_reach_a_socket() {
        let addr = "127.0.0.1:0".parse().unwrap();
        let socket = listen_datagrams("audit_log", addr, "receive.listen").unwrap();
        let port = socket.local_addr().unwrap().port();
        let sender = dial_datagrams("audit_log.forward", "127.0.0.1", port)
            .await
            .unwrap();
        sender.send(b"one").await.unwrap();
        let mut buffer = [0; 8];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"one");
        assert_eq!(from, sender.local_addr().unwrap());

        let error = listen_datagrams("audit_log", socket.local_addr().unwrap(), "receive.listen");
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("already in use") && error.contains("receive.listen"),
            "{error}"
        );
    }
}
