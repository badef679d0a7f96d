//! The sockets that clients connect to, one set for each worker.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use rustls::ServerConfig;
use sallyport_runtime::datagrams::bind_datagrams;
use sallyport_runtime::listen::{Keepalive, ListenError, ListenOptions, bind};

/// One address that traffic is taken on.
#[derive(Clone)]
pub(crate) struct Bound {
    /// Contract id.
    pub(crate) id: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) backlog: u32,
    pub(crate) ipv6_only: Option<bool>,
    /// Ends TLS if set.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// Whether HTTP/2 is spoken: by ALPN with TLS, by prior knowledge without.
    pub(crate) http2: bool,
    /// What is taken here.
    pub(crate) speaks: Speaks,
    /// Whether connections begin with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// TCP keepalive of the connections.
    pub(crate) keepalive: Option<Keepalive>,
}

/// What a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Requests.
    Http,
    /// Streams over TCP.
    Streams,
    /// Streams over UDP.
    Datagrams,
}

/// A socket that clients connect to, or send to.
pub(crate) enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Socket {
    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match self {
            Socket::Tcp(socket) => socket.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        }
    }
}

/// The sockets of one worker.
pub(crate) type Listeners = Vec<(Bound, Socket)>;

/// Opens every address once for each worker.
///
/// Workers share an address by `SO_REUSEPORT`, which would let a second gateway share it too,
/// unseen; so each address is first opened alone. Port 0 takes a free port, the same one for
/// all workers.
///
/// # Errors
/// The first address that cannot be opened; nothing stays open then.
pub(crate) fn open(
    bounds: &[Bound],
    workers: usize,
    setting: &str,
) -> Result<Vec<Listeners>, ListenError> {
    let mut all: Vec<Listeners> = (0..workers).map(|_| Vec::new()).collect();
    for bound in bounds {
        let options = ListenOptions {
            reuse_port: false,
            backlog: bound.backlog,
            ipv6_only: bound.ipv6_only,
            keepalive: bound.keepalive,
        };
        let setting = match bound.speaks {
            Speaks::Http => setting,
            Speaks::Streams | Speaks::Datagrams => "stream_listen in kong.conf",
        };
        let socket = |address, options| match bound.speaks {
            Speaks::Datagrams => {
                bind_datagrams(bound.id, address, setting, options).map(Socket::Udp)
            }
            _ => bind(bound.id, address, setting, options).map(Socket::Tcp),
        };
        let alone = socket(bound.address, options)?;
        let address = alone.local_addr().unwrap_or(bound.address);
        drop(alone);
        let opened = Bound {
            address,
            ..bound.clone()
        };
        let shared = ListenOptions {
            reuse_port: true,
            ..options
        };
        for listeners in &mut all {
            listeners.push((opened.clone(), socket(address, shared)?));
        }
    }
    Ok(all)
}
