//! Header rules in both directions. Source: data-plane reference 4.7 and 4.8.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use http::header::{CONNECTION, SERVER, VIA};
use http::{HeaderName, HeaderValue, Version};
use sallyport_plugins::{Fields, TlsSession};
use tokio::net::TcpStream;

use super::http1::framing::Length;
use super::http1::write::{line, number};
use super::options::Options;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-kong-request-id");
pub(crate) const PROXY_LATENCY: HeaderName = HeaderName::from_static("x-kong-proxy-latency");
pub(crate) const UPSTREAM_LATENCY: HeaderName = HeaderName::from_static("x-kong-upstream-latency");
pub(crate) const RESPONSE_LATENCY: HeaderName = HeaderName::from_static("x-kong-response-latency");
pub(crate) const UPSTREAM_STATUS: HeaderName = HeaderName::from_static("x-kong-upstream-status");

const KEEP_ALIVE: &[u8] = b"connection: keep-alive\r\n";
pub(crate) const UPGRADE: &[u8] = b"connection: Upgrade\r\nupgrade: websocket\r\n";

/// What one client connection is, with the header values that say so.
pub(crate) struct Client {
    pub(crate) peer: IpAddr,
    pub(crate) peer_value: HeaderValue,
    pub(crate) tls: bool,
    /// What its handshake agreed on, as logs tell it.
    pub(crate) session: Option<TlsSession>,
    /// Lower case.
    pub(crate) sni: Option<String>,
    /// The port the client connected to, as seen from outside.
    pub(crate) port: u16,
    /// The peer's port, where routes may look at it.
    pub(crate) peer_port: Option<u16>,
    /// The address it connected to.
    pub(crate) local: SocketAddr,
    /// Which connection of this process it is, from 1.
    pub(crate) serial: u64,
    /// Requests that came over it.
    pub(crate) requests: Cell<u64>,
    /// The lines about it that an upstream gets whoever asks.
    lines: Box<[u8]>,
    /// Whether what the peer says of others is believed.
    pub(crate) trusted: bool,
    /// For whom it says it connected, by the PROXY protocol.
    told: Option<SocketAddr>,
}

/// Connections of all workers so far.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

impl Client {
    /// A connection from `peer` to the listener `bound`.
    pub(crate) fn new(
        options: &Options,
        peer: IpAddr,
        bound: SocketAddr,
        tls: bool,
        sni: Option<&str>,
    ) -> Client {
        let peer = peer.to_canonical();
        let port = options.outside_port(bound.port());
        let mut lines = BytesMut::new();
        line(&mut lines, "x-real-ip", &[peer.to_string().as_bytes()]);
        line(&mut lines, "x-forwarded-proto", &[scheme(tls)]);
        line(
            &mut lines,
            "x-forwarded-port",
            &[port.to_string().as_bytes()],
        );
        Client {
            peer,
            peer_value: HeaderValue::from_str(&peer.to_string()).expect("an address is ASCII"),
            tls,
            session: None,
            sni: sni.map(str::to_ascii_lowercase),
            port,
            peer_port: None,
            local: bound,
            serial: CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1,
            requests: Cell::new(0),
            lines: lines[..].into(),
            trusted: options.trusts(peer),
            told: None,
        }
    }

    /// Notes the rest of a connection's addresses.
    pub(crate) fn on(mut self, stream: &TcpStream, options: &Options) -> Client {
        if let Ok(local) = stream.local_addr() {
            self.local = SocketAddr::new(local.ip().to_canonical(), local.port());
        }
        if options.routes_by_address {
            self.peer_port = stream.peer_addr().ok().map(|peer| peer.port());
        }
        self
    }

    /// Notes for whom the peer has connected to what, by its own word.
    pub(crate) fn for_whom(mut self, told: Option<(SocketAddr, SocketAddr)>) -> Client {
        self.told = told.map(|(source, _)| source);
        self
    }

