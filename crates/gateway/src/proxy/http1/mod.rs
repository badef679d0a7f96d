//! HTTP/1 on the proxy path: strict by construction, without a task or a channel per message.
//!
//! Heads are parsed by `httparse`; what it lets pass and what could be read in two ways (bare line
//! feeds, two lengths, a length beside a transfer coding) is refused here. [`head`], [`framing`],
//! [`trailers`] and [`write`] are pure; [`server`] is the loop of one client connection.

pub(crate) mod framing;
mod h2c;
pub(crate) mod head;
pub(super) mod server;
pub(crate) mod trailers;
pub(super) mod write;
