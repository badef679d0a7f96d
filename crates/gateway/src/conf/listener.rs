//! The grammar of `proxy_listen` and its like.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use sallyport_runtime::{ListenOptions, listen};

/// One element of a listen property, such as `0.0.0.0:8443 ssl http2 reuseport backlog=16384`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where to listen.
    pub host: ListenHost,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// End TLS here (`ssl`).
    pub tls: bool,
    /// Speak HTTP/2 as well (`http2`).
    pub http2: bool,
    /// Every connection begins with a PROXY header (`proxy_protocol`).
    pub proxy_protocol: bool,
    /// Wake up only when data has arrived (`deferred`).
    pub deferred: bool,
    /// A bind call of its own (`bind`); every listener has one here.
    pub bind: bool,
    /// One socket per core on the same address (`reuseport`).
    pub reuse_port: bool,
    /// Length of the accept queue (`backlog=N`).
    pub backlog: Option<u32>,
    /// For IPv6: keep IPv4 out (`ipv6only=on|off`).
    pub ipv6_only: Option<bool>,
    /// TCP keepalive (`so_keepalive=…`).
    pub keepalive: Option<Keepalive>,
    /// Take datagrams (`udp`), in `stream_listen` only.
    pub udp: bool,
}

/// The host part of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenHost {
    /// An address.
    Ip(IpAddr),
    /// A name, resolved when the listener is opened.
    Name(String),
}

/// `so_keepalive`: `on`, `off`, or `idle:interval:count` of which each may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// With the system's times.
    On,
    /// None.
    Off,
    /// With times of its own.
    Times {
        /// Silence before the first probe.
        idle: Option<Duration>,
        /// Time between probes.
        interval: Option<Duration>,
        /// Lost probes after which the connection is dead.
        count: Option<u32>,
    },
}

/// Why an element is no listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenerError {
    /// Nothing between two commas.
    #[error("an element is empty")]
    Empty,
    /// No `address:port`.
    #[error("{0:?} is not address:port (write IPv6 as [::1]:8000)")]
    Address(String),
    /// The port is no number up to 65535.
    #[error("{0:?} is not a port (0 to 65535)")]
    Port(String),
    /// A word that is no flag of HTTP listeners.
    #[error(
        "{0:?} is not a flag; known are ssl, http2, proxy_protocol, deferred, bind, reuseport, \
         backlog=N, ipv6only=on|off, so_keepalive=on|off|idle:interval:count"
    )]
    Flag(String),
    /// A flag whose argument makes no sense.
    #[error("{0:?} has an argument that cannot be used")]
    Argument(String),
    /// `udp` belongs to `stream_listen`.
    #[error("\"udp\" is possible in stream_listen only")]
    Udp,
    /// A word that is a flag of HTTP listeners only.
    #[error("{0:?} is not possible in stream_listen")]
    HttpOnly(String),
    /// Datagrams have no connection that another flag could be about.
    #[error("\"udp\" cannot be combined with {0}")]
    UdpWith(&'static str),
}