    /// The client's port, if it is known.
    pub(crate) fn source_port(&self, options: &Options) -> Option<u16> {
        let believed = self.trusted && options.real_ip.header.is_none();
        let told = self.told.filter(|_| believed).map(|source| source.port());
        self.peer_port.map(|own| told.unwrap_or(own))
    }

    /// The client's own address: the peer's, or what a trusted peer says.
    pub(crate) fn address(&self, options: &Options, headers: &Fields) -> IpAddr {
        if !self.trusted {
            return self.peer;
        }
        let real_ip = &options.real_ip;
        let Some(header) = &real_ip.header else {
            return self
                .told
                .map_or(self.peer, |source| source.ip().to_canonical());
        };
        if *header != FORWARDED_FOR {
            return headers
                .get_str(header)
                .and_then(|ip| ip.trim().parse().ok())
                .unwrap_or(self.peer);
        }
        let lines = headers.get_all(&FORWARDED_FOR);
        let hops = lines
            .rev()
            .filter_map(|line| std::str::from_utf8(line).ok());
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

fn scheme(tls: bool) -> &'static [u8] {
    if tls { b"https" } else { b"http" }
}

/// What the upstream is told beside the client's own headers.
pub(crate) struct Told<'a> {
    pub(crate) client: &'a Client,
    pub(crate) client_ip: IpAddr,
    pub(crate) version: Version,
    /// The client's `Host`, as sent.
    pub(crate) host: Option<&'a [u8]>,
    /// The raw request path, without query.
    pub(crate) path: &'a str,
    /// The part of the path that was stripped, if any.
    pub(crate) prefix: Option<&'a str>,
    /// `Host` to send.
    pub(crate) upstream_host: &'a [u8],
    pub(crate) request_id: &'a HeaderValue,
    /// How the body is framed.
    pub(crate) length: Length,
    /// Whether the client asks to go on as WebSocket.
    pub(crate) upgrade: bool,
}

