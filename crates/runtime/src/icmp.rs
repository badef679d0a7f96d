//! ICMP and ICMPv6 echo: by an unprivileged socket where the kernel allows it, else by a raw one.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

const TRIES: u16 = 3;

/// Asks `address` for an echo, up to three times within `limit`; whether a reply came.
///
/// # Errors
/// This user may neither open an unprivileged ICMP socket nor a raw one.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn echo(address: IpAddr, limit: Duration) -> io::Result<bool> {
    // Blocking with a bound of its own: these sockets are rare, and few lines beat a driver.
    match tokio::task::spawn_blocking(move || blocking(address, limit)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::other("the echo was abandoned")),
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
        if socket.send(&request(v4, id, sequence, cookie)).is_err() {
            continue;
        }
        let until = std::time::Instant::now() + wait;
        while std::time::Instant::now() < until {
            let mut bytes = [0; 512];
            match io::Read::read(&mut &socket, &mut bytes) {
                Ok(count) if is_reply(v4, cookie, &bytes[..count]) => return Ok(true),
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

/// An echo request. The kernel fills in the checksum of ICMPv6, and the identifier of unprivileged
/// sockets.
pub fn request(v4: bool, id: u16, sequence: u16, cookie: [u8; 8]) -> Vec<u8> {
    let mut bytes = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(cookie);
    if v4 {
        let sum = checksum(&bytes).to_be_bytes();
        bytes[2..4].copy_from_slice(&sum);
    }
    bytes
}

/// Whether `bytes` are the reply to the request with `cookie`, with or without an IPv4 header.
pub fn is_reply(v4: bool, cookie: [u8; 8], bytes: &[u8]) -> bool {
    let icmp = match bytes.first() {
        // 0x45 and above is no ICMP type of ours: an IPv4 header, its length in words.
        Some(first) if v4 && first >> 4 == 4 => bytes.get(usize::from(first & 0x0f) * 4..),
        _ => Some(bytes),
    };
    let kind = if v4 { 0 } else { 129 };
    icmp.is_some_and(|it| it.first() == Some(&kind) && it.get(8..16) == Some(&cookie[..]))
}

fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]))
    });
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits above")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_sums_to_zero_and_its_reply_is_known() {
        let cookie = *b"sallyprt";
        let bytes = request(true, 7, 1, cookie);
        assert_eq!(checksum(&bytes), 0);
        let mut reply = bytes;
        assert!(!is_reply(true, cookie, &reply));
        reply[0] = 0;
        assert!(is_reply(true, cookie, &reply));
        let mut raw = vec![0x45; 20];
        raw.extend(&reply);
        assert!(is_reply(true, cookie, &raw));
        assert!(!is_reply(true, *b"anothers", &raw));
        let mut reply = request(false, 7, 1, cookie);
        reply[0] = 129;
        assert!(is_reply(false, cookie, &reply));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn hostile_bytes_never_panic(v4: bool, cookie: [u8; 8], bytes: Vec<u8>) {
            let _ = is_reply(v4, cookie, &bytes);
        }
    }
}
