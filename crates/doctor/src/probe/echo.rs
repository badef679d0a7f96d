//! ICMP echo: unprivileged socket, then raw socket, then at least a word from TCP.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::tcp;
use crate::seen::{End, Icmp};
use crate::wire::icmp;

const TRIES: u16 = 3;

pub(super) async fn echo(address: IpAddr, limit: Duration) -> Icmp {
    // Blocking with a bound of its own: these sockets are rare, and few lines beat a driver.
    let tried = tokio::task::spawn_blocking(move || blocking(address, limit)).await;
    match tried {
        Ok(Ok(true)) => Icmp::Reply,
        Ok(Ok(false)) => Icmp::Silent,
        Ok(Err(_)) | Err(_) => {
            let place = SocketAddr::new(address, 443);
            let tcp_answers = match tcp::connect(place, limit, None).await {
                Ok(_) => true,
                Err(end) => end == End::Refused,
            };
            Icmp::NoRight { tcp_answers }
        }
    }
}

/// Whether a reply came; an error if this user may not ask.
fn blocking(address: IpAddr, limit: Duration) -> io::Result<bool> {
    let v4 = address.is_ipv4();
    let (domain, protocol) = match v4 {
        true => (Domain::IPV4, Protocol::ICMPV4),
        false => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))
        .or_else(|_| Socket::new(domain, Type::RAW, Some(protocol)))?;
    let wait = (limit / u32::from(TRIES)).max(Duration::from_millis(50));
    socket.set_read_timeout(Some(wait))?;
    let mut cookie = [0; 8];
    let _ = getrandom::fill(&mut cookie); // replies are compared with it, no secret depends on it
    let id = u16::from_be_bytes([cookie[6], cookie[7]]);
    if let Err(error) = socket.connect(&SocketAddr::new(address, 0).into()) {
        return if is_answer(&error) {
            Ok(false)
        } else {
            Err(error)
        };
    }
    for sequence in 1..=TRIES {
        // An error is a router's word about an earlier try; the next one may fare better.
        if socket
            .send(&icmp::request(v4, id, sequence, cookie))
            .is_err()
        {
            continue;
        }
        let until = std::time::Instant::now() + wait;
        while std::time::Instant::now() < until {
            let mut bytes = [0; 512];
            match io::Read::read(&mut &socket, &mut bytes) {
                Ok(count) if icmp::is_reply(v4, cookie, &bytes[..count]) => return Ok(true),
                Ok(_) => {} // a raw socket hears everybody's
                Err(_) => break,
            }
        }
    }
    Ok(false)
}

fn is_answer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
    )
}
