//! A name server that says what a test wants, the truth or not.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the threads look whether they should end.
const TICK: Duration = Duration::from_millis(20);

/// What the server does when it is asked for a name and a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsAnswer {
    /// These records.
    Records(Vec<DnsRecord>),
    /// The name exists and has nothing of this type.
    Empty,
    /// There is no such name.
    NxDomain,
    /// The server has failed.
    ServFail,
    /// It does not want to answer.
    Refused,
    /// Over UDP only that it does not fit; the records over TCP.
    Truncated(Vec<DnsRecord>),
    /// Nothing.
    Silent,
    /// Bytes that are no DNS message.
    Garbage,
}

/// A record: seconds to live, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRecord {
    /// Seconds to live.
    pub ttl: u32,
    /// What it says.
    pub data: DnsData,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsData {
    /// A or AAAA.
    Ip(IpAddr),
    /// CNAME.
    Cname(String),
    /// SRV.
    Srv {
        /// Lower ones come first.
        priority: u16,
        /// Share among equals.
        weight: u16,
        /// Where it listens.
        port: u16,
        /// Who has the address.
        target: String,
    },
}

impl DnsRecord {
    /// A or AAAA with this time to live.
    ///
    /// # Panics
    /// If `ip` is no address.
    #[track_caller]
    pub fn ip(ttl: u32, ip: &str) -> DnsRecord {
        let ip = ip.parse().expect("an address");
        DnsRecord {
            ttl,
            data: DnsData::Ip(ip),
        }
    }
}

/// A name server on loopback, UDP and TCP on one port; it stops when dropped.
///
/// What it was not told about does not exist (`NXDOMAIN`).
pub struct Dns {
    addr: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answers: Mutex<HashMap<(String, u16), DnsAnswer>>,
    asked: Mutex<Vec<(String, u16)>>,
}

/// The number of a type: `A`, `AAAA`, `SRV`, `CNAME`.
fn number(kind: &str) -> u16 {
    match kind {
        "A" => 1,
        "CNAME" => 5,
        "AAAA" => 28,
        "SRV" => 33,
        other => panic!("{other} is not a type this server knows"),
    }
}

impl Dns {
    /// Starts on a port that the system picks.
    ///
    /// # Panics
    /// When loopback has no port that is free for both UDP and TCP.
    #[track_caller]
    pub fn start() -> Dns {
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let tcp = TcpListener::bind("127.0.0.1:0").ok()?;
                let udp = UdpSocket::bind(tcp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .expect("a port for UDP and TCP");
        let addr = tcp.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let of_udp = shared.clone();
        let of_tcp = shared.clone();
        udp.set_read_timeout(Some(TICK)).expect("a timeout is set");
        tcp.set_nonblocking(true).expect("a socket can be polled");
        let threads = vec![
            std::thread::spawn(move || serve_udp(&udp, &of_udp)),
            std::thread::spawn(move || serve_tcp(&tcp, &of_tcp)),
        ];
        Dns {
            addr,
            shared,
            threads,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on, says this when it is asked for `kind` (`A`, `AAAA`, `SRV`, `CNAME`) of `name`.
    ///
    /// # Panics
    /// If `kind` is another one.
    #[track_caller]
    pub fn set(&self, name: &str, kind: &str, answer: DnsAnswer) {
        let key = (name.to_ascii_lowercase(), number(kind));
        lock(&self.shared.answers).insert(key, answer);
    }

    /// From now on, gives these addresses for A questions, with this time to live.
    #[track_caller]
    pub fn set_a(&self, name: &str, ttl: u32, ips: &[&str]) {
        let records = ips.iter().map(|ip| DnsRecord::ip(ttl, ip)).collect();
        self.set(name, "A", DnsAnswer::Records(records));
    }

    /// How often it was asked for `kind` of `name`.
    ///
    /// # Panics
    /// If `kind` is unknown.
    #[track_caller]
    pub fn asked(&self, name: &str, kind: &str) -> usize {
        let key = (name.to_ascii_lowercase(), number(kind));
        lock(&self.shared.asked)
            .iter()
            .filter(|asked| **asked == key)
            .count()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    let mut question = [0; 1500];
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut question) else {
            continue;
        };
        if let Some(answer) = shared.answer(&question[..length], false) {
            _ = socket.send_to(&answer, peer);
        }
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => _ = serve_stream(stream, shared),
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

/// One question per connection: nobody here asks for more.
fn serve_stream(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut question)?;
    if let Some(answer) = shared.answer(&question, true) {
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&answer)?;
    }
    Ok(())
}

impl Shared {
    fn answer(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let (name, kind, end) = parse(question)?;
        let key = (name.to_ascii_lowercase(), kind);
        lock(&self.asked).push(key.clone());
        let answer = lock(&self.answers).get(&key).cloned();
        let (truncated, code, records) = match answer.unwrap_or(DnsAnswer::NxDomain) {
            DnsAnswer::Records(records) => (false, 0, records),
            DnsAnswer::Truncated(records) if tcp => (false, 0, records),
            DnsAnswer::Truncated(_) => (true, 0, Vec::new()),
            DnsAnswer::Empty => (false, 0, Vec::new()),
            DnsAnswer::ServFail => (false, 2, Vec::new()),
            DnsAnswer::NxDomain => (false, 3, Vec::new()),
            DnsAnswer::Refused => (false, 5, Vec::new()),
            DnsAnswer::Silent => return None,
            DnsAnswer::Garbage => return Some(b"\x01garbage".to_vec()),
        };
        let mut message = Vec::new();
        message.extend_from_slice(&question[..2]);
        // an answer; recursion was desired and is available
        let flags = 0x8180 | (u16::from(truncated) << 9) | code;
        for word in [flags, 1, records.len() as u16, 0, 0] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&question[12..end]);
        for record in &records {
            write_record(&mut message, record);
        }
        Some(message)
    }
}

/// Name, type, and where the question ends.
fn parse(message: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).into_owned());
        at += length;
    }
    let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
    message.get(at + 4 - 1)?;
    Some((labels.join("."), kind, at + 4))
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

fn write_record(out: &mut Vec<u8>, record: &DnsRecord) {
    let (kind, data) = match &record.data {
        DnsData::Ip(IpAddr::V4(ip)) => (1_u16, ip.octets().to_vec()),
        DnsData::Ip(IpAddr::V6(ip)) => (28, ip.octets().to_vec()),
        DnsData::Cname(target) => {
            let mut data = Vec::new();
            write_name(&mut data, target);
            (5, data)
        }
        DnsData::Srv {
            priority,
            weight,
            port,
            target,
        } => {
            let words = [*priority, *weight, *port];
            let mut data: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            write_name(&mut data, target);
            (33, data)
        }
    };
    out.extend_from_slice(&[0xC0, 12]); // the name of the question
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&1_u16.to_be_bytes());
    out.extend_from_slice(&record.ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(&data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_with_what_was_set() {
        let dns = Dns::start();
        dns.set_a("a.test", 5, &["10.0.0.1"]);
        let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        write_name(&mut question, "A.test");
        question.extend_from_slice(&[0, 1, 0, 1]);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket.send_to(&question, dns.addr()).unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).unwrap();
        assert_eq!(answer[..4], [7, 7, 0x81, 0x80]);
        assert_eq!(answer[length - 10..length], [0, 0, 0, 5, 0, 4, 10, 0, 0, 1]);
        assert_eq!(dns.asked("a.test", "A"), 1);
    }
}
