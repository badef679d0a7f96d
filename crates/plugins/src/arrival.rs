//! How a request reached the gateway, for the few plugins that tell it.

use std::net::SocketAddr;

use crate::exchange::Exchange;
use crate::finished::Entity;

/// A request's way in, and what it was matched with.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    /// Whether the client speaks TLS.
    pub tls: bool,
    /// The host asked for: lower case, without port; empty if none was.
    pub host: String,
    /// The path, decoded and without dot segments, as routes are matched with it.
    pub path: String,
    /// The address of the gateway that the client reached.
    pub address: SocketAddr,
    /// Which connection of this process it came over, counted from 1.
    pub connection: u64,
    /// Which request of that connection it is, counted from 1.
    pub nth: u64,
    /// The route that matched.
    pub route: Option<Entity<'a>>,
    /// Its service.
    pub service: Option<Entity<'a>>,
}

/// Tells a request's [`Arrival`]; nothing is looked up unless a plugin asks.
pub trait Arriving {
    /// The way in of the request that is being served.
    fn arrival(&self, exchange: &Exchange) -> Arrival<'_>;
}
