//! `cluster_*`: the control plane of a data plane.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Role;
use super::listener::is_name;
use super::reader::Reader;
use crate::config_sync::SyncProtocol;
use sallyport_runtime::ForwardProxy;

/// How control plane and data plane know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtls {
    /// Both show the same certificate.
    Shared,
    /// Each shows one that an authority issued.
    Pki,
}

impl Mtls {
    /// The word of the property.
    pub fn as_str(self) -> &'static str {
        match self {
            Mtls::Shared => "shared",
            Mtls::Pki => "pki",
        }
    }
}

/// `host:port` of a control plane; the host is a name or an IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlaneAddr {
    /// Name or IPv4 address.
    pub host: String,
    /// Port; never 0.
    pub port: u16,
}

impl fmt::Display for ControlPlaneAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How the control plane is reached.
#[derive(Clone)]
pub struct Cluster {
    /// How the two sides know each other.
    pub mtls: Mtls,
    /// Where to dial.
    pub control_plane: ControlPlaneAddr,
    /// Name asked for and checked in PKI mode, if it is not the host dialled.
    pub server_name: Option<String>,
    /// Certificate: path, PEM text, or base64 of PEM text.
    pub cert: String,
    /// Its key, in the same forms; never printed.
    pub cert_key: String,
    /// Authority of the control plane's certificate in PKI mode.
    pub ca_cert: Option<String>,
    /// Labels of this node.
    pub dp_labels: BTreeMap<String, String>,
    /// Largest frame accepted, in bytes, compressed.
    pub max_payload: usize,
    /// Through what the control plane is dialled; `None` for directly.
    pub proxy: Option<Proxy>,
    /// How configurations come.
    pub protocol: SyncProtocol,
    /// Where telemetry goes; `None` for nowhere.
    pub telemetry: Option<Telemetry>,
}

/// Where telemetry goes, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Where to dial.
    pub endpoint: ControlPlaneAddr,
    /// What stands before the path there; empty, or begins with `/` and does not end so.
    pub path: String,
    /// Name asked for and checked in PKI mode, if it is not the host dialled.
    pub server_name: Option<String>,
    /// From one report to the next.
    pub flush_interval: Duration,
    /// Records that are kept while the endpoint is away.
    pub records_max: usize,
}

/// A forward proxy, and how it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The proxy.
    pub server: ForwardProxy,
    /// Whether its certificate is verified, if it has one.
    pub verify: bool,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("mtls", &self.mtls)
            .field("control_plane", &self.control_plane)
            .field("server_name", &self.server_name)
            .field("dp_labels", &self.dp_labels)
            .field("max_payload", &self.max_payload)
            .field("proxy", &self.proxy)
            .field("telemetry", &self.telemetry)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// The name asked for by SNI and, in PKI mode, checked in the certificate.
    pub fn tls_name(&self) -> &str {
        match self.mtls {
            Mtls::Shared => sallyport_wire::config_sync::SHARED_SERVER_NAME,
            Mtls::Pki => self
                .server_name
                .as_deref()
                .unwrap_or(&self.control_plane.host),
        }
    }

    /// The same for where telemetry goes, if it goes anywhere.
    pub fn telemetry_tls_name(&self) -> Option<&str> {
        let telemetry = self.telemetry.as_ref()?;
        let named = telemetry.server_name.as_deref();
        Some(match self.mtls {
            Mtls::Shared => sallyport_wire::config_sync::SHARED_SERVER_NAME,
            Mtls::Pki => named.unwrap_or(&telemetry.endpoint.host),
        })
    }
}

/// Reads the properties; on other roles only their syntax is judged.
pub(super) fn read(reader: &mut Reader, role: Role) -> Option<Cluster> {
    let mtls = reader.choice(
        "cluster_mtls",
        &[("shared", Mtls::Shared), ("pki", Mtls::Pki)],
    );
    let control_plane = control_plane(reader);
    let dp_labels = labels(reader, role);
    let max_payload = reader.number("cluster_max_payload", 4_194_304..=u32::MAX as usize);
    reader.number("cluster_data_plane_purge_delay", 60..=u64::MAX);
    let proxy = forward_proxy(reader, role);
    let telemetry = telemetry(reader);
    let protocols = [("auto", SyncProtocol::Auto), ("v1", SyncProtocol::Whole)];
    let protocol = reader.choice("sallyport_sync", &protocols);
    if role != Role::DataPlane {
        return None;
    }
    let [cert, cert_key] = ["cluster_cert", "cluster_cert_key"].map(|key| {
        reader.text(key).unwrap_or_else(|| {
            reader.problem(
                key,
                "is needed with role = data_plane (path, PEM or base64 of PEM)",
            );
            String::new()
        })
    });
    Some(Cluster {
        mtls,
        control_plane,
        server_name: reader.text("cluster_server_name"),
        cert,
        cert_key,
        ca_cert: reader.text("cluster_ca_cert"),
        dp_labels,
        max_payload,
        proxy,
        protocol,
        telemetry,
    })
}

