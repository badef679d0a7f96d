//! TCP ports that a program under test may bind.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Below Linux's range for outgoing connections and port 0 (32768 up), and free of the
/// product's own default ports, so that nobody is given one of these by chance.
const FIRST: u16 = 20_000;
const COUNT: u16 = 7_000;

/// Locks of the ports given out; held until this process ends.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 that nobody listens on, reserved for this process until it ends.
///
/// The reservation is a locked file in the temporary directory, so test processes of one user
/// that run at the same time never share a port. A program that does not know the convention
/// could still take the port before the program under test does; the range makes that unlikely.
/// Prefer port 0 wherever the program tells which port it got.
///
/// # Panics
/// When no port of the range is free, or the temporary directory cannot be written.
#[track_caller]
pub fn free_port() -> u16 {
    let dir = lock_dir();
    // Processes start at different places, which keeps them from trying the same ports in turn.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        let Ok(file) = File::create(dir.join(port.to_string())) else {
            continue;
        };
        if file.try_lock().is_err() || is_in_use(port) {
            continue;
        }
        HELD.lock()
            .expect("no holder of this lock panics")
            .push(file);
        return port;
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT - 1);
}

/// `N` different ports, each as from [`free_port`].
#[track_caller]
pub fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

/// Asks by connecting. A trial bind would be inherited by whatever program another thread starts
/// at that moment, and the port would stay bound until that program's `exec`.
fn is_in_use(port: u16) -> bool {
    let tried = TcpStream::connect_timeout(
        &SocketAddr::from(([127, 0, 0, 1], port)),
        Duration::from_secs(1),
    );
    !tried.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// One directory per user: another user's files could not be opened for writing.
#[track_caller]
fn lock_dir() -> PathBuf {
    let user = fs::metadata("/proc/self").map_or(0, |meta| meta.uid());
    let dir = std::env::temp_dir().join(format!("sallyport-test-ports-{user}"));
    if let Err(error) = fs::create_dir_all(&dir) {
        panic!("could not make {}: {error}", dir.display());
    }
    dir
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn ports_differ_and_can_be_bound() {
        let ports = free_ports::<20>();
        let unique: std::collections::HashSet<u16> = ports.into_iter().collect();
        assert_eq!(unique.len(), 20);
        let _bound: Vec<TcpListener> = ports
            .iter()
            .map(|port| TcpListener::bind(("127.0.0.1", *port)).unwrap())
            .collect();
    }

    #[test]
    fn a_port_in_use_is_not_given_out() {
        let port = free_port();
        let _bound = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!(is_in_use(port));
        let other = File::create(lock_dir().join(port.to_string())).unwrap();
        assert!(
            other.try_lock().is_err(),
            "a second process would see the reservation"
        );
    }
}
