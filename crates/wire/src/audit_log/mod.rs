//! The audit log's bytes: records, their chain, and syslog.
//!
//! A record is one line of flat JSON ([`Event`] with its place in the chain): `seq` counts from 1
//! without gaps, `prev` is the SHA-256 of the text of the record before it. The text without its
//! last member `sig` is what is hashed and what is signed (Ed25519), so that nothing can be taken
//! out, put in or changed without the key; see [`chain`]. [`cef`] and [`pull`] are other forms of
//! the same record.
//!
//! Port 8071 speaks syslog: RFC 5424 messages ([`syslog`]), octet-counted or ended by a line feed
//! on TCP ([`framing`]), one in each datagram on UDP, where [`sequence`] makes loss visible.

pub mod cef;
pub mod chain;
pub mod event;
pub mod framing;
pub mod pull;
pub mod sequence;
pub mod syslog;
#[cfg(test)]
mod tests;

pub use chain::{Fault, FaultKind, Summary, Verifier};
pub use event::{AuthenticationOutcome, AuthenticationType, Event, Kind, Received, What};
pub use framing::{Framer, FramingError, octet_counted};
pub use sequence::{Sequences, Step};
pub use syslog::{Element, Message, SyslogError};

/// Vendor, product and version in every record; rules of log systems look for them.
pub const VENDOR: &str = "KongInc";
/// See [`VENDOR`].
pub const PRODUCT: &str = "Konnect";
/// See [`VENDOR`].
pub const VERSION: &str = "1.0";
