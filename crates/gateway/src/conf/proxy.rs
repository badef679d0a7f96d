//! The properties that shape how traffic is served.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use sallyport_model::RouterFlavor;

use super::CertificateSetting;
use super::listener::{self, Listener};
use super::reader::Reader;
use crate::logs::AccessFormat;

/// The one format of sessions. Source: Kong's nginx template for streams.
const STREAM_FORMAT: &str = "basic";

/// nginx's levels, least severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LogLevel {
    Debug,
    Info,
    Notice,
    Warn,
    Error,
    Crit,
    Alert,
    Emerg,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// To a file, `/dev/stdout` and `/dev/stderr` among them; the path is absolute.
    File {
        /// The file.
        path: PathBuf,
        /// Name of a format, if one was given.
        format: Option<String>,
    },
}

/// Response headers the gateway adds (`headers`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadersAdded {
    /// `Server` on responses the gateway makes itself.
    pub server: bool,
    /// `Via` on proxied responses.
    pub via: bool,
    /// `X-Kong-Proxy-Latency`.
    pub proxy_latency: bool,
    /// `X-Kong-Response-Latency`.
    pub response_latency: bool,
    /// `X-Kong-Admin-Latency`.
    pub admin_latency: bool,
    /// `X-Kong-Upstream-Latency`.
    pub upstream_latency: bool,
    /// `X-Kong-Upstream-Status`.
    pub upstream_status: bool,
    /// `X-Kong-Request-Id`.
    pub request_id: bool,
}

/// Whose word about the client's address is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealIp {
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted: Vec<IpNet>,
    /// The header that holds the address; `None`: the PROXY protocol says it.
    pub header: Option<HeaderName>,
    /// Skip trusted addresses in the header, from right to left.
    pub recursive: bool,
}

/// Idle connections to upstreams, per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamKeepalive {
    /// Idle connections kept per pool; 0: none.
    pub pool_size: usize,
    /// Requests per connection; `None`: no limit.
    pub max_requests: Option<u64>,
    /// How long an idle connection is kept; `None`: for ever.
    pub idle_timeout: Option<Duration>,
}

/// How long clients may be silent, and how much one connection serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// For a whole request head, and for the handshakes before the first one.
    pub head: Duration,
    /// Between two parts of a request body.
    pub body: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Between two parts of a response that it takes.
    pub send: Duration,
    /// Requests of one connection.
    pub requests: u64,
}

/// Content type of error bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// `text/plain`
    Plain,
    /// `application/json`
    Json,
    /// `application/xml`
    Xml,
    /// `text/html`
    Html,
}

pub(super) fn log_level(reader: &mut Reader) -> LogLevel {
    reader.choice(
        "log_level",
        &[
            ("notice", LogLevel::Notice),
            ("debug", LogLevel::Debug),
            ("info", LogLevel::Info),
            ("warn", LogLevel::Warn),
            ("error", LogLevel::Error),
            ("crit", LogLevel::Crit),
            ("alert", LogLevel::Alert),
            ("emerg", LogLevel::Emerg),
        ],
    )
}

pub(super) fn log_target(reader: &mut Reader, key: &str, prefix: &Path) -> LogTarget {
    let text = reader.text(key).unwrap_or_default();
    let mut words = text.split_whitespace();
    match words.next() {
        None | Some("off") => LogTarget::Off,
        Some(syslog) if syslog.starts_with("syslog:") => {
            reader.problem(
                key,
                "syslog is not supported by this build; give a path or off",
            );
            LogTarget::Off
        }
        Some(path) => {
            let format = words.next().map(str::to_owned);
            if let Some(name) = &format
                && key == "proxy_stream_access_log"
            {
                if name != STREAM_FORMAT {
                    let message = format!("no log format {name}; possible: {STREAM_FORMAT}");
                    reader.problem(key, message);
                }
            } else if let Some(name) = &format
                && key.ends_with("access_log")
                && AccessFormat::named(name).is_none()
            {
                let known = AccessFormat::NAMES.join(", ");
                reader.problem(key, format!("no log format {name}; possible: {known}"));
            }
            LogTarget::File {
                path: prefix.join(path),
                format,
            }
        }
    }
}

/// `80:8000` means: port 8000 here is port 80 to the world.
pub(super) fn port_maps(reader: &mut Reader) -> BTreeMap<u16, u16> {
    const KEY: &str = "port_maps";
    let mut maps = BTreeMap::new();
    for pair in reader.list(KEY) {
        let ports = pair.split_once(':').and_then(|(public, own)| {
            let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
            Some((port(own)?, port(public)?))
        });
        match ports {
            Some((own, public)) => {
                maps.insert(own, public);
            }
            None => reader.problem(KEY, format!("{pair:?} is not public:own (two ports)")),
        }
    }
    maps
}

pub(super) fn listeners(reader: &mut Reader, key: &str) -> Vec<Listener> {
    let Some(text) = reader.text(key) else {
        return Vec::new();
    };
    let listeners = listener::listeners(&text).unwrap_or_else(|errors| {
        for error in errors {
            reader.problem(key, error.to_string());
        }
        Vec::new()
    });
    if key != "proxy_listen" && listeners.iter().any(|listener| listener.proxy_protocol) {
        reader.problem(
            key,
            "flag proxy_protocol is for proxy_listen and stream_listen",
        );
    }
    listeners
}

