//! `appliance_cli`: what a remote command line and a node say to each other on port 10121.
//!
//! A frame is a length (32 bits, big-endian, of what follows), one byte that says what it is, and
//! the payload: JSON, or bytes of a file. The client asks with [`Request`]s, one after the other; the
//! node answers each with any number of [`Progress`] and data frames and then one [`Reply`]. Both
//! sides prove themselves by certificates that are pinned (TLS 1.3, [`ALPN`]). The names of commands
//! and the form of replies (`message`, `arguments`) are those of the appliance's command line.

mod frame;
mod message;
#[cfg(test)]
mod tests;

pub use frame::{FRAME_BYTES_MAX, Frame, FrameError, Kind, REQUEST_BYTES_MAX, split, write};
pub use message::{
    Argument, Command, MessageError, PROTOCOL, Progress, Reply, Request, check_arguments,
};

/// The protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"sallyport-cli/1";
