//! Streams: TCP, TLS and UDP that is passed on without a look at what it says.
//!
//! A session finds its route by both ends and by the server name of TLS, runs the plugins that
//! Kong allows on streams, and goes to a peer of its service through the same balancer as
//! requests. Source: data-plane reference 8.4, nginx's stream modules.

pub(crate) mod hello;
mod prefixed;
mod pump;
mod routes;
mod session;
pub(super) mod tcp;
pub(super) mod udp;

pub(crate) use routes::Streams;
pub(in crate::proxy) use session::Ends;
