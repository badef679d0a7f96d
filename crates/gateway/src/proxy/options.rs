//! The settings of the proxy path, made ready for use.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use rustls::ClientConfig;

/// Settings that every request reads.
pub(crate) struct Options {
    /// What the gateway says of itself in `Server` and `Via`, such as `kong/3.10.0`.
    pub(crate) server_token: &'static str,
    pub(crate) via: Via,
    pub(crate) shown: Shown,
    /// Whether the upstream gets `X-Kong-Request-Id`.
    pub(crate) request_id_upstream: bool,
    pub(crate) trusted: Vec<IpNet>,
    pub(crate) real_ip: RealIp,
    /// Listener port to the port that clients see.
    pub(crate) port_maps: Vec<(u16, u16)>,
    /// Largest request body, bytes; 0 for no limit.
    pub(crate) body_bytes_max: u64,
    pub(crate) keepalive: Keepalive,
    pub(crate) error_type: ErrorType,
    /// For upstreams whose certificate is verified.
    pub(crate) tls_verified: Arc<ClientConfig>,
    /// For upstreams whose certificate is not.
    pub(crate) tls_unverified: Arc<ClientConfig>,
}

/// Values of `Via`, by the version that the message arrived in.
pub(crate) struct Via {
    pub(crate) http_10: HeaderValue,
    pub(crate) http_11: HeaderValue,
    pub(crate) http_2: HeaderValue,
}

impl Via {
    /// What a gateway of this name says.
    pub(crate) fn new(server_token: &str) -> Via {
        let value = |version: &str| {
            HeaderValue::from_str(&format!("{version} {server_token}")).expect("a token is ASCII")
        };
        Via { http_10: value("1.0"), http_11: value("1.1"), http_2: value("2") }
    }
}

/// Which response headers the gateway adds (`headers` in `kong.conf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) server: bool,
    pub(crate) via: bool,
    pub(crate) proxy_latency: bool,
    pub(crate) upstream_latency: bool,
    pub(crate) response_latency: bool,
    pub(crate) upstream_status: bool,
    pub(crate) request_id: bool,
}

/// Where the client's address stands when the peer is trusted (`real_ip_header`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RealIp {
    /// A header with one address.
    Header(HeaderName),
    /// `X-Forwarded-For`, from its end; `recursive` skips trusted addresses.
    ForwardedFor { recursive: bool },
}

/// Limits on kept upstream connections, for each worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    /// Idle connections to one address; 0 keeps none.
    pub(crate) pool_size: usize,
    /// Requests on one connection; 0 for no limit.
    pub(crate) requests_max: u32,
    pub(crate) idle: Duration,
}

/// A form of error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the types")]
pub(crate) enum ErrorType {
    Json,
    Xml,
    Html,
    Plain,
}

impl Options {
    /// Whether what this peer says of others is believed.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&ip))
    }

    /// The port that clients see for a listener's.
    pub(crate) fn outside_port(&self, port: u16) -> u16 {
        self.port_maps.iter().find(|(inside, _)| *inside == port).map_or(port, |(_, out)| *out)
    }
}
