//! What the tests start: a control plane, gateways, and connections to them.

mod control;
mod doors;
mod gateway;
mod tls;

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use sallyport_testkit::{Deadline, Launch, Program};

pub(crate) use control::Control;
pub(crate) use doors::{Doors, python};
pub(crate) use gateway::{Alone, Gateway, Pair};
pub(crate) use tls::{Handshake, TlsStream, bytes_until_close};

/// For what takes moments on an idle machine.
pub(crate) fn soon() -> Deadline {
    Deadline::secs(30)
}

/// For what waits out the pause before a gateway dials again (5 to 10 s).
pub(crate) fn after_reconnect() -> Deadline {
    Deadline::secs(60)
}

/// The executable under test.
pub(crate) fn sallyport() -> Launch {
    Program::new(env!("CARGO_BIN_EXE_sallyport"))
}

#[track_caller]
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Checks that `text` has all `parts`.
#[track_caller]
pub(crate) fn has_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

/// Sends bytes and closes that side; what comes back until the peer closes too.
pub(crate) fn exchange_half(addr: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // the peer may have refused it already
    _ = stream.write_all(bytes);
    _ = stream.shutdown(Shutdown::Write);
    Ok(bytes_until_close(&mut stream))
}
