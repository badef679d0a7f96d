//! The properties that shape name resolution.
//!
//! `dns_*` are those of Kong's classic client; with `new_dns_client=on` the `resolver_*` set takes
//! their place. Source: data-plane reference 3.3 and 5.4.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;

/// A kind of record that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Names with ports and weights.
    Srv,
    /// Another name.
    Cname,
}

/// How names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Servers to ask; none: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Names that need no server.
    pub hosts_file: PathBuf,
    /// Kinds of record, in the order they are asked for.
    pub order: Vec<RecordKind>,
    /// Whether the kind that answered last comes first (`LAST`).
    pub last_first: bool,
    /// Whether SRV is asked for only where the name starts with `_` (the new client).
    pub srv_by_name: bool,
    /// Used in place of the records' own TTL.
    pub valid_ttl: Option<Duration>,
    /// How long an answer is used past its TTL while there is no newer one.
    pub stale_ttl: Duration,
    /// How long a name that does not exist stays so.
    pub not_found_ttl: Duration,
    /// How long any other failure stands.
    pub error_ttl: Duration,
    /// Whether those who ask for one name at once share one look-up.
    pub merge: bool,
}

impl Default for Dns {
    fn default() -> Dns {
        Dns {
            servers: Vec::new(),
            hosts_file: "/etc/hosts".into(),
            order: vec![RecordKind::Srv, RecordKind::A, RecordKind::Cname],
            last_first: true,
            srv_by_name: false,
            valid_ttl: None,
            stale_ttl: Duration::from_secs(3600),
            not_found_ttl: Duration::from_secs(30),
            error_ttl: Duration::from_secs(1),
            merge: true,
        }
    }
}

/// The longest time to live that can be set, seconds.
const TTL_MAX: f64 = 31_536_000.0;

pub(super) fn dns(reader: &mut Reader) -> Dns {
    let classic = classic(reader);
    let new = new_client(reader);
    match reader.flag("new_dns_client") {
        true => new,
        false => classic,
    }
}

fn classic(reader: &mut Reader) -> Dns {
    let (order, last_first) = order(reader, "dns_order");
    Dns {
        servers: servers(reader, "dns_resolver"),
        hosts_file: hosts_file(reader, "dns_hostsfile"),
        order,
        last_first,
        srv_by_name: false,
        valid_ttl: optional_ttl(reader, "dns_valid_ttl"),
        stale_ttl: ttl(reader, "dns_stale_ttl"),
        not_found_ttl: ttl(reader, "dns_not_found_ttl"),
        error_ttl: ttl(reader, "dns_error_ttl"),
        merge: !reader.flag("dns_no_sync"),
    }
}

fn new_client(reader: &mut Reader) -> Dns {
    let (order, _) = order(reader, "resolver_family");
    let error_ttl = ttl(reader, "resolver_error_ttl");
    Dns {
        servers: servers(reader, "resolver_address"),
        hosts_file: hosts_file(reader, "resolver_hosts_file"),
        // a name of a service is asked for as such, whatever the order of the families
        order: {
            let mut order = order;
            order.sort_by_key(|kind| *kind != RecordKind::Srv);
            order
        },
        last_first: false,
        srv_by_name: true,
        valid_ttl: optional_ttl(reader, "resolver_valid_ttl"),
        stale_ttl: ttl(reader, "resolver_stale_ttl"),
        not_found_ttl: error_ttl,
        error_ttl,
        merge: true,
    }
}

fn hosts_file(reader: &Reader, key: &str) -> PathBuf {
    reader
        .text(key)
        .unwrap_or_else(|| "/etc/hosts".to_owned())
        .into()
}

fn ttl(reader: &mut Reader, key: &str) -> Duration {
    Duration::from_secs_f64(reader.number(key, 0.0..=TTL_MAX))
}

fn optional_ttl(reader: &mut Reader, key: &str) -> Option<Duration> {
    reader.is_set(key).then(|| ttl(reader, key))
}

/// `address`, `address:port`, `[v6]` or `[v6]:port`; port 53 unless one is given.
fn servers(reader: &mut Reader, key: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for element in reader.list(key) {
        let bare = element.trim_start_matches('[').trim_end_matches(']');
        match (element.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
            (Ok(server), _) if server.port() > 0 => servers.push(server),
            (_, Ok(ip)) => {
                let port = sallyport_contract::entry("dns").port().into();
                servers.push(SocketAddr::new(ip, port));
            }
            _ => reader.problem(key, format!("{element:?} is not address or address:port")),
        }
    }
    servers
}

fn order(reader: &mut Reader, key: &str) -> (Vec<RecordKind>, bool) {
    let (mut order, mut last_first) = (Vec::new(), false);
    for word in reader.list(key) {
        let kind = match word.to_ascii_uppercase().as_str() {
            "LAST" => {
                last_first = true;
                continue;
            }
            "A" => RecordKind::A,
            "AAAA" => RecordKind::Aaaa,
            "SRV" => RecordKind::Srv,
            "CNAME" => RecordKind::Cname,
            _ => {
                let message = format!("{word:?} is not one of LAST, SRV, A, AAAA, CNAME");
                reader.problem(key, message);
                continue;
            }
        };
        if !order.contains(&kind) {
            order.push(kind);
        }
    }
    if order.is_empty() {
        reader.problem(key, "names no kind of record");
    }
    (order, last_first)
}
