//! TCP listeners, by contract id.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// How a listening socket is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Several sockets share the address and the kernel spreads connections over them
    /// (`SO_REUSEPORT`). Every socket on the address must ask for it.
    pub reuse_port: bool,
    /// Connections the kernel holds until they are accepted; the system's own limit
    /// (`net.core.somaxconn`) applies as well.
    pub backlog: u32,
    /// For an IPv6 address: whether IPv4 is kept out. `None` keeps it out, as nginx does.
    pub ipv6_only: Option<bool>,
    /// Whether accepted connections are probed when they are silent; `None` leaves that to the
    /// system.
    pub keepalive: Option<Keepalive>,
}

/// TCP keepalive; what is `None` is left to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Whether there are probes.
    pub on: bool,
    /// Silence before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Lost probes after which a connection is dead.
    pub count: Option<u32>,
}

impl Keepalive {
    /// No probes.
    pub const OFF: Keepalive = Keepalive {
        on: false,
        idle: None,
        interval: None,
        count: None,
    };

    /// Linux passes the options of a listening socket on to what it accepts.
    fn apply(self, socket: &Socket) -> io::Result<()> {
        socket.set_keepalive(self.on)?;
        if !self.on {
            return Ok(());
        }
        let mut times = TcpKeepalive::new();
        if let Some(idle) = self.idle {
            times = times.with_time(idle);
        }
        if let Some(interval) = self.interval {
            times = times.with_interval(interval);
        }
        if let Some(count) = self.count {
            times = times.with_retries(count);
        }
        socket.set_tcp_keepalive(&times)
    }
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            reuse_port: false,
            backlog: 1024,
            ipv6_only: None,
            keepalive: None,
        }
    }
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} ({id}): {}; setting: {setting}", reason(.cause, *.addr))]
pub struct ListenError {
    /// The address that was asked for.
    pub addr: SocketAddr,
    /// Contract id of the listener.
    pub id: String,
    /// The setting that changes the address.
    pub setting: String,
    /// What the system said.
    pub cause: io::Error,
}

fn reason(error: &io::Error, addr: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {} is already in use by another program (or a second copy of this one)",
            addr.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no address {}", addr.ip())
        }
        io::ErrorKind::PermissionDenied if addr.port() < 1024 => format!(
            "ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE), port {} too",
            addr.port()
        ),
        _ => error.to_string(),
    }
}

/// Opens a non-blocking listener on `addr` without needing a runtime.
///
/// This is for thread-per-core roles, which open the sockets first and hand each to a thread's
/// own runtime (`TcpListener::from_std`). Port 0 takes a free port. `setting` names what the
/// operator changes to get another address, such as `proxy_listen in kong.conf`.
///
/// # Errors
/// Whatever the system refuses, with address, contract id and setting.
///
/// # Panics
/// If `id` is not in the contract.
pub fn bind(
    id: &str,
    addr: SocketAddr,
    setting: &str,
    options: ListenOptions,
) -> Result<std::net::TcpListener, ListenError> {
    let id = sallyport_contract::entry(id).id.as_str();
    open(addr, options).map_err(|cause| ListenError {
        addr,
        id: id.to_owned(),
        setting: setting.to_owned(),
        cause,
    })
}

/// As [`bind`], ready for the current tokio runtime.
///
/// # Errors
/// As [`bind`].
///
/// # Panics
/// If `id` is not in the contract, or outside a tokio runtime.
pub fn listen(
    id: &str,
    addr: SocketAddr,
    setting: &str,
    options: ListenOptions,
) -> Result<TcpListener, ListenError> {
    let listener = bind(id, addr, setting, options)?;
    TcpListener::from_std(listener).map_err(|cause| ListenError {
        addr,
        id: id.to_owned(),
        setting: setting.to_owned(),
        cause,
    })
}

fn open(addr: SocketAddr, options: ListenOptions) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.ipv6_only.unwrap_or(true))?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if let Some(keepalive) = options.keepalive {
        keepalive.apply(&socket)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_port_in_use_is_named_with_its_setting() {
        let first = bind(
            "proxy.http",
            LOOPBACK,
            "proxy_listen",
            ListenOptions::default(),
        )
        .unwrap();
        let addr = first.local_addr().unwrap();
        let error = bind("status", addr, "status_listen", ListenOptions::default())
            .unwrap_err()
            .to_string();
        for part in [
            &addr.to_string(),
            "(status)",
            "already in use",
            "status_listen",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn sockets_share_a_port_only_if_asked() {
        let share = ListenOptions {
            reuse_port: true,
            ..ListenOptions::default()
        };
        let first = bind("proxy.http", LOOPBACK, "proxy_listen", share).unwrap();
        let addr = first.local_addr().unwrap();
        bind("proxy.http", addr, "proxy_listen", share).unwrap();
        bind("proxy.http", addr, "proxy_listen", ListenOptions::default()).unwrap_err();
    }

    #[test]
    fn a_foreign_address_is_explained() {
        let addr = "192.0.2.1:0".parse().unwrap();
        let error = bind("proxy.http", addr, "proxy_listen", ListenOptions::default()).unwrap_err();
        assert!(
            error.to_string().contains("no address 192.0.2.1"),
            "{error}"
        );
    }

    #[test]
    #[should_panic(expected = "nonsense")]
    fn an_id_outside_the_contract_is_a_bug() {
        let _ = bind("nonsense", LOOPBACK, "x", ListenOptions::default());
    }
}