pub(super) fn stream_listeners(reader: &mut Reader) -> Vec<Listener> {
    const KEY: &str = "stream_listen";
    let text = reader.text(KEY).unwrap_or_else(|| "off".to_owned());
    listener::stream_listeners(&text).unwrap_or_else(|errors| {
        for error in errors {
            reader.problem(KEY, error.to_string());
        }
        Vec::new()
    })
}

pub(super) fn certificates(
    reader: &mut Reader,
    cert_key: &str,
    key_key: &str,
) -> Vec<CertificateSetting> {
    let (certificates, keys) = (reader.list(cert_key), reader.list(key_key));
    if certificates.len() != keys.len() {
        let message = format!(
            "has {} certificate(s), and {key_key} has {} key(s): there must be as many",
            certificates.len(),
            keys.len()
        );
        reader.problem(cert_key, message);
    }
    let pair = |(certificate, key)| CertificateSetting { certificate, key };
    certificates.into_iter().zip(keys).map(pair).collect()
}

pub(super) fn headers(reader: &mut Reader) -> HeadersAdded {
    let mut added = HeadersAdded::default();
    for name in reader.list("headers") {
        match name.to_ascii_lowercase().as_str() {
            "off" => {}
            "server_tokens" => (added.server, added.via) = (true, true),
            "latency_tokens" => {
                added.proxy_latency = true;
                added.response_latency = true;
                added.admin_latency = true;
                added.upstream_latency = true;
            }
            "server" => added.server = true,
            "via" => added.via = true,
            "x-kong-proxy-latency" => added.proxy_latency = true,
            "x-kong-response-latency" => added.response_latency = true,
            "x-kong-admin-latency" => added.admin_latency = true,
            "x-kong-upstream-latency" => added.upstream_latency = true,
            "x-kong-upstream-status" => added.upstream_status = true,
            "x-kong-request-id" => added.request_id = true,
            _ => reader.problem(
                "headers",
                format!(
                    "{name:?} is not one of off, server_tokens, latency_tokens, Server, Via, \
                     X-Kong-Proxy-Latency, X-Kong-Response-Latency, X-Kong-Admin-Latency, \
                     X-Kong-Upstream-Latency, X-Kong-Upstream-Status, X-Kong-Request-Id"
                ),
            ),
        }
    }
    added
}

pub(super) fn headers_upstream(reader: &mut Reader) -> bool {
    let mut request_id = false;
    for name in reader.list("headers_upstream") {
        match name.to_ascii_lowercase().as_str() {
            "off" => {}
            "x-kong-request-id" => request_id = true,
            _ => reader.problem(
                "headers_upstream",
                format!("{name:?} is neither off nor X-Kong-Request-Id"),
            ),
        }
    }
    request_id
}

pub(super) fn real_ip(reader: &mut Reader) -> RealIp {
    const KEY: &str = "real_ip_header";
    let trusted = reader.networks("trusted_ips");
    let recursive = reader.flag("real_ip_recursive");
    let name = reader.text(KEY).unwrap_or_default();
    let header = match name.as_str() {
        "proxy_protocol" => None,
        name => Some(HeaderName::from_bytes(name.as_bytes()).unwrap_or_else(|_| {
            reader.problem(KEY, "is neither the name of a header nor proxy_protocol");
            HeaderName::from_static("x-real-ip")
        })),
    };
    RealIp {
        trusted,
        header,
        recursive,
    }
}

pub(super) fn upstream_keepalive(reader: &mut Reader) -> UpstreamKeepalive {
    let pool_size = reader.number("upstream_keepalive_pool_size", 0..=1_000_000);
    let max_requests = reader.number("upstream_keepalive_max_requests", 0..=u64::MAX);
    let idle: f64 = reader.number("upstream_keepalive_idle_timeout", 0.0..=31_536_000.0);
    UpstreamKeepalive {
        pool_size,
        max_requests: Some(max_requests).filter(|requests| *requests > 0),
        idle_timeout: Some(Duration::from_secs_f64(idle)).filter(|idle| !idle.is_zero()),
    }
}

pub(super) fn client_limits(reader: &mut Reader) -> ClientLimits {
    ClientLimits {
        head: reader.time("nginx_http_client_header_timeout"),
        body: reader.time("nginx_http_client_body_timeout"),
        idle: reader.time("nginx_http_keepalive_timeout"),
        send: reader.time("nginx_http_send_timeout"),
        requests: reader.number("nginx_http_keepalive_requests", 1..=u64::MAX),
    }
}

pub(super) fn router_flavor(reader: &mut Reader) -> RouterFlavor {
    reader.choice(
        "router_flavor",
        &RouterFlavor::ALL.map(|flavor| (flavor.as_str(), flavor)),
    )
}

pub(super) fn error_default_type(reader: &mut Reader) -> ErrorType {
    reader.choice(
        "error_default_type",
        &[
            ("text/plain", ErrorType::Plain),
            ("application/json", ErrorType::Json),
            ("application/xml", ErrorType::Xml),
            ("text/html", ErrorType::Html),
        ],
    )
}

pub(super) fn workers(reader: &mut Reader) -> Option<usize> {
    const KEY: &str = "nginx_main_worker_processes";
    match reader.text(KEY).as_deref() {
        None | Some("auto") => None,
        Some(text) => match text.parse() {
            Ok(workers @ 1..=1024) => Some(workers),
            _ => {
                reader.problem(KEY, "must be auto or a number from 1 to 1024");
                None
            }
        },
    }
}