pub(super) fn host_and_port(text: &str) -> Option<ControlPlaneAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let good = is_name(host) || host.parse::<std::net::Ipv4Addr>().is_ok();
    let port = port.parse().ok().filter(|port| *port > 0)?;
    good.then(|| ControlPlaneAddr {
        host: host.to_owned(),
        port,
    })
}

fn telemetry(reader: &mut Reader) -> Option<Telemetry> {
    const KEY: &str = "cluster_telemetry_endpoint";
    let flush_interval = reader.number("analytics_flush_interval", 1..=3_600);
    let records_max = reader.number("analytics_buffer_size_limit", 1..=10_000_000);
    let text = reader.text(KEY)?;
    let (place, path) = match text.split_once('/') {
        Some((place, path)) => (place, format!("/{path}")),
        None => (text.as_str(), String::new()),
    };
    let path = path.trim_end_matches('/').to_owned();
    let good = path.parse::<http::uri::PathAndQuery>();
    let Some(endpoint) = host_and_port(place).filter(|_| path.is_empty() || good.is_ok()) else {
        reader.problem(KEY, "must be host:port with a name or an IPv4 address");
        return None;
    };
    Some(Telemetry {
        endpoint,
        path,
        server_name: reader.text("cluster_telemetry_server_name"),
        flush_interval: Duration::from_secs(flush_interval),
        records_max,
    })
}

fn control_plane(reader: &mut Reader) -> ControlPlaneAddr {
    const KEY: &str = "cluster_control_plane";
    let text = reader.text(KEY).unwrap_or_default();
    host_and_port(&text).unwrap_or_else(|| {
        reader.problem(KEY, "must be host:port with a name or an IPv4 address");
        ControlPlaneAddr {
            host: String::new(),
            port: 1,
        }
    })
}

fn forward_proxy(reader: &mut Reader, role: Role) -> Option<Proxy> {
    let verify = reader.flag("proxy_server_ssl_verify");
    let server = reader.text("proxy_server").and_then(|text| {
        let parsed = text.parse::<ForwardProxy>();
        parsed
            .map_err(|error| reader.problem("proxy_server", error.to_string()))
            .ok()
    });
    if !reader.flag("cluster_use_proxy") {
        return None;
    }
    const KEY: &str = "cluster_use_proxy";
    if role != Role::DataPlane {
        reader.problem(KEY, "is possible with role = data_plane only");
    }
    if !reader.is_set("proxy_server") {
        reader.problem(KEY, "needs proxy_server");
    }
    server.map(|server| Proxy { server, verify })
}

/// At most 10 `key:value` pairs of 1 to 63 characters each.
fn labels(reader: &mut Reader, role: Role) -> BTreeMap<String, String> {
    const KEY: &str = "cluster_dp_labels";
    const RESERVED: [&str; 5] = ["kong", "konnect", "insomnia", "mesh", "kic"];
    let mut labels = BTreeMap::new();
    if reader.is_set(KEY) && role != Role::DataPlane {
        reader.problem(KEY, "is possible with role = data_plane only");
    }
    for pair in reader.list(KEY) {
        let Some((key, value)) = pair.split_once(':') else {
            reader.problem(KEY, format!("{pair:?} is not key:value"));
            continue;
        };
        if let Some(part) = [key, value].into_iter().find(|part| !is_label(part)) {
            let message = format!(
                "{part:?} must have 1 to 63 letters, digits, `_`, `.`, `-`, `:`, the first and \
                 last of them a letter or digit"
            );
            reader.problem(KEY, message);
        } else if let Some(word) = RESERVED.iter().find(|word| key.starts_with(*word)) {
            reader.problem(
                KEY,
                format!("key {key:?} begins with the reserved word {word:?}"),
            );
        } else {
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    if labels.len() > 10 {
        reader.problem(
            KEY,
            format!("has {} labels, at most 10 are possible", labels.len()),
        );
    }
    labels
}

fn is_label(text: &str) -> bool {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-:".contains(byte);
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(inside)
        && ends(bytes.first())
        && ends(bytes.last())
}
