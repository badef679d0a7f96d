//! The far side of a check before the product is installed: opens the ports of a role and greets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sallyport_contract::{
    Catalogue, Filter, Flow, Installation, InstallationError, PortUse, Role, Transport,
    installation_rows,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What the listener says to everybody; the doctor knows it by this.
pub const GREETING: &[u8] = b"SALLYPORT-DOCTOR/1 the way is open\r\n";

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// How long a guest may stay.
const STAY_MAX: Duration = Duration::from_secs(3);

/// The ports on which machines of `roles` accept, each with the contract ids behind it.
///
/// # Errors
/// A description that contradicts the catalogue.
pub fn inbound(
    catalogue: &Catalogue,
    installation: &Installation,
    roles: &[Role],
) -> Result<Vec<(PortUse, Vec<String>)>, InstallationError> {
    let mut ports: Vec<(PortUse, Vec<String>)> = Vec::new();
    for row in installation_rows(catalogue, installation, &Filter::default())? {
        let bound = !row.entry.loopback || installation.exposed.contains(row.entry.id.as_str());
        if !bound || !row.to.iter().any(|role| roles.contains(role)) {
            continue;
        }
        for flow in &row.flows {
            let Flow::Port(port) = flow else { continue };
            let id = row.entry.id.to_string();
            match ports.iter_mut().find(|(have, _)| have == port) {
                Some((_, ids)) => ids.push(id),
                None => ports.push((*port, vec![id])),
            }
        }
    }
    Ok(ports)
}

/// Ports could not be opened; the others were not opened either.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {port} ({ids}): {source}")]
pub struct ListeningError {
    /// The port.
    pub port: PortUse,
    /// Contract ids behind it.
    pub ids: String,
    /// What the system said.
    pub source: io::Error,
}

/// Open sockets that are not served yet.
#[derive(Debug)]
pub struct Listening {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

/// Opens `ports` on `address`, or on all addresses of both families.
///
/// # Errors
/// See [`ListeningError`]; a port in use means that the product (or another program) runs already.
pub fn listen(
    ports: &[(PortUse, Vec<String>)],
    address: Option<IpAddr>,
) -> Result<Listening, ListeningError> {
    let mut listening = Listening {
        tcp: Vec::new(),
        udp: Vec::new(),
    };
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let addresses: Vec<IpAddr> = match address {
        Some(address) => vec![address],
        None => any.to_vec(),
    };
    for (port, ids) in ports {
        for &ip in &addresses {
            let place = SocketAddr::new(ip, port.port.get());
            let opened = match port.transport {
                Transport::Tcp => tcp(place).map(|it| listening.tcp.push(it)),
                Transport::Udp => udp(place).map(|it| listening.udp.push(it)),
            };
            match opened {
                // A machine without IPv6.
                Err(error) if address.is_none() && ip.is_ipv6() && lacks_family(&error) => {}
                Err(source) => {
                    let ids = ids.join(", ");
                    return Err(ListeningError {
                        port: *port,
                        ids,
                        source,
                    });
                }
                Ok(()) => {}
            }
        }
    }
    Ok(listening)
}

fn lacks_family(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, Unsupported};
    matches!(error.kind(), AddrNotAvailable | Unsupported) || error.raw_os_error() == Some(97)
}

fn socket(place: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(place), kind, Some(protocol))?;
    if place.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&place.into())?;
    Ok(socket)
}

fn tcp(place: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(place, Type::STREAM, Protocol::TCP)?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

fn udp(place: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::from_std(socket(place, Type::DGRAM, Protocol::UDP)?.into())
}

impl Listening {
    /// Greets everybody until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        for listener in self.tcp {
            tasks.spawn(accept(listener, Arc::clone(&room), stop.clone()));
        }
        for socket in self.udp {
            tasks.spawn(echo(socket, stop.clone()));
        }
        while tasks.join_next().await.is_some() {}
    }
}

async fn accept(listener: TcpListener, room: Arc<Semaphore>, stop: CancellationToken) {
    let mut guests = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = guests.join_next() => {}
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                (listener.accept().await, permit)
            } => match accepted {
                (Ok((stream, _)), permit) => {
                    guests.spawn(async move {
                        greet(stream).await;
                        drop(permit);
                    });
                }
                // Mostly "too many open files", which is as true a moment later.
                (Err(_), _) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
    guests.shutdown().await;
}

/// Greets, then reads what the guest says until it leaves: closing with unread bytes would reset the
/// connection, and the guest might never see the greeting.
async fn greet(mut stream: TcpStream) {
    let visit = async {
        stream.write_all(GREETING).await?;
        stream.shutdown().await?;
        let mut bytes = [0; 4096];
        while stream.read(&mut bytes).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    // Neither a guest that leaves early nor one that stays too long is of interest.
    let _ = timeout(STAY_MAX, visit).await;
}

/// Answers datagrams. The answer is short, so that forged senders gain nothing by it.
async fn echo(socket: UdpSocket, stop: CancellationToken) {
    let mut bytes = [0; 2048];
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut bytes) => {
                // A refusal of an earlier answer is reported here; it concerns nobody.
                if let Ok((_, peer)) = received {
                    let _ = socket.send_to(GREETING, peer).await;
                }
            }
        }
    }
}
