//! The router by its decisions, flavour by flavour.

mod attributes;
mod engine;
mod incremental;
mod order;
mod paths;
mod streams;

use http::Method;
use serde_json::{Value, json};

use super::*;

const ALL: [RouterFlavor; 3] = RouterFlavor::ALL;
const COMPATIBLE: RouterFlavor = RouterFlavor::TraditionalCompatible;
const TRADITIONAL: RouterFlavor = RouterFlavor::Traditional;
const EXPRESSIONS: RouterFlavor = RouterFlavor::Expressions;

/// A route with the schema's defaults and these fields; its id is `n` unless it has one.
fn route(n: u128, fields: &Value) -> Route {
    let mut all = json!({
        "id": Uuid::from_u128(n), "protocols": ["http", "https"], "https_redirect_status_code": 426,
        "regex_priority": 0, "strip_path": true, "preserve_host": false,
        "request_buffering": true, "response_buffering": true,
    });
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

/// Routes with the ids 1, 2, …
fn list(fields: &[Value]) -> Vec<Route> {
    let numbered = fields.iter().enumerate();
    numbered
        .map(|(n, fields)| route(n as u128 + 1, fields))
        .collect()
}

struct Case {
    router: Router,
    routes: Vec<Route>,
}

/// A router over these routes.
fn routes(flavor: RouterFlavor, fields: &[Value]) -> Case {
    let routes = list(fields);
    let router = Router::new(flavor).updated(&routes).unwrap().0;
    Case { router, routes }
}

/// A request, `METHOD host[:port]/path[?query]`, and what else there is about it.
#[derive(Clone, Debug)]
struct Request<'a> {
    line: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    /// TLS, maybe with a name.
    tls: Option<Option<&'a str>>,
    source: &'a str,
    local: &'a str,
}

fn get(line: &str) -> Request<'_> {
    Request {
        line,
        headers: Vec::new(),
        tls: None,
        source: "192.0.2.1:4000",
        local: "198.51.100.1",
    }
}

impl<'a> Request<'a> {
    fn header(mut self, name: &'a str, value: &'a str) -> Request<'a> {
        self.headers.push((name, value));
        self
    }

    fn tls(mut self, sni: Option<&'a str>) -> Request<'a> {
        self.tls = Some(sni);
        self
    }

    /// Calls with the query that the request makes; its listener has port 8000.
    fn ask<T>(&self, answer: impl FnOnce(&Query<'_>) -> T) -> T {
        let (method, target) = self.line.split_once(' ').unwrap();
        let (host, target) = target.split_at(target.find('/').unwrap());
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let (host, host_port) = split_port(host).unwrap();
        let mut headers = Fields::new();
        for (name, value) in &self.headers {
            headers.append(&name.parse().unwrap(), &value.parse().unwrap());
        }
        let source: std::net::SocketAddr = self.source.parse().unwrap();
        answer(&Query {
            method: &Method::from_bytes(method.as_bytes()).unwrap(),
            host,
            host_port,
            port: 8000,
            path: &normalise(path),
            query,
            headers: &headers,
            sni: self.tls.flatten(),
            tls: self.tls.is_some(),
            source: (Some(source.ip()), Some(source.port())),
            local: Some(self.local.parse().unwrap()),
        })
    }
}

impl Case {
    /// Index of the route, and bytes of the path that it matched.
    fn find(&self, request: &Request<'_>) -> Option<(usize, usize)> {
        request.ask(|query| {
            let found = self.router.find(query)?;
            let slot = |route: &Route| self.router.slot(route.id) == Some(found.slot);
            Some((self.routes.iter().position(slot).unwrap(), found.matched))
        })
    }

    #[track_caller]
    fn check(&self, request: &Request<'_>, expected: Option<usize>) -> &Case {
        assert_eq!(
            self.find(request).map(|found| found.0),
            expected,
            "{request:?}"
        );
        self
    }

    /// Plain requests.
    #[track_caller]
    fn on(&self, line: &str, expected: Option<usize>) -> &Case {
        self.check(&get(line), expected)
    }
}
