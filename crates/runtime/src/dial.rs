//! Outbound TCP connections, by contract id.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("cannot resolve {host:?} ({id}): {source}")]
    Resolve {
        /// The name that was asked for.
        host: String,
        /// Contract id of the connection.
        id: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address answered.
    #[error("cannot connect to {host}:{port} ({id}): {}", attempts(.tried))]
    Connect {
        /// The name that was asked for.
        host: String,
        /// The port.
        port: u16,
        /// Contract id of the connection.
        id: String,
        /// Every address that was tried and what came of it.
        tried: Vec<(SocketAddr, io::Error)>,
    },
    /// The time was over before an answer came from the resolver.
    #[error("cannot resolve {host:?} ({id}): no answer within {} ms", .limit.as_millis())]
    ResolveTimeout {
        /// The name that was asked for.
        host: String,
        /// Contract id of the connection.
        id: String,
        /// The time allowed.
        limit: Duration,
    },
}

fn attempts(tried: &[(SocketAddr, io::Error)]) -> String {
    if tried.is_empty() {
        return "the name has no address".to_owned();
    }
    let one = |(addr, error): &(SocketAddr, io::Error)| match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{addr} refused, nothing listens there"),
        io::ErrorKind::TimedOut => format!("{addr} did not answer in time"),
        _ => format!("{addr}: {error}"),
    };
    tried.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Connects to the first address of `host` that answers, within `limit` altogether.
///
/// Addresses are tried in the resolver's order, each with an equal share of the time left.
/// `TCP_NODELAY` is set. `host` is a name or an address without brackets.
///
/// # Errors
/// No address, or none that answers; the error lists each attempt.
///
/// # Panics
/// If `id` is not in the contract.
pub async fn dial(
    id: &str,
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    let id = sallyport_contract::entry(id).id.as_str().to_owned();
    let deadline = Instant::now() + limit;
    let host = host.to_owned();
    let resolved = timeout_at(deadline, lookup_host((host.clone(), port))).await;
    let addrs: Vec<SocketAddr> = match resolved {
        Ok(Ok(addrs)) => addrs.collect(),
        Ok(Err(source)) => return Err(DialError::Resolve { host, id, source }),
        Err(_) => return Err(DialError::ResolveTimeout { host, id, limit }),
    };
    let mut tried = Vec::new();
    for (at, addr) in addrs.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addrs.len() - at).unwrap_or(u32::MAX);
        let until = now + deadline.saturating_duration_since(now) / left;
        match timeout_at(until, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => {
                // Failing to set it costs latency only.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => tried.push((*addr, error)),
            Err(_) => tried.push((*addr, io::ErrorKind::TimedOut.into())),
        }
    }
    Err(DialError::Connect {
        host,
        port,
        id,
        tried,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ListenOptions, listen};

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn reaches_a_listener() {
        let addr = "127.0.0.1:0".parse().unwrap();
        let listener =
            listen("proxy.http", addr, "proxy_listen", ListenOptions::default()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (dialled, accepted) = tokio::join!(
            dial("upstream", "127.0.0.1", port, LIMIT),
            listener.accept()
        );
        assert_eq!(dialled.unwrap().local_addr().unwrap(), accepted.unwrap().1);
    }

    #[tokio::test]
    async fn a_refusal_names_address_and_id() {
        let addr = "127.0.0.1:0".parse().unwrap();
        let listener =
            listen("proxy.http", addr, "proxy_listen", ListenOptions::default()).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = dial("config_sync", "127.0.0.1", port, LIMIT)
            .await
            .unwrap_err()
            .to_string();
        for part in [
            &format!("127.0.0.1:{port}"),
            "(config_sync)",
            "nothing listens",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
