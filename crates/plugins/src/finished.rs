//! What is known of a request once it is over, and how Kong's log plugins tell it.
//!
//! Source of names and meanings: data-plane reference 7.20 (`kong/pdk/log.lua`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::correlation_id::CorrelatedBy;
use crate::exchange::Exchange;
use crate::fields::Fields;
use crate::listed::{Listed, Secrets, arguments, headers};
use crate::trace::TraceIds;

/// A request that is over, whoever answered it and however far the answer came.
///
/// What the plugins made of the request is in the [`Exchange`] that comes with it.
#[derive(Debug)]
pub struct Finished<'a> {
    /// The id that client and upstream saw, 32 hex digits.
    pub request_id: &'a str,
    /// The method as the client sent it.
    pub method: &'a Method,
    /// The target as the client sent it.
    pub uri: &'a Uri,
    /// The host asked for: lower case, without port; empty if none was.
    pub host: &'a str,
    /// The port the client connected to, as seen from outside.
    pub port: u16,
    /// The client's TLS session, if there is one.
    pub tls: Option<TlsSession>,
    /// Bytes of the request that came, its head included.
    pub request_bytes: u64,
    /// The status sent; 499 if the client was gone before there was one.
    pub status: StatusCode,
    /// The header fields sent; empty if none were.
    pub response_headers: &'a Fields,
    /// Bytes of the response that went out, its head included.
    pub response_bytes: u64,
    /// Who made the response.
    pub source: ResponseSource,
    /// Where the time went.
    pub latencies: Latencies,
    /// Path and query sent to the upstream; empty if nothing was sent.
    pub upstream_uri: &'a str,
    /// Every try to reach the upstream, in order.
    pub tries: &'a [Try],
    /// The route that matched.
    pub route: Option<Entity<'a>>,
    /// Its service.
    pub service: Option<Entity<'a>>,
    /// Who called.
    pub consumer: Option<Entity<'a>>,
    /// The far end of the client's connection, a proxy or the client itself; its port where that is
    /// known.
    pub peer: (IpAddr, Option<u16>),
    /// When the request's head was there, nanoseconds since the Unix epoch.
    pub started_ns: u64,
    /// When the response was over.
    pub ended_ns: u64,
    /// Where the time went in detail; empty unless a handler [traces](crate::Handler::traces).
    pub parts: &'a [Part],
    /// Set for a session of a stream: then method, target and headers mean nothing, the bytes are
    /// those that the client sent and got, and `latencies.request` is how long it lasted.
    pub stream: Option<StreamSession>,
}

/// What only a session of a stream has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSession {
    /// Bytes that came from the upstream.
    pub upstream_received: u64,
    /// Bytes that went there.
    pub upstream_sent: u64,
}

/// A part of the time of a request, nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What happened.
    pub what: PartOf,
    /// When it began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

/// What happens in a part of the time of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartOf {
    /// The route is found.
    Router,
    /// All plugins run, before the request is sent on.
    Access,
    /// One of them runs.
    AccessOf(&'static str),
    /// The address of the upstream is chosen, which may mean to look up its name.
    Dns,
    /// All plugins run on the head of the response.
    HeaderFilter,
    /// One of them runs.
    HeaderFilterOf(&'static str),
}

/// An entity of the configuration that a request was served with.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct Entity<'a> {
    /// What it is called (a consumer by its `username`), if it is.
    #[serde(skip)]
    pub name: Option<&'a str>,
    /// All of it, as the Admin API shows it but for fields that are not set.
    pub json: &'a RawValue,
}

/// Names of what a TLS handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TlsSession {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name, such as `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher: &'static str,
    /// `NONE`, `SUCCESS` or `FAILED:reason`.
    pub client_verify: &'static str,
}

/// Who made a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResponseSource {
    /// The upstream.
    Upstream,
    /// The gateway: a plugin's answer, a refusal, a failure.
    Kong,
}

