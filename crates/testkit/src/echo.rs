//! An upstream that answers with what it was sent, and fails on demand.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::message::{Framing, read_body, read_head};
use crate::{Deadline, Headers};

/// A request as the upstream got it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The request target: path and query.
    pub path: String,
    /// The header lines as they came.
    pub headers: Headers,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
}

/// An HTTP/1.1 upstream on loopback; it stops when dropped.
///
/// Each request is answered with 200 (or [`Echo::answer_with`]) and JSON:
/// `{"method", "path", "headers": {"lower-case-name": ["value", …]}, "body", "upstream"}`, where
/// `upstream` is the port it listens on, so that balancing shows. Connections are kept alive.
pub struct Echo {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    count: AtomicUsize,
    connections: AtomicUsize,
    status: AtomicU16,
    delay_ms: AtomicU64,
    close_next: AtomicUsize,
    last: Mutex<Option<Seen>>,
    /// Open connections by number, so that stopping can end them.
    open: Mutex<Vec<(usize, TcpStream)>>,
}

impl Echo {
    /// Starts on a port that the system picks.
    ///
    /// # Panics
    /// When loopback cannot be bound.
    #[track_caller]
    pub fn start() -> Echo {
        Echo::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts on this address, as when an upstream comes back.
    ///
    /// # Panics
    /// When the address cannot be bound.
    #[track_caller]
    pub fn start_at(addr: SocketAddr) -> Echo {
        let listener = match TcpListener::bind(addr) {
            Ok(listener) => listener,
            Err(error) => panic!("the echo upstream could not bind {addr}: {error}"),
        };
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            status: AtomicU16::new(200),
            delay_ms: AtomicU64::new(0),
            close_next: AtomicUsize::new(0),
            last: Mutex::new(None),
            open: Mutex::new(Vec::new()),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, addr, &for_thread));
        Echo {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many requests it has read, answered or not.
    pub fn count(&self) -> usize {
        self.shared.count.load(Ordering::SeqCst)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The latest request it has read.
    pub fn last(&self) -> Option<Seen> {
        lock(&self.shared.last).clone()
    }

    /// Answers with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
    }

    /// Waits this long before each answer from now on.
    pub fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.shared.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// Reads each of the next `requests` requests and closes the connection without an answer.
    pub fn close_next(&self, requests: usize) {
        self.shared.close_next.store(requests, Ordering::SeqCst);
    }

    /// Closes all open connections, as an upstream does with idle ones; it goes on listening.
    pub fn close_connections(&self) {
        for (_, stream) in lock(&self.shared.open).iter() {
            _ = stream.shutdown(Shutdown::Both); // it may be closed already
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        _ = TcpStream::connect(self.addr); // wakes the acceptor; it may be gone
        if let Some(acceptor) = self.acceptor.take() {
            // Connection threads are ended below; a panic of theirs shows as a lost answer.
            _ = acceptor.join();
        }
        self.close_connections();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

fn accept(listener: &TcpListener, addr: SocketAddr, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(kept) = stream.try_clone() else {
            continue;
        };
        lock(&shared.open).push((number, kept));
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // A connection that breaks is the peer's to notice.
            _ = serve(&stream, addr, &shared);
            _ = stream.shutdown(Shutdown::Both);
            lock(&shared.open).retain(|(other, _)| *other != number);
        });
    }
}

fn serve(stream: &TcpStream, addr: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some((line, headers)) = read_head(&mut reader)? {
        if headers.has_word("expect", "100-continue") {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = read_body(&mut reader, Framing::of(&headers, Framing::Length(0))?)?;
        let mut words = line.split(' ').map(str::to_owned);
        let seen = Seen {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            headers,
            body,
        };
        let close = seen.headers.has_word("connection", "close") || line.ends_with("HTTP/1.0");
        let head_only = seen.method == "HEAD";
        let text = describe(&seen, addr).to_string();
        *lock(&shared.last) = Some(seen);
        shared.count.fetch_add(1, Ordering::SeqCst);
        if take_one(&shared.close_next) {
            return Ok(());
        }
        pause(shared);
        let status = shared.status.load(Ordering::SeqCst);
        let mut answer = format!(
            "HTTP/1.1 {status} Echo\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            text.len()
        );
        answer.push_str(if close {
            "Connection: close\r\n\r\n"
        } else {
            "\r\n"
        });
        if !head_only {
            answer.push_str(&text);
        }
        writer.write_all(answer.as_bytes())?;
        if close {
            return Ok(());
        }
    }
    Ok(())
}

fn describe(seen: &Seen, addr: SocketAddr) -> Value {
    let mut headers = serde_json::Map::new();
    for (name, value) in seen.headers.iter() {
        let values = headers
            .entry(name.to_ascii_lowercase())
            .or_insert_with(|| json!([]));
        values
            .as_array_mut()
            .expect("only arrays are put in")
            .push(value.into());
    }
    json!({
        "method": seen.method,
        "path": seen.path,
        "headers": headers,
        "body": String::from_utf8_lossy(&seen.body),
        "upstream": addr.port(),
    })
}

/// Takes one from the counter; `false` if there was none.
fn take_one(counter: &AtomicUsize) -> bool {
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

/// Waits for as long as answers are to be delayed, or until the upstream stops.
fn pause(shared: &Shared) {
    let deadline = Deadline::after(Duration::from_millis(
        shared.delay_ms.load(Ordering::SeqCst),
    ));
    while !deadline.passed() && !shared.stop.load(Ordering::SeqCst) {
        deadline.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{get, request};

    #[test]
    fn counts_and_remembers() {
        let echo = Echo::start();
        get(format!("{}/one", echo.url())).send().unwrap();
        request("POST", format!("{}/two", echo.url()))
            .body("b")
            .send()
            .unwrap();
        assert_eq!(echo.count(), 2);
        assert_eq!(echo.connections(), 2);
        let last = echo.last().unwrap();
        assert_eq!((last.method.as_str(), last.path.as_str()), ("POST", "/two"));
        assert_eq!(last.body, b"b");
    }

    #[test]
    fn keeps_a_connection_alive() {
        let echo = Echo::start();
        let mut stream = TcpStream::connect(echo.addr()).unwrap();
        for _ in 0..3 {
            let answer = get(echo.url()).keep_alive().send_over(&mut stream).unwrap();
            assert_eq!(answer.status, 200);
        }
        assert_eq!((echo.count(), echo.connections()), (3, 1));
    }

    #[test]
    fn fails_on_demand() {
        let echo = Echo::start();
        echo.close_next(1);
        let error = get(echo.url()).send().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        echo.answer_with(503);
        assert_eq!(get(echo.url()).send().unwrap().status, 503);
        echo.delay(Duration::from_secs(3600));
        let error = get(echo.url())
            .timeout(Duration::from_millis(30))
            .send()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn comes_back_at_the_same_address() {
        let echo = Echo::start();
        let addr = echo.addr();
        drop(echo);
        assert!(TcpStream::connect(addr).is_err());
        let echo = Echo::start_at(addr);
        assert_eq!(
            get(echo.url()).send().unwrap().json()["upstream"],
            addr.port()
        );
    }
}
