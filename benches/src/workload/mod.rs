//! What is sent through the proxies, and what must come back before anything is measured.

mod verify;

use std::fmt;
use std::fmt::Write as _;

/// How many routes share a service in the workload `gateway`.
pub(crate) const ROUTES_PER_SERVICE: u32 = 10;
/// How many consumers there are in the workload `gateway`, each with one key.
pub(crate) const CONSUMERS: u32 = 100;
/// Requests per minute and consumer: so many that the limit counts but never refuses.
pub(crate) const LIMIT_PER_MINUTE: u64 = 1_000_000_000;

/// Routes of the workload `gateway` unless it is run with others too.
pub(crate) const ROUTES: u32 = 1_000;

/// The name of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// One route that forwards everything
    Plain,
    /// Many routes, key-auth, local rate limit, header edits
    Gateway,
    /// One route with key-auth, local rate limit and request-transformer
    Transform,
    /// The work of `plain`, with TLS to the client, connections kept
    Tls,
    /// The work of `plain`, with a new TLS connection, never resumed, for each request
    Handshakes,
    /// The work of `plain`, over HTTP/2 with TLS to the client, several streams a connection
    Http2,
}

impl Name {
    /// Whether clients come with TLS.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Name::Tls | Name::Handshakes | Name::Http2)
    }

    /// Whether callers need a key.
    pub(crate) fn has_keys(self) -> bool {
        matches!(self, Name::Gateway | Name::Transform)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Plain => "plain",
            Name::Gateway => "gateway",
            Name::Transform => "transform",
            Name::Tls => "tls",
            Name::Handshakes => "handshakes",
            Name::Http2 => "http2",
        })
    }
}

/// A workload in its sizes.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: Name,
    /// How many routes the proxy has.
    pub(crate) routes: u32,
    /// What the backend answers, a text without any character that nginx gives a meaning.
    pub(crate) body: String,
}

impl Workload {
    /// `routes` counts only for the workload `gateway`; the others have one.
    pub(crate) fn new(name: Name, routes: u32, body_bytes: u32) -> Workload {
        let routes = if name == Name::Gateway { routes } else { 1 };
        let body = "0123456789abcdef"
            .chars()
            .cycle()
            .take(body_bytes as usize)
            .collect();
        Workload { name, routes, body }
    }

    /// What the report calls it.
    pub(crate) fn label(&self) -> String {
        match (self.name, self.routes) {
            (Name::Gateway, ROUTES) => "gateway".to_owned(),
            (Name::Gateway, routes) => format!("gateway, {routes} routes"),
            (name, _) => name.to_string(),
        }
    }

    /// The path prefix of a route; the proxy cuts it off.
    pub(crate) fn prefix(route: u32) -> String {
        format!("/route-{route:04}")
    }

    /// The name of a consumer.
    pub(crate) fn consumer(number: u32) -> String {
        format!("consumer-{number:03}")
    }

    /// The key of a consumer.
    pub(crate) fn key(number: u32) -> String {
        format!("key-of-consumer-{number:03}")
    }

    /// The wrk script: which requests are sent, and the counts as one JSON line at the end.
    pub(crate) fn script(&self) -> String {
        let mut script = String::new();
        if self.name.has_keys() {
            // Requests are made once, in a fixed random order: walking the routes in their own
            // order would be kind to caches.
            let (routes, consumers) = (self.routes, CONSUMERS);
            let requests = routes.max(consumers);
            let headers = match self.name {
                Name::Transform => r#", ["x-client"] = "bench", ["x-internal"] = "secret""#,
                _ => "",
            };
            _ = write!(
                script,
                r#"local requests, at = {{}}, 0
init = function(args)
  for i = 0, {requests} - 1 do
    local key = string.format("key-of-consumer-%03d", i % {consumers})
    local path = string.format("/route-%04d/item", i % {routes})
    requests[i + 1] = wrk.format("GET", path, {{ ["apikey"] = key{headers} }})
  end
  math.randomseed(1)
  for i = #requests, 2, -1 do
    local j = math.random(i)
    requests[i], requests[j] = requests[j], requests[i]
  end
end
request = function()
  at = at % {requests} + 1
  return requests[at]
end
"#
            );
        }
        script.push_str(crate::load::wrk::REPORT);
        script
    }
}
