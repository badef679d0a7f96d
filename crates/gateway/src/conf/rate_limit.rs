//! The nodes that count rate limits for several gateways.

use std::time::Duration;

use super::cluster::host_and_port;
use super::reader::Reader;

/// `sallyport_rate_limit*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Host and port of each node, the preferred one first; none if nothing is counted on nodes.
    pub nodes: Vec<(String, u16)>,
    /// Whether they are spoken to over TLS.
    pub tls: bool,
    /// How long connecting may take, and each answer.
    pub timeout: Duration,
}

pub(super) fn rate_limit(reader: &mut Reader) -> RateLimit {
    const KEY: &str = "sallyport_rate_limit";
    let mut nodes = Vec::new();
    for text in reader.list(KEY) {
        match host_and_port(&text) {
            Some(node) => nodes.push((node.host, node.port)),
            None => reader.problem(
                KEY,
                format!("{text:?} is not host:port with a name or an IPv4 address"),
            ),
        }
    }
    RateLimit {
        nodes,
        tls: reader.flag("sallyport_rate_limit_ssl"),
        timeout: reader.time("sallyport_rate_limit_timeout"),
    }
}