/// Where the time of a request went, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// In the gateway before the request was sent on, or until it answered itself.
    pub kong: u64,
    /// From then to the head of the upstream's response; -1 if there was none.
    pub proxy: i64,
    /// From the request's head to the end of the response.
    pub request: u64,
    /// From the head of the response to its end.
    pub receive: u64,
}

/// One try to reach the upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Try {
    /// When it began, milliseconds since the Unix epoch.
    pub balancer_start: u64,
    /// The same in nanoseconds, as exact as the gateway's clock.
    pub balancer_start_ns: u64,
    /// The address dialled; none if there was none to choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The port dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Until a connection was there, milliseconds.
    pub balancer_latency: u64,
    /// The same in nanoseconds.
    pub balancer_latency_ns: u64,
    /// Whether the connection had served a request before.
    pub keepalive: bool,
    /// `failed` for a try that brought no response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// What such a try counts as, 502 or 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The status that counts for this try: the response's, or `code`.
    #[serde(skip)]
    pub status: Option<u16>,
}

/// The common schema of Kong's log plugins, ready to be written as JSON.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct LogEntry<'a>(Logged<'a>);

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Logged<'a> {
    Request(Box<RequestEntry<'a>>),
    Stream(Box<StreamEntry<'a>>),
}

/// The form of a session.
#[derive(Debug, Serialize)]
struct StreamEntry<'a> {
    session: LoggedSession,
    upstream: LoggedUpstream,
    latencies: StreamLatencies,
    tries: &'a [Try],
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Entity<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Entity<'a>>,
    client_ip: IpAddr,
    started_at: u64,
    workspace_name: &'static str,
    source: ResponseSource,
}

#[derive(Debug, Serialize)]
struct LoggedSession {
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsSession>,
    received: u64,
    sent: u64,
    status: u16,
    server_port: u16,
}

#[derive(Debug, Serialize)]
struct LoggedUpstream {
    received: u64,
    sent: u64,
}

#[derive(Debug, Serialize)]
struct StreamLatencies {
    kong: u64,
    session: u64,
}

#[derive(Debug, Serialize)]
struct RequestEntry<'a> {
    request: LoggedRequest<'a>,
    upstream_uri: &'a str,
    upstream_status: String,
    response: LoggedResponse,
    latencies: Latencies,
    tries: &'a [Try],
    #[serde(skip_serializing_if = "Option::is_none")]
    authenticated_entity: Option<AuthenticatedEntity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Entity<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Entity<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<Entity<'a>>,
    client_ip: IpAddr,
    started_at: u64,
    workspace_name: &'static str,
    source: ResponseSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a BTreeMap<&'static str, String>>,
}

#[derive(Debug, Serialize)]
struct LoggedRequest<'a> {
    id: &'a str,
    uri: Cow<'a, str>,
    url: String,
    querystring: BTreeMap<String, Listed>,
    method: &'a str,
    headers: BTreeMap<String, Listed>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsSession>,
}

#[derive(Debug, Serialize)]
struct LoggedResponse {
    status: u16,
    headers: BTreeMap<String, Listed>,
    size: u64,
}

#[derive(Debug, Serialize)]
struct AuthenticatedEntity {
    id: uuid::Uuid,
}