/// Reads a whole listen property: `off`, or a comma-separated list. `off` gives an empty list.
///
/// # Errors
/// One error per element that is no listener.
pub fn listeners(text: &str) -> Result<Vec<Listener>, Vec<ListenerError>> {
    if text.trim().eq_ignore_ascii_case("off") {
        return Ok(Vec::new());
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for element in text.split(',') {
        match element.parse() {
            Ok(listener) => good.push(listener),
            Err(error) => bad.push(error),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

/// Reads `stream_listen`; see [`listeners`].
///
/// # Errors
/// One error per element that is no listener of streams.
pub fn stream_listeners(text: &str) -> Result<Vec<Listener>, Vec<ListenerError>> {
    if text.trim().eq_ignore_ascii_case("off") {
        return Ok(Vec::new());
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for element in text.split(',') {
        match Listener::of_streams(element) {
            Ok(listener) => good.push(listener),
            Err(error) => bad.push(error),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

impl FromStr for Listener {
    type Err = ListenerError;

    fn from_str(text: &str) -> Result<Listener, ListenerError> {
        let mut words = text.split_whitespace();
        let address = words.next().ok_or(ListenerError::Empty)?;
        let (host, port) = host_and_port(address)?;
        let mut listener = Listener {
            host,
            port,
            tls: false,
            http2: false,
            proxy_protocol: false,
            deferred: false,
            bind: false,
            reuse_port: false,
            backlog: None,
            ipv6_only: None,
            keepalive: None,
            udp: false,
        };
        for word in words {
            listener.set(word)?;
        }
        Ok(listener)
    }
}

impl Listener {
    /// One element of `stream_listen`, such as `0.0.0.0:9443 ssl` or `0.0.0.0:53 udp`.
    fn of_streams(text: &str) -> Result<Listener, ListenerError> {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let is_http = |word: &&&str| matches!(**word, "http2" | "deferred");
        if let Some(word) = words.iter().find(is_http) {
            return Err(ListenerError::HttpOnly((*word).to_owned()));
        }
        let count = words.len();
        words.retain(|word| *word != "udp");
        let mut listener: Listener = words.join(" ").parse()?;
        listener.udp = words.len() < count;
        let wrong = [
            ("ssl", listener.tls),
            ("proxy_protocol", listener.proxy_protocol),
            ("backlog", listener.backlog.is_some()),
            ("so_keepalive", listener.keepalive.is_some()),
        ];
        match wrong.into_iter().find(|(_, set)| listener.udp && *set) {
            Some((flag, _)) => Err(ListenerError::UdpWith(flag)),
            None => Ok(listener),
        }
    }

    fn set(&mut self, word: &str) -> Result<(), ListenerError> {
        let argument = || ListenerError::Argument(word.to_owned());
        match word.split_once('=') {
            None => match word {
                "ssl" => self.tls = true,
                "http2" => self.http2 = true,
                "proxy_protocol" => self.proxy_protocol = true,
                "deferred" => self.deferred = true,
                "bind" => self.bind = true,
                "reuseport" => self.reuse_port = true,
                "udp" => return Err(ListenerError::Udp),
                _ => return Err(ListenerError::Flag(word.to_owned())),
            },
            Some(("backlog", number)) => {
                let length = number.parse().ok().filter(|length| *length > 0);
                self.backlog = Some(length.ok_or_else(argument)?);
            }
            Some(("ipv6only", "on")) => self.ipv6_only = Some(true),
            Some(("ipv6only", "off")) => self.ipv6_only = Some(false),
            Some(("so_keepalive", value)) => {
                self.keepalive = Some(keepalive(value).ok_or_else(argument)?);
            }
            Some(("ipv6only", _)) => return Err(argument()),
            Some(_) => return Err(ListenerError::Flag(word.to_owned())),
        }
        Ok(())
    }

    /// The address to bind; a name is resolved now, its first address counts.
    ///
    /// # Errors
    /// The name has no address.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        match &self.host {
            ListenHost::Ip(ip) => Ok(SocketAddr::new(*ip, self.port)),
            ListenHost::Name(name) => (name.as_str(), self.port)
                .to_socket_addrs()?
                .next()
                .ok_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address"))
                }),
        }
    }

    /// How the socket is opened.
    pub fn options(&self) -> ListenOptions {
        let standard = ListenOptions::default();
        ListenOptions {
            reuse_port: self.reuse_port,
            backlog: self.backlog.unwrap_or(standard.backlog),
            ipv6_only: self.ipv6_only,
            keepalive: self.keepalive.map(Keepalive::of_socket),
        }
    }
}

impl Keepalive {
    fn of_socket(self) -> listen::Keepalive {
        match self {
            Keepalive::Off => listen::Keepalive::OFF,
            Keepalive::On => listen::Keepalive {
                on: true,
                ..listen::Keepalive::OFF
            },
            Keepalive::Times {
                idle,
                interval,
                count,
            } => listen::Keepalive {
                on: true,
                idle,
                interval,
                count,
            },
        }
    }
}

impl fmt::Display for Listener {
    /// Address and port, as in the property.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            ListenHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            ListenHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

fn host_and_port(text: &str) -> Result<(ListenHost, u16), ListenerError> {
    let bad = || ListenerError::Address(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(Some(v6)) => ListenHost::Ip(IpAddr::V6(v6.parse().map_err(|_| bad())?)),
        Some(None) => return Err(bad()),
        None => match host.parse() {
            Ok(v4) => ListenHost::Ip(IpAddr::V4(v4)),
            Err(_) if is_name(host) => ListenHost::Name(host.to_owned()),
            Err(_) => return Err(bad()),
        },
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits);
    Ok((
        host,
        port.ok_or_else(|| ListenerError::Port(text.to_owned()))?,
    ))
}

/// A host name that cannot be mistaken for a broken IPv4 address.
pub(super) fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= 253
        && text.split('.').all(label)
        && !text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn keepalive(text: &str) -> Option<Keepalive> {
    match text {
        "on" => return Some(Keepalive::On),
        "off" => return Some(Keepalive::Off),
        _ => {}
    }
    let mut parts = text.split(':');
    let (idle, interval, count) = (parts.next()?, parts.next()?, parts.next()?);
    let none = idle.is_empty() && interval.is_empty() && count.is_empty();
    if parts.next().is_some() || none {
        return None;
    }
    let count = if count.is_empty() {
        None
    } else {
        Some(count.parse().ok()?)
    };
    Some(Keepalive::Times {
        idle: seconds(idle)?,
        interval: seconds(interval)?,
        count,
    })
}

/// Seconds or minutes in nginx's notation (`30`, `30s`, `30m`); empty is `None`. The outer
/// `None` means unreadable.
fn seconds(text: &str) -> Option<Option<Duration>> {
    if text.is_empty() {
        return Some(None);
    }
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: u32 = number.parse().ok()?;
    Some(Some(Duration::from_secs(u64::from(number) * unit)))
}
