//! The settings of the proxy path, made ready for use.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderValue, Version};
use rustls::ClientConfig;
use sallyport_plugins::Facts;

use crate::conf::{ClientLimits, ErrorType, HeadersAdded, RealIp, UpstreamKeepalive};
use crate::logs::Access;
use crate::telemetry::Inbox;

/// Settings that every request reads.
pub(crate) struct Options {
    /// Value of `Server`, such as `kong/3.10.0`.
    pub(crate) server: HeaderValue,
    pub(crate) via: Via,
    /// Which response headers the gateway adds.
    pub(crate) shown: HeadersAdded,
    /// Whether the upstream gets `X-Kong-Request-Id`.
    pub(crate) request_id_upstream: bool,
    pub(crate) real_ip: RealIp,
    /// Listener port to the port that clients see.
    pub(crate) port_maps: BTreeMap<u16, u16>,
    /// Whether routes may look at the client's port and at the address it connected to.
    pub(crate) routes_by_address: bool,
    /// Largest request body, bytes.
    pub(crate) body_bytes_max: u64,
    pub(crate) client: ClientLimits,
    /// Most bytes of responses that `proxy-cache` keeps.
    pub(crate) cache_bytes_max: u64,
    /// What the gateway says about itself.
    pub(crate) facts: Facts,
    pub(crate) keepalive: UpstreamKeepalive,
    pub(crate) error_type: ErrorType,
    /// Where answered requests are logged; `None` if they are not.
    pub(crate) access_log: Option<Access>,
    /// Where workers hand in what they counted; `None` if nobody wants to know.
    pub(crate) telemetry: Option<Inbox>,
    /// Whether there are listeners for streams.
    pub(crate) takes_streams: bool,
    /// Where sessions of streams are logged; `None` if they are not.
    pub(crate) stream_access_log: Option<Access>,
    /// For upstreams whose certificate is verified.
    pub(crate) tls_verified: Arc<ClientConfig>,
    /// For upstreams whose certificate is not.
    pub(crate) tls_unverified: Arc<ClientConfig>,
}

/// Values of `Via`, by the version that the message arrived in.
pub(crate) struct Via {
    http_10: HeaderValue,
    http_11: HeaderValue,
    http_2: HeaderValue,
}

impl Via {
    /// What a gateway of this name says.
    pub(crate) fn new(server_token: &str) -> Via {
        let value = |version: &str| {
            HeaderValue::from_str(&format!("{version} {server_token}")).expect("a token is ASCII")
        };
        Via {
            http_10: value("1.0"),
            http_11: value("1.1"),
            http_2: value("2"),
        }
    }

    /// The value for a message that came in this version.
    pub(crate) fn of(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_2 => &self.http_2,
            Version::HTTP_10 => &self.http_10,
            _ => &self.http_11,
        }
    }
}

impl Options {
    /// Whether what this peer says of others is believed.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.real_ip.trusted.iter().any(|net| net.contains(&ip))
    }

    /// The address of a listener, with the port that clients see.
    pub(crate) fn outside(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(address.ip(), self.outside_port(address.port()))
    }

    /// The port that clients see for a listener's.
    pub(crate) fn outside_port(&self, port: u16) -> u16 {
        self.port_maps.get(&port).copied().unwrap_or(port)
    }
}
