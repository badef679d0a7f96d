//! `node_control`: what nodes say to each other on port 7777.
//!
//! One TLS listener ([`listener`]); ALPN chooses gossip, commands or joining. Who is there comes
//! from [`membership`], who leads from [`leader`], and [`commands`] lets the leader do what operators
//! want, one node at a time. docs/cluster.md states the promises.

mod alone;
mod calls;
mod commands;
mod doctor;
mod gossip;
mod join;
mod leader;
mod listener;
mod membership;
mod refusals;
mod rotate;
mod shown;
mod tls;

pub(crate) use alone::alone;
pub use calls::{CallError, call};
pub(crate) use calls::{converse, exchange_with};
pub(crate) use commands::execute;
pub(crate) use doctor::matrix;
pub(crate) use gossip::HEARD_MAX;
pub use join::{JoinError, Joined, join};
pub(crate) use leader::{follow_leader, lead};
pub(crate) use listener::{Door, serve};
pub(crate) use membership::membership;
pub(crate) use refusals::Refusals;
pub(crate) use rotate::{rotate, settle_own};
use sallyport_wire::node_control::{ANY_NODE, name_of};
pub(crate) use tls::{Tls, recognise};
use uuid::Uuid;

/// Names in a node's certificate: its own, and that of any node.
pub(crate) fn names_of(id: Uuid) -> [String; 2] {
    [name_of(&id.to_string()), ANY_NODE.to_owned()]
}