impl Finished<'_> {
    /// The entry that every log plugin writes. Values of `Authorization` and
    /// `Proxy-Authorization` are not in it.
    pub fn entry<'a>(&'a self, exchange: &'a Exchange) -> LogEntry<'a> {
        LogEntry(match self.stream {
            Some(stream) => Logged::Stream(Box::new(self.stream_entry(stream, exchange))),
            None => Logged::Request(Box::new(self.request_entry(exchange))),
        })
    }

    fn stream_entry<'a>(&'a self, stream: StreamSession, exchange: &Exchange) -> StreamEntry<'a> {
        StreamEntry {
            session: LoggedSession {
                tls: self.tls,
                received: self.request_bytes,
                sent: self.response_bytes,
                status: self.status.as_u16(),
                server_port: self.port,
            },
            upstream: LoggedUpstream {
                received: stream.upstream_received,
                sent: stream.upstream_sent,
            },
            latencies: StreamLatencies {
                kong: self.latencies.kong,
                session: self.latencies.request,
            },
            tries: self.tries,
            route: self.route,
            service: self.service,
            client_ip: exchange.client_ip,
            started_at: exchange.now_ms,
            workspace_name: "default",
            source: self.source,
        }
    }

    fn request_entry<'a>(&'a self, exchange: &'a Exchange) -> RequestEntry<'a> {
        let uri = target(self.uri);
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        RequestEntry {
            request: LoggedRequest {
                id: self.request_id,
                url: format!("{scheme}://{}:{}{uri}", self.host, self.port),
                querystring: arguments(self.uri.query().unwrap_or_default()),
                uri,
                method: exchange.request.method.as_str(),
                headers: headers(&exchange.request.headers, Secrets::Redacted),
                size: self.request_bytes,
                tls: self.tls,
            },
            upstream_uri: self.upstream_uri,
            upstream_status: self.upstream_status(),
            response: LoggedResponse {
                status: self.status.as_u16(),
                headers: headers(self.response_headers, Secrets::Redacted),
                size: self.response_bytes,
            },
            latencies: self.latencies,
            tries: self.tries,
            authenticated_entity: exchange
                .credential
                .as_ref()
                .map(|credential| AuthenticatedEntity { id: credential.id }),
            route: self.route,
            service: self.service,
            consumer: self.consumer,
            client_ip: exchange.client_ip,
            started_at: exchange.now_ms,
            workspace_name: "default",
            source: self.source,
            correlation_id: exchange
                .state
                .get::<CorrelatedBy>()
                .and_then(CorrelatedBy::text),
            trace_id: exchange.state.get::<TraceIds>().map(|ids| &ids.0),
        }
    }

    /// The statuses of all tries, such as `502, 200`; empty if there was none.
    pub fn upstream_status(&self) -> String {
        let statuses = self.tries.iter().filter_map(|tried| tried.status);
        let texts: Vec<String> = statuses.map(|status| status.to_string()).collect();
        texts.join(", ")
    }
}

impl LogEntry<'_> {
    /// As one line of JSON, without a line feed.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an entry has only text keys")
    }

    /// As a value, for plugins that change it.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("an entry has only text keys")
    }
}

