//! UDP: a question where an answer is defined, else an empty datagram that may be refused.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::tcp;
use crate::check::Talk;
use crate::listen::GREETING;
use crate::seen::{Answer, End};
use crate::wire::{dns, ntp, printable};

/// Datagrams get lost now and then.
const TRIES: u32 = 3;

pub(super) async fn ask(talk: &Talk, address: SocketAddr, limit: Duration) -> End {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random); // answers are compared with it, no secret depends on it
    let id = u16::from_be_bytes([random[0], random[1]]);
    let question = match talk {
        Talk::Dns(name) => dns::question(id, name).unwrap_or_default(),
        Talk::Ntp => ntp::request(random).to_vec(),
        // Receivers without answers (the audit log) get nothing that they could take for a record.
        _ => Vec::new(),
    };
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let open = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        Ok::<_, io::Error>(socket)
    };
    let socket = match open.await {
        Ok(socket) => socket,
        Err(error) => return tcp::end(&error),
    };
    for _ in 0..TRIES {
        let mut bytes = [0; 2048];
        let exchange = async {
            socket.send(&question).await?;
            socket.recv(&mut bytes).await
        };
        match timeout(limit / TRIES, exchange).await {
            Err(_) => {}
            Ok(Ok(count)) => return End::Answered(understand(talk, &bytes[..count], id, random)),
            Ok(Err(error)) => return tcp::end(&error),
        }
    }
    match talk {
        Talk::Dns(_) | Talk::Ntp => End::Silent,
        _ => End::Sent,
    }
}

fn understand(talk: &Talk, bytes: &[u8], id: u16, cookie: [u8; 8]) -> Answer {
    if bytes.starts_with(GREETING) {
        return Answer::Doctor;
    }
    let known = match talk {
        Talk::Dns(_) => dns::response_code(id, bytes).map(Answer::Dns),
        Talk::Ntp => ntp::unix_secs(cookie, bytes).map(|theirs| {
            let now = SystemTime::UNIX_EPOCH
                .elapsed()
                .map_or(0, |it| it.as_secs());
            Answer::Time(theirs - i64::try_from(now).unwrap_or(i64::MAX))
        }),
        _ => None,
    };
    known.unwrap_or_else(|| Answer::Garbage(printable(bytes)))
}