/// Writes the headers that go upstream, out of the client's.
pub(crate) fn to_upstream(out: &mut BytesMut, from: &Fields, told: &Told<'_>, options: &Options) {
    out.reserve(512);
    let client = told.client;
    let named = ConnectionNames::of(from);
    let mut te_trailers = false;
    let mut kept = Kept::default();
    let mut has_length = false;
    line(out, "host", &[told.upstream_host]);
    from.write(out, |name, value| {
        let is = |lower: &[u8]| name.eq_ignore_ascii_case(lower);
        let ours = match name.len() {
            2 if is(b"te") => {
                te_trailers |= contains_token(value, "trailers");
                true
            }
            3 => is(b"via"),
            4 => is(b"host"),
            5 => is(b"proxy"),
            7 => is(b"upgrade"),
            9 => is(b"x-real-ip"),
            10 => is(b"connection") || is(b"keep-alive"),
            14 if is(b"content-length") => {
                has_length = true;
                true
            }
            14 => is(b"http2-settings"),
            15 => is(b"x-forwarded-for"),
            16 => is(b"proxy-connection") || kept.may_drop(name, client.trusted),
            17 => {
                is(b"transfer-encoding")
                    || is(b"x-kong-request-id")
                    || kept.may_drop(name, client.trusted)
            }
            18 => kept.may_drop(name, client.trusted),
            _ => false,
        };
        !ours && !named.contain(name)
    });
    match told.length {
        Length::Exact(0) if !has_length => {}
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
    // a load balancer that speaks the PROXY protocol is no hop of HTTP
    let by_proxy_protocol = client.trusted && options.real_ip.header.is_none();
    if by_proxy_protocol && !from.contains(&FORWARDED_FOR) {
        let client_ip = told.client_ip.to_string();
        line(out, "x-forwarded-for", &[client_ip.as_bytes()]);
    } else {
        appended(out, &FORWARDED_FOR, from, &client.peer_value);
    }
    out.extend_from_slice(match told.upgrade {
        true => UPGRADE,
        false => KEEP_ALIVE,
    });
    if client.trusted {
        told_by_trusted(out, told, &kept);
    } else {
        out.extend_from_slice(&client.lines);
    }
    if let Some(host) = told.host.filter(|_| !kept.host) {
        line(out, "x-forwarded-host", &[without_port(host)]);
    }
    if !kept.path {
        line(out, "x-forwarded-path", &[told.path.as_bytes()]);
    }
    if let Some(prefix) = told.prefix.filter(|_| !kept.prefix) {
        line(out, "x-forwarded-prefix", &[prefix.as_bytes()]);
    }
    appended(out, &VIA, from, options.via.of(told.version));
    if options.request_id_upstream {
        line(out, "x-kong-request-id", &[told.request_id.as_bytes()]);
    }
}

/// What [`Client::lines`] says, as far as a trusted client did not say it.
fn told_by_trusted(out: &mut BytesMut, told: &Told<'_>, kept: &Kept) {
    let client = told.client;
    line(out, "x-real-ip", &[told.client_ip.to_string().as_bytes()]);
    if !kept.proto {
        line(out, "x-forwarded-proto", &[scheme(client.tls)]);
    }
    if !kept.port {
        line(
            out,
            "x-forwarded-port",
            &[client.port.to_string().as_bytes()],
        );
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
    /// Whether a line is one of those that only a trusted client may bring; notes what it brings.
    fn may_drop(&mut self, name: &[u8], trusted: bool) -> bool {
        let lines = [
            (&b"x-forwarded-proto"[..], &mut self.proto),
            (b"x-forwarded-host", &mut self.host),
            (b"x-forwarded-port", &mut self.port),
            (b"x-forwarded-path", &mut self.path),
            (b"x-forwarded-prefix", &mut self.prefix),
        ];
        for (line, kept) in lines {
            if name.eq_ignore_ascii_case(line) {
                *kept = trusted;
                return !trusted;
            }
        }
        false
    }
}

/// Writes a list header: what the client sent, then one more value.
fn appended(out: &mut BytesMut, name: &HeaderName, from: &Fields, last: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    for value in from.get_all(name) {
        out.extend_from_slice(value);
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

/// Adds the marks of a response that was proxied in this version.
pub(crate) fn mark_proxied(headers: &mut Fields, version: Version, options: &Options) {
    if options.shown.via {
        let own = options.via.of(version);
        let mut all: Vec<&[u8]> = headers.get_all(&VIA).collect();
        if all.is_empty() {
            headers.append(&VIA, own);
        } else {
            all.push(own.as_bytes());
            let value = HeaderValue::from_bytes(&all.join(&b", "[..]));
            headers.set(&VIA, value.as_ref().unwrap_or(own));
        }
    }
    if options.shown.server && !headers.contains(&SERVER) {
        headers.append(&SERVER, &options.server);
    }
}

/// The header names that a `Connection` header lists.
struct ConnectionNames<'a>(Vec<&'a [u8]>);

impl<'a> ConnectionNames<'a> {
    fn of(headers: &'a Fields) -> ConnectionNames<'a> {
        let names = headers
            .get_all(&CONNECTION)
            .flat_map(|line| line.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.eq_ignore_ascii_case(b"keep-alive") && !name.is_empty())
            // a client may not make the gateway drop what upstreams rely on
            .filter(|name| {
                ![&b"host"[..], b"content-length", b"proxy-authorization"]
                    .iter()
                    .any(|needed| name.eq_ignore_ascii_case(needed))
            })
            .filter(|name| !says_who_calls(name))
            .collect();
        ConnectionNames(names)
    }

    fn contain(&self, name: &[u8]) -> bool {
        self.0
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(name))
    }
}

/// Whether plugins tell the upstream by this header who the caller is.
/// Source: data-plane reference 6.5.
fn says_who_calls(name: &[u8]) -> bool {
    [
        "x-consumer-",
        "x-credential-",
        "x-anonymous-consumer",
        "x-authenticated-",
    ]
    .iter()
    .filter_map(|start| Some((name.get(..start.len())?, start)))
    .any(|(found, start)| found.eq_ignore_ascii_case(start.as_bytes()))
}

/// Whether a list header has a token, without case.
pub(crate) fn contains_token(value: &[u8], token: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
