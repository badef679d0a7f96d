//! Header rules in both directions. Source: data-plane reference 4.7 and 4.8.

use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, SERVER, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::http1::framing::Length;
use super::http1::write::{line, line_of, number};
use super::lines::Lines;
use super::options::Options;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
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
    pub(crate) fn new(
        options: &Options,
        peer: IpAddr,
        port: u16,
        tls: bool,
        sni: Option<&str>,
    ) -> Client {
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
            return headers
                .get(&real_ip.header)
                .and_then(parse_ip)
                .unwrap_or(self.peer);
        }
        let lines = headers.get_all(FORWARDED_FOR);
        let hops = lines.iter().rev().filter_map(|line| line.to_str().ok());
        let mut found = self.peer;
        for hop in hops.flat_map(|line| line.rsplit(',')) {
            let Ok(ip) = hop.trim().parse::<IpAddr>() else {
                break;
            };
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
    pub(crate) upstream_host: &'a HeaderValue,
    pub(crate) request_id: &'a HeaderValue,
    /// How the body is framed.
    pub(crate) length: Length,
}

/// Writes the headers that go upstream, out of the client's.
pub(crate) fn to_upstream(
    out: &mut BytesMut,
    from: &HeaderMap,
    told: &Told<'_>,
    options: &Options,
) {
    out.reserve(512);
    let client = told.client;
    let named = ConnectionNames::of(from);
    let mut te_trailers = false;
    let mut kept = Kept::default();
    line(out, "host", told.upstream_host);
    for (name, value) in from {
        let text = name.as_str();
        match text {
            "host" | "connection" | "keep-alive" | "proxy" | "proxy-connection" | "upgrade"
            | "transfer-encoding" | "content-length" | "x-forwarded-for" | "x-real-ip" | "via"
            | "x-kong-request-id" => continue,
            "te" => {
                te_trailers |= contains_token(value, "trailers");
                continue;
            }
            "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port" | "x-forwarded-path"
            | "x-forwarded-prefix" => {
                if !client.trusted {
                    continue;
                }
                kept.note(text);
            }
            _ if named.contain(name) => continue,
            _ => {}
        }
        line(out, text, value);
    }
    match told.length {
        Length::Exact(0) if !from.contains_key(CONTENT_LENGTH) => {}
        Length::Exact(bytes) => {
            out.extend_from_slice(b"content-length: ");
            number(out, bytes);
            out.extend_from_slice(b"\r\n");
        }
        Length::Chunked | Length::UntilClose => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
    }
    if te_trailers {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    out.extend_from_slice(b"connection: keep-alive\r\n");
    appended(out, FORWARDED_FOR, from, &client.peer_value);
    if told.client_ip == client.peer {
        line(out, "x-real-ip", &client.peer_value);
    } else {
        line_of(out, "x-real-ip", &[told.client_ip.to_string().as_bytes()]);
    }
    if !kept.proto {
        let scheme: &[u8] = if client.tls { b"https" } else { b"http" };
        line_of(out, "x-forwarded-proto", &[scheme]);
    }
    if let Some(host) = told.host.filter(|_| !kept.host) {
        line_of(out, "x-forwarded-host", &[without_port(host.as_bytes())]);
    }
    if !kept.port {
        line(out, "x-forwarded-port", &client.port_value);
    }
    if !kept.path {
        line_of(out, "x-forwarded-path", &[told.path.as_bytes()]);
    }
    if let Some(prefix) = told.prefix.filter(|_| !kept.prefix) {
        line_of(out, "x-forwarded-prefix", &[prefix.as_bytes()]);
    }
    appended(out, VIA, from, options.via.of(told.version));
    if options.request_id_upstream {
        line(out, "x-kong-request-id", told.request_id);
    }
}

/// Which headers of a trusted client stay as they are.
#[derive(Default)]
struct Kept {
    proto: bool,
    host: bool,
    port: bool,
    path: bool,
    prefix: bool,
}

impl Kept {
    fn note(&mut self, name: &str) {
        match name {
            "x-forwarded-proto" => self.proto = true,
            "x-forwarded-host" => self.host = true,
            "x-forwarded-port" => self.port = true,
            "x-forwarded-path" => self.path = true,
            _ => self.prefix = true,
        }
    }
}

/// Writes a list header: what the client sent, then one more value.
fn appended(out: &mut BytesMut, name: HeaderName, from: &HeaderMap, last: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    for value in from.get_all(name) {
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(last.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A host header without its port.
fn without_port(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|&byte| byte == b':' || byte == b']') {
        Some(colon) if host[colon] == b':' => &host[..colon],
        _ => host,
    }
}

/// Adds the marks of a proxied response.
pub(crate) fn mark_proxied(headers: &mut Lines, options: &Options) {
    if options.shown.via {
        let own = options.via.of(Version::HTTP_11);
        let mut all: Vec<&[u8]> = Vec::new();
        for (_, value) in headers.iter().filter(|(name, _)| *name == VIA) {
            all.push(value.as_bytes());
        }
        let value = if all.is_empty() {
            own.clone()
        } else {
            all.push(own.as_bytes());
            HeaderValue::from_bytes(&all.join(&b", "[..])).unwrap_or_else(|_| own.clone())
        };
        headers.set(VIA, value);
    }
    if options.shown.server && headers.get(&SERVER).is_none() {
        headers.append(SERVER, options.server.clone());
    }
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
            .filter(|name| !says_who_calls(name))
            .collect();
        ConnectionNames(names)
    }

    fn contain(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }
}

/// Whether plugins tell the upstream by this header who the caller is.
/// Source: data-plane reference 6.5.
fn says_who_calls(name: &HeaderName) -> bool {
    let name = name.as_str();
    [
        "x-consumer-",
        "x-credential-",
        "x-anonymous-consumer",
        "x-authenticated-",
    ]
    .iter()
    .any(|start| name.starts_with(start))
}

/// Whether a list header has a token, without case.
pub(crate) fn contains_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|value| {
        value
            .split(',')
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    })
}
