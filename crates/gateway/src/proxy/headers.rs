//! Header rules in both directions. Source: data-plane reference 4.7 and 4.8.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, Entry, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SERVER, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::options::Options;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY: HeaderName = HeaderName::from_static("proxy");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
pub(crate) const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-kong-request-id");
pub(crate) const PROXY_LATENCY: HeaderName = HeaderName::from_static("x-kong-proxy-latency");
pub(crate) const UPSTREAM_LATENCY: HeaderName = HeaderName::from_static("x-kong-upstream-latency");
pub(crate) const RESPONSE_LATENCY: HeaderName = HeaderName::from_static("x-kong-response-latency");
pub(crate) const UPSTREAM_STATUS: HeaderName = HeaderName::from_static("x-kong-upstream-status");

/// What one client connection is, with the header values that say so.
pub(crate) struct Client {
    pub(crate) peer: IpAddr,
    pub(crate) peer_value: HeaderValue,
    pub(crate) tls: bool,
    /// Lower case.
    pub(crate) sni: Option<String>,
    /// The port the client connected to, as seen from outside.
    pub(crate) port: u16,
    pub(crate) port_value: HeaderValue,
    /// Whether what the peer says of others is believed.
    pub(crate) trusted: bool,
}

impl Client {
    pub(crate) fn new(options: &Options, peer: IpAddr, port: u16, tls: bool, sni: Option<&str>) -> Client {
        let peer = peer.to_canonical();
        let port = options.outside_port(port);
        Client {
            peer,
            peer_value: HeaderValue::from_str(&peer.to_string()).expect("an address is ASCII"),
            tls,
            sni: sni.map(str::to_ascii_lowercase),
            port,
            port_value: HeaderValue::from(port),
            trusted: options.trusts(peer),
        }
    }

    /// The client's own address: the peer's, or what a trusted peer says.
    pub(crate) fn address(&self, options: &Options, headers: &HeaderMap) -> IpAddr {
        if !self.trusted {
            return self.peer;
        }
        let real_ip = &options.real_ip;
        if real_ip.header != FORWARDED_FOR {
            return headers.get(&real_ip.header).and_then(parse_ip).unwrap_or(self.peer);
        }
        let lines = headers.get_all(FORWARDED_FOR);
        let hops = lines.iter().rev().filter_map(|line| line.to_str().ok());
        let mut found = self.peer;
        for hop in hops.flat_map(|line| line.rsplit(',')) {
            let Ok(ip) = hop.trim().parse::<IpAddr>() else { break };
            found = ip;
            if !real_ip.recursive || !options.trusts(ip) {
                break;
            }
        }
        found
    }
}

fn parse_ip(value: &HeaderValue) -> Option<IpAddr> {
    value.to_str().ok()?.trim().parse().ok()
}

/// What the upstream is told beside the client's own headers.
pub(crate) struct Told<'a> {
    pub(crate) client: &'a Client,
    pub(crate) client_ip: IpAddr,
    pub(crate) version: Version,
    /// The client's `Host`, as sent.
    pub(crate) host: Option<&'a HeaderValue>,
    /// The raw request path, without query.
    pub(crate) path: &'a str,
    /// The part of the path that was stripped, if any.
    pub(crate) prefix: Option<&'a str>,
    /// `Host` to send.
    pub(crate) upstream_host: HeaderValue,
    pub(crate) request_id: &'a HeaderValue,
}

