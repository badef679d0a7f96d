//! A TCP proxy on loopback between two programs, which breaks their connections on demand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What happens to bytes, in both directions unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    None,
    /// They pass this much later.
    Delay(Duration),
    /// They go nowhere, and neither side hears of it: a cable is out.
    Silent,
    /// Open connections are reset, and new ones as soon as they come.
    Cut,
    /// So many more bytes reach the client, then its connection ends.
    Truncate(usize),
    /// The client gets so many bytes in a piece, and a pause of 5 ms after each.
    Slow(usize),
}

/// The proxy; it ends, with all connections, when it is dropped.
pub struct FaultProxy {
    port: u16,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

struct State {
    fault: Mutex<Fault>,
    /// Grows with each change of the fault.
    stop: AtomicBool,
    accepted: AtomicUsize,
    open: Mutex<Vec<Open>>,
    /// Connections with smaller numbers are [late](FaultProxy::hold).
    late_below: AtomicUsize,
    released: AtomicBool,
}

/// One end of a connection.
struct Open {
    number: usize,
    is_client: bool,
    stream: TcpStream,
}

/// How often a thread looks whether something has changed.
const LOOK: Duration = Duration::from_millis(20);
/// Connections at once; a test has a handful.
const OPEN_MAX: usize = 256;

impl FaultProxy {
    /// A proxy to a port of this machine, without a fault.
    ///
    /// # Panics
    /// If this machine gives no port.
    #[must_use]
    pub fn start(to: u16) -> FaultProxy {
        FaultProxy::start_to(SocketAddr::from((Ipv4Addr::LOCALHOST, to)))
    }

    /// A proxy to any address, without a fault.
    ///
    /// # Panics
    /// If this machine gives no port.
    #[must_use]
    pub fn start_to(to: SocketAddr) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        listener
            .set_nonblocking(true)
            .expect("a listener can be asked without waiting");
        let state = Arc::new(State {
            fault: Mutex::new(Fault::None),
            stop: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            open: Mutex::default(),
            late_below: AtomicUsize::new(0),
            released: AtomicBool::new(false),
        });
        let own = state.clone();
        let accepting = std::thread::spawn(move || accept(&listener, to, &own));
        FaultProxy {
            port,
            state,
            accepting: Some(accepting),
        }
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// From now on, for open connections too.
    pub fn set(&self, fault: Fault) {
        *lock(&self.state.fault) = fault;
        if fault == Fault::Cut {
            self.state.cut();
        }
    }

    /// Ends all open connections; new ones are as before.
    pub fn reset(&self) {
        self.state.cut();
    }

    /// What clients of open connections send from now on is on its way for long. New connections
    /// are as before, so that they overtake these.
    pub fn hold(&self) {
        let state = &self.state;
        state.released.store(false, Ordering::SeqCst);
        let next = state.accepted.load(Ordering::SeqCst);
        state.late_below.store(next, Ordering::SeqCst);
    }

