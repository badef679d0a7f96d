//! The sockets that clients connect to, one set for each worker.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::ServerConfig;
use sallyport_runtime::listen::{ListenError, ListenOptions, bind};

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
}

/// The sockets of one worker.
pub(crate) type Listeners = Vec<(Bound, TcpListener)>;

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
        };
        let alone = bind(bound.id, bound.address, setting, options)?;
        let address = alone.local_addr().unwrap_or(bound.address);
        drop(alone);
        let bound = Bound {
            address,
            ..bound.clone()
        };
        let shared = ListenOptions {
            reuse_port: true,
            ..options
        };
        for listeners in &mut all {
            let listener = bind(bound.id, bound.address, setting, shared)?;
            listeners.push((bound.clone(), listener));
        }
    }
    Ok(all)
}
