//! `node_control`: what nodes say to each other on port 7777.

mod alone;

pub(crate) use alone::alone;
use sallyport_wire::node_control::{ANY_NODE, name_of};
use uuid::Uuid;

/// Names in a node's certificate: its own, and that of any node.
pub(crate) fn names_of(id: Uuid) -> [String; 2] {
    [name_of(&id.to_string()), ANY_NODE.to_owned()]
}
