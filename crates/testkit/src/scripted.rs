//! An upstream that does with each connection what a test wants, and keeps what it was sent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a connection may be silent before its script gives up on it.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A server on loopback whose every connection runs a script; it stops when dropped.
///
/// ```no_run
/// let upstream = sallyport_testkit::Scripted::start(|peer| {
///     peer.head()?;
///     peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab") // and closes
/// });
/// ```
pub struct Scripted {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
    received: Mutex<Vec<u8>>,
    open: Mutex<Vec<(usize, TcpStream)>>,
}

/// One connection, as its script sees it.
pub struct Peer {
    stream: TcpStream,
    shared: Arc<Shared>,
    /// What came and no script asked for.
    ahead: Vec<u8>,
    /// Which connection of the server it is, from 0.
    pub number: usize,
}

impl Scripted {
    /// Starts on a port that the system picks. A script that ends closes its connection; its
    /// error is the peer's to notice.
    ///
    /// # Panics
    /// When loopback cannot be bound.
    #[track_caller]
    pub fn start(script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Scripted {
        let listener = match TcpListener::bind("127.0.0.1:0") {
            Ok(listener) => listener,
            Err(error) => panic!("the scripted upstream could not bind loopback: {error}"),
        };
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        let script = Arc::new(script);
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = for_thread.connections.fetch_add(1, Ordering::SeqCst);
                let Ok(kept) = stream.try_clone() else {
                    continue;
                };
                lock(&for_thread.open).push((number, kept));
                let (shared, script) = (for_thread.clone(), script.clone());
                std::thread::spawn(move || {
                    _ = stream.set_nodelay(true);
                    _ = stream.set_read_timeout(Some(SILENCE_MAX));
                    _ = stream.set_write_timeout(Some(SILENCE_MAX));
                    let mut peer = Peer {
                        stream,
                        shared,
                        ahead: Vec::new(),
                        number,
                    };
                    _ = script(&mut peer);
                    lock(&peer.shared.open).retain(|(other, _)| *other != number);
                });
            }
        });
        Scripted {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// One that answers each request with 200 and the body `ok`, and keeps its connections.
    #[track_caller]
    pub fn recorder() -> Scripted {
        Scripted::start(|peer| {
            loop {
                peer.request()?;
                peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub fn open(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// All bytes that came, since this was asked last; those of connections at the same time mix.
    pub fn take_received(&self) -> Vec<u8> {
        std::mem::take(&mut *lock(&self.shared.received))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        _ = TcpStream::connect(self.addr); // wakes the acceptor; it may be gone
        if let Some(acceptor) = self.acceptor.take() {
            _ = acceptor.join();
        }
        for (_, stream) in lock(&self.shared.open).iter() {
            _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Peer {
    fn fill(&mut self) -> io::Result<usize> {
        let mut part = [0; 16 * 1024];
        let length = self.stream.read(&mut part)?;
        self.ahead.extend_from_slice(&part[..length]);
        lock(&self.shared.received).extend_from_slice(&part[..length]);
        Ok(length)
    }

    /// Reads up to and with `end`; returns all of it.
    ///
    /// # Errors
    /// The peer closed or fell silent before.
    pub fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            let found = self.ahead.windows(end.len()).position(|at| at == end);
            if let Some(at) = found {
                return Ok(self.ahead.drain(..at + end.len()).collect());
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads a request head, up to the empty line.
    ///
    /// # Errors
    /// The peer closed or fell silent before.
    pub fn head(&mut self) -> io::Result<Vec<u8>> {
        self.until(b"\r\n\r\n")
    }

    /// Reads this many bytes.
    ///
    /// # Errors
    /// The peer closed or fell silent before.
    pub fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < length {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..length).collect())
    }

    /// Reads a head and its body, whose framing it believes; returns the head.
    ///
    /// # Errors
    /// The peer closed or fell silent before.
    pub fn request(&mut self) -> io::Result<Vec<u8>> {
        let head = self.head()?;
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        if text.contains("\r\ntransfer-encoding: chunked\r\n") {
            loop {
                let line = self.until(b"\r\n")?;
                let size = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
                let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
                match size {
                    0 => break,
                    size => _ = self.bytes(size + 2)?,
                }
            }
            while self.until(b"\r\n")? != b"\r\n" {}
        } else if let Some((_, rest)) = text.split_once("\r\ncontent-length: ") {
            let digits = rest.split("\r\n").next().unwrap_or_default();
            self.bytes(digits.parse().map_err(io::Error::other)?)?;
        }
        Ok(head)
    }

    /// Waits until the peer closes; what comes until then is read.
    ///
    /// # Errors
    /// The connection failed, or fell silent.
    pub fn closed(&mut self) -> io::Result<()> {
        while self.fill()? > 0 {
            self.ahead.clear();
        }
        Ok(())
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection failed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Makes the end of the connection a reset instead of a close.
    ///
    /// # Errors
    /// The system refuses.
    pub fn reset(&mut self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{get, request};

    #[test]
    fn records_what_it_is_sent() {
        let upstream = Scripted::recorder();
        let answer = request("POST", format!("{}/a", upstream.url())).body("xyz");
        assert_eq!(answer.send().unwrap().text(), "ok");
        let received = String::from_utf8(upstream.take_received()).unwrap();
        assert!(received.starts_with("POST /a HTTP/1.1\r\n"), "{received}");
        assert!(received.ends_with("\r\n\r\nxyz"), "{received}");
        assert!(upstream.take_received().is_empty());
        assert_eq!(upstream.connections(), 1);
    }

    #[test]
    fn a_script_may_break_off() {
        let upstream = Scripted::start(|peer| {
            peer.head()?;
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        });
        let error = get(upstream.url()).send().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    }
}