/// A request's target without scheme and host, as `$request_uri` of nginx.
fn target(uri: &Uri) -> Cow<'_, str> {
    match uri.path_and_query() {
        Some(target) => PathAndQuery::as_str(target).into(),
        None => uri.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::exchange;

    fn tried(status: u16, failed: bool) -> Try {
        Try {
            balancer_start: 1_700_000_000_001,
            balancer_start_ns: 1_700_000_000_001_000_000,
            ip: Some(IpAddr::from([127, 0, 0, 1])),
            port: Some(8080),
            balancer_latency: 0,
            balancer_latency_ns: 51_000,
            keepalive: !failed,
            state: failed.then_some("failed"),
            code: failed.then_some(status),
            status: Some(status),
        }
    }

    #[test]
    fn an_entry_of_a_stream_has_its_own_names() {
        let exchange = exchange(http::Request::get("/"));
        let service = RawValue::from_string(r#"{"id":"s"}"#.to_owned()).unwrap();
        let finished = Finished {
            request_id: "",
            method: &Method::GET,
            uri: &Uri::default(),
            host: "",
            port: 9443,
            tls: None,
            request_bytes: 5,
            status: StatusCode::OK,
            response_headers: &Fields::new(),
            response_bytes: 7,
            source: ResponseSource::Upstream,
            latencies: Latencies {
                kong: 1,
                proxy: -1,
                request: 9,
                receive: 0,
            },
            upstream_uri: "",
            tries: &[],
            route: None,
            service: Some(Entity {
                name: None,
                json: &service,
            }),
            consumer: None,
            peer: ([10, 0, 0, 1].into(), Some(40_000)),
            started_ns: 0,
            ended_ns: 9_000_000,
            parts: &[],
            stream: Some(StreamSession {
                upstream_received: 7,
                upstream_sent: 5,
            }),
        };
        assert_eq!(
            finished.entry(&exchange).to_value(),
            json!({
                "session": {"received": 5, "sent": 7, "status": 200, "server_port": 9443},
                "upstream": {"received": 7, "sent": 5},
                "latencies": {"kong": 1, "session": 9},
                "tries": [],
                "service": {"id": "s"},
                "client_ip": "10.0.0.1",
                "started_at": 0,
                "workspace_name": "default",
                "source": "upstream",
            })
        );
    }

    #[test]
    fn an_entry_has_the_names_of_kong() {
        let request = http::Request::get("/v1/orders?a=1&a=2&b&c=%2F+x")
            .header("Host", "Api.Example:8000")
            .header("Authorization", "Basic c2VjcmV0")
            .header("X-Two", "1")
            .header("x-two", "2");
        let exchange = exchange(request);
        let mut response_headers = Fields::new();
        response_headers.set(
            &http::header::CONTENT_TYPE,
            &http::HeaderValue::from_static("text/plain"),
        );
        let route = RawValue::from_string(r#"{"id":"r","paths":["/v1"]}"#.to_owned()).unwrap();
        let tries = [tried(502, true), tried(200, false)];
        let uri = exchange.request.uri.clone();
        let finished = Finished {
            request_id: "0123",
            method: &Method::GET,
            uri: &uri,
            host: "api.example",
            port: 8443,
            tls: Some(TlsSession {
                version: "TLSv1.3",
                cipher: "TLS_AES_256_GCM_SHA384",
                client_verify: "NONE",
            }),
            request_bytes: 90,
            status: StatusCode::OK,
            response_headers: &response_headers,
            response_bytes: 120,
            source: ResponseSource::Upstream,
            latencies: Latencies {
                kong: 1,
                proxy: 7,
                request: 9,
                receive: 1,
            },
            upstream_uri: "/orders?a=1",
            tries: &tries,
            route: Some(Entity {
                name: Some("r"),
                json: &route,
            }),
            service: None,
            consumer: None,
            peer: ([10, 0, 0, 1].into(), Some(40_000)),
            started_ns: 0,
            ended_ns: 9_000_000,
            parts: &[],
            stream: None,
        };
        let entry = finished.entry(&exchange);
        let expected = json!({
            "request": {
                "id": "0123",
                "uri": "/v1/orders?a=1&a=2&b&c=%2F+x",
                "url": "https://api.example:8443/v1/orders?a=1&a=2&b&c=%2F+x",
                "querystring": {"a": ["1", "2"], "b": true, "c": "/ x"},
                "method": "GET",
                "headers": {
                    "host": "Api.Example:8000", "authorization": "REDACTED", "x-two": ["1", "2"],
                },
                "size": 90,
                "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384",
                        "client_verify": "NONE"},
            },
            "upstream_uri": "/orders?a=1",
            "upstream_status": "502, 200",
            "response": {"status": 200, "headers": {"content-type": "text/plain"}, "size": 120},
            "latencies": {"kong": 1, "proxy": 7, "request": 9, "receive": 1},
            "tries": [
                {"balancer_start": 1_700_000_000_001_u64,
                 "balancer_start_ns": 1_700_000_000_001_000_000_u64, "ip": "127.0.0.1",
                 "port": 8080, "balancer_latency": 0, "balancer_latency_ns": 51_000,
                 "keepalive": false, "state": "failed", "code": 502},
                {"balancer_start": 1_700_000_000_001_u64,
                 "balancer_start_ns": 1_700_000_000_001_000_000_u64, "ip": "127.0.0.1",
                 "port": 8080, "balancer_latency": 0, "balancer_latency_ns": 51_000,
                 "keepalive": true},
            ],
            "route": {"id": "r", "paths": ["/v1"]},
            "client_ip": "10.0.0.1",
            "started_at": 0,
            "workspace_name": "default",
            "source": "upstream",
        });
        assert_eq!(entry.to_value(), expected);
        assert_eq!(
            serde_json::from_str::<Value>(&entry.to_json()).unwrap(),
            expected
        );
    }
}