/// The headers to send upstream, out of the client's.
pub(crate) fn to_upstream(from: &HeaderMap, told: Told<'_>, options: &Options) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(from.len() + 12);
    let named = ConnectionNames::of(from);
    headers.insert(HOST, told.upstream_host);
    for (name, value) in from {
        if !(is_hop_by_hop(name) || *name == HOST || named.contain(name)) {
            headers.append(name.clone(), value.clone());
        }
    }
    if from.get_all(TE).iter().any(|te| contains_token(te, "trailers")) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    let client = told.client;
    let forwarded = joined(headers.get_all(FORWARDED_FOR).iter(), &client.peer_value);
    headers.insert(FORWARDED_FOR, forwarded);
    if told.client_ip == client.peer {
        headers.insert(REAL_IP, client.peer_value.clone());
    } else if let Ok(value) = HeaderValue::from_str(&told.client_ip.to_string()) {
        headers.insert(REAL_IP, value);
    }
    let mut tell = |name: HeaderName, value: Option<HeaderValue>| match (headers.entry(name), value) {
        (Entry::Occupied(_), _) if client.trusted => {}
        (Entry::Occupied(mut entry), Some(value)) => _ = entry.insert(value),
        (Entry::Occupied(entry), None) => _ = entry.remove(),
        (Entry::Vacant(entry), Some(value)) => _ = entry.insert(value),
        (Entry::Vacant(_), None) => {}
    };
    let scheme = if client.tls { "https" } else { "http" };
    tell(FORWARDED_PROTO, Some(HeaderValue::from_static(scheme)));
    tell(FORWARDED_HOST, told.host.map(without_port));
    tell(FORWARDED_PORT, Some(client.port_value.clone()));
    tell(FORWARDED_PATH, HeaderValue::from_str(told.path).ok());
    tell(FORWARDED_PREFIX, told.prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok()));
    append_via(&mut headers, told.version, options);
    if options.request_id_upstream {
        headers.insert(REQUEST_ID, told.request_id.clone());
    }
    headers
}

/// A host header without its port.
fn without_port(host: &HeaderValue) -> HeaderValue {
    let bytes = host.as_bytes();
    let end = match bytes.iter().rposition(|&byte| byte == b':' || byte == b']') {
        Some(colon) if bytes[colon] == b':' => colon,
        _ => bytes.len(),
    };
    HeaderValue::from_bytes(&bytes[..end]).unwrap_or_else(|_| host.clone())
}

/// `a, b, last` out of header lines and one more value.
fn joined<'a>(
    lines: impl Iterator<Item = &'a HeaderValue>,
    last: &HeaderValue,
) -> HeaderValue {
    let mut all = Vec::new();
    for line in lines {
        all.extend_from_slice(line.as_bytes());
        all.extend_from_slice(b", ");
    }
    if all.is_empty() {
        return last.clone();
    }
    all.extend_from_slice(last.as_bytes());
    HeaderValue::from_bytes(&all).unwrap_or_else(|_| last.clone())
}

fn append_via(headers: &mut HeaderMap, version: Version, options: &Options) {
    let own = match version {
        Version::HTTP_2 => &options.via.http_2,
        Version::HTTP_10 => &options.via.http_10,
        _ => &options.via.http_11,
    };
    let all = joined(headers.get_all(VIA).iter(), own);
    headers.insert(VIA, all);
}

/// Takes out of an upstream's response what concerns only that connection.
pub(crate) fn from_upstream(headers: &mut HeaderMap, trailers_wanted: bool) {
    if headers.contains_key(CONNECTION) {
        for name in ConnectionNames::of(headers).0 {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, UPGRADE] {
        headers.remove(name);
    }
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    if !trailers_wanted {
        headers.remove(TRAILER);
    }
}

/// Adds the marks of a proxied response.
pub(crate) fn mark_proxied(headers: &mut HeaderMap, options: &Options) {
    if options.shown.via {
        append_via(headers, Version::HTTP_11, options);
    }
    if options.shown.server && !headers.contains_key(SERVER) {
        headers.insert(SERVER, options.server.clone());
    }
}

/// Whether a header concerns one connection only (RFC 9110 section 7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == TE
        || *name == TRANSFER_ENCODING
        || *name == UPGRADE
        || *name == KEEP_ALIVE
        || *name == PROXY
        || *name == PROXY_CONNECTION
        || *name == PROXY_AUTHENTICATE
}

/// The header names that a `Connection` header lists.
struct ConnectionNames(Vec<HeaderName>);

impl ConnectionNames {
    fn of(headers: &HeaderMap) -> ConnectionNames {
        let lines = headers.get_all(CONNECTION);
        let names = lines
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|name| !name.eq_ignore_ascii_case("keep-alive") && !name.is_empty())
            .filter_map(|name| name.parse().ok())
            // a client may not make the gateway drop what upstreams rely on
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH && *name != PROXY_AUTHORIZATION)
            .collect();
        ConnectionNames(names)
    }

    fn contain(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }
}

/// Whether a list header has a token, without case.
pub(crate) fn contains_token(value: &HeaderValue, token: &str) -> bool {
    value
        .to_str()
        .is_ok_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}