    /// Resets the connections that are [held](FaultProxy::hold) for their clients; the server does
    /// not hear of it.
    pub fn part(&self) {
        for open in &*lock(&self.state.open) {
            if open.is_client && self.state.is_late(open.number) {
                _ = open.stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// The server gets what was [held](FaultProxy::hold), and then the end of those connections.
    pub fn release(&self) {
        self.state.released.store(true, Ordering::SeqCst);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        self.state.cut();
        if let Some(accepting) = self.accepting.take() {
            _ = accepting.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn cut(&self) {
        for open in lock(&self.open).drain(..) {
            _ = open.stream.shutdown(Shutdown::Both);
        }
    }

    fn is_late(&self, number: usize) -> bool {
        number < self.late_below.load(Ordering::SeqCst)
    }

    /// Waits until what was held may go on; `false` if the proxy ends before.
    fn wait_for_release(&self) -> bool {
        while !self.released.load(Ordering::SeqCst) {
            if self.stopped() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn fault(&self) -> Fault {
        *lock(&self.fault)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, state: &Arc<State>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !state.stopped() {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(LOOK);
            continue;
        };
        let number = state.accepted.fetch_add(1, Ordering::SeqCst);
        threads.retain(|thread| !thread.is_finished());
        if state.fault() == Fault::Cut || threads.len() >= 2 * OPEN_MAX {
            continue; // dropped
        }
        let Ok(server) = TcpStream::connect(to) else {
            continue;
        };
        let mut ends = Vec::new();
        for (stream, is_client) in [(&client, true), (&server, false)] {
            _ = stream.set_nonblocking(false);
            _ = stream.set_nodelay(true);
            _ = stream.set_read_timeout(Some(LOOK));
            _ = stream.set_write_timeout(Some(Duration::from_secs(10)));
            ends.extend(stream.try_clone());
            lock(&state.open).extend(stream.try_clone().map(|stream| Open {
                number,
                is_client,
                stream,
            }));
        }
        let [other_client, other_server] = ends.try_into().unwrap_or_else(|_| {
            panic!("a socket can be cloned");
        });
        let (up, down) = (state.clone(), state.clone());
        threads.push(std::thread::spawn(move || {
            pass((client, server), false, number, &up);
        }));
        threads.push(std::thread::spawn(move || {
            pass((other_server, other_client), true, number, &down);
        }));
    }
    for thread in threads {
        _ = thread.join();
    }
}

/// Passes bytes on until either side ends.
fn pass((mut from, mut to): (TcpStream, TcpStream), to_client: bool, number: usize, state: &State) {
    let mut buffer = vec![0; 64 * 1024];
    let mut truncated = 0;
    let mut held = Vec::new();
    while !state.stopped() {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => break,
        };
        let bytes = &buffer[..read];
        if state.is_late(number) {
            match to_client {
                true => _ = to.write_all(bytes), // it may be gone
                false => held.extend_from_slice(bytes),
            }
            continue;
        }
        let written = match state.fault() {
            Fault::None => to.write_all(bytes),
            Fault::Delay(delay) => {
                std::thread::sleep(delay);
                to.write_all(bytes)
            }
            Fault::Silent => Ok(()),
            Fault::Cut => break,
            Fault::Truncate(limit) if to_client => {
                let left = limit.saturating_sub(truncated).min(read);
                truncated += left;
                _ = to.write_all(&bytes[..left]);
                if truncated >= limit {
                    break;
                }
                Ok(())
            }
            Fault::Slow(piece) if to_client => bytes.chunks(piece.max(1)).try_for_each(|piece| {
                std::thread::sleep(Duration::from_millis(5));
                to.write_all(piece)
            }),
            Fault::Truncate(_) | Fault::Slow(_) => to.write_all(bytes),
        };
        if written.is_err() {
            break;
        }
    }
    if state.is_late(number) && !to_client && state.wait_for_release() {
        _ = to.write_all(&held);
    }
    _ = from.shutdown(Shutdown::Both);
    _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends what it gets back in capitals.
    fn server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(8) {
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut bytes = [0; 100];
                    while let Ok(read @ 1..) = stream.read(&mut bytes) {
                        bytes[..read].make_ascii_uppercase();
                        if stream.write_all(&bytes[..read]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        port
    }

    fn exchange(proxy: &FaultProxy) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(b"hello").ok()?;
        let mut bytes = [0; 5];
        let mut read = 0;
        while read < 5 {
            match stream.read(&mut bytes[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(_) => return None,
            }
        }
        Some(bytes[..read].to_vec())
    }

    #[test]
    fn what_is_held_arrives_after_what_overtook_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap().port());
        let (old, mut old_end) = (
            TcpStream::connect(("127.0.0.1", proxy.port())).unwrap(),
            listener.accept().unwrap().0,
        );
        proxy.hold();
        (&old).write_all(b"late").unwrap();
        proxy.part();
        let mut new = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        let mut new_end = listener.accept().unwrap().0;
        new.write_all(b"soon").unwrap();
        let mut bytes = [0; 4];
        new_end.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"soon");
        old_end.set_read_timeout(Some(LOOK * 2)).unwrap();
        assert!(old_end.read(&mut bytes).is_err(), "held, and not ended");
        proxy.release();
        old_end
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut late = Vec::new();
        old_end.read_to_end(&mut late).unwrap();
        assert_eq!(late, b"late");
    }

    #[test]
    fn each_fault_does_what_it_says() {
        let proxy = FaultProxy::start(server());
        assert_eq!(exchange(&proxy).as_deref(), Some(&b"HELLO"[..]));
        proxy.set(Fault::Truncate(3));
        assert_eq!(exchange(&proxy).as_deref(), Some(&b"HEL"[..]));
        proxy.set(Fault::Silent);
        assert_eq!(exchange(&proxy), None);
        proxy.set(Fault::Cut);
        assert!(exchange(&proxy).is_none_or(|bytes| bytes.is_empty()));
        proxy.set(Fault::Slow(1));
        assert_eq!(exchange(&proxy).as_deref(), Some(&b"HELLO"[..]));
        proxy.set(Fault::Delay(Duration::from_millis(10)));
        assert_eq!(exchange(&proxy).as_deref(), Some(&b"HELLO"[..]));
        assert_eq!(proxy.accepted(), 6);
    }
}
