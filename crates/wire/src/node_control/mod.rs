//! Between cluster nodes, on port 7777 (contract entry `node_control`).
//!
//! One TLS listener; the protocol is chosen by ALPN. [`GOSSIP`] carries frames of the membership
//! protocol, [`COMMANDS`] and [`JOIN`] carry HTTP/1.1 with JSON bodies. All but [`JOIN`] need the
//! certificate of a node.

mod frame;
mod join;
mod token;

pub use frame::{FRAME_LEN_MAX, Frame, FrameError, decode, encode};
pub use join::{Admitted, JoinRequest};
pub use token::{JoinToken, TokenError};

/// ALPN of membership gossip: frames, see [`decode`].
pub const GOSSIP: &[u8] = b"sallyport-gossip/1";
/// ALPN of commands from node to node.
pub const COMMANDS: &[u8] = b"sallyport-commands/1";
/// ALPN of a machine that wants to become a node and has no certificate yet.
pub const JOIN: &[u8] = b"sallyport-join/1";

/// The name that every node's certificate bears, for whom it is enough to meet any node.
pub const ANY_NODE: &str = "node.sallyport.internal";

/// The name that only the certificate of the node with this id bears.
pub fn name_of(id: &str) -> String {
    format!("{id}.{ANY_NODE}")
}
