//! What is sent through the proxies, and what must come back before anything is measured.

use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use sallyport_testkit::http::{self, Response};

/// How many routes share a service in the workload `gateway`.
pub(crate) const ROUTES_PER_SERVICE: u32 = 10;
/// How many consumers there are in the workload `gateway`, each with one key.
pub(crate) const CONSUMERS: u32 = 100;
/// Requests per minute and consumer: so many that the limit counts but never refuses.
pub(crate) const LIMIT_PER_MINUTE: u64 = 1_000_000_000;

/// The name of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// One route that forwards everything
    Plain,
    /// Many routes, key-auth, local rate limit, header edits
    Gateway,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Plain => "plain",
            Name::Gateway => "gateway",
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
    pub(crate) fn new(name: Name, routes: u32, body_bytes: u32) -> Workload {
        let routes = if name == Name::Plain { 1 } else { routes };
        let body = "0123456789abcdef"
            .chars()
            .cycle()
            .take(body_bytes as usize)
            .collect();
        Workload { name, routes, body }
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
        if self.name == Name::Gateway {
            // Requests are made once, in a fixed random order: walking the routes in their own
            // order would be kind to caches.
            let (routes, consumers) = (self.routes, CONSUMERS);
            _ = write!(
                script,
                r#"local requests, at = {{}}, 0
init = function(args)
  for i = 0, {routes} - 1 do
    local key = string.format("key-of-consumer-%03d", i % {consumers})
    local path = string.format("/route-%04d/item", i)
    requests[i + 1] = wrk.format("GET", path, {{ ["apikey"] = key }})
  end
  math.randomseed(1)
  for i = #requests, 2, -1 do
    local j = math.random(i)
    requests[i], requests[j] = requests[j], requests[i]
  end
end
request = function()
  at = at % {routes} + 1
  return requests[at]
end
"#
            );
        }
        script.push_str(crate::wrk::REPORT);
        script
    }

    /// Checks that the proxy at `addr` does the work: right answers, and right refusals.
    pub(crate) fn verify(&self, addr: SocketAddr) -> anyhow::Result<()> {
        let send = |path: &str, key: Option<&str>| -> anyhow::Result<Response> {
            let mut request = http::get(format!("http://{addr}{path}"));
            if let Some(key) = key {
                request = request.header("apikey", key);
            }
            request.send().with_context(|| format!("GET {path}"))
        };
        let status = |path: &str, key: Option<&str>, wanted: u16| -> anyhow::Result<()> {
            let answer = send(path, key)?;
            if answer.status != wanted {
                bail!(
                    "GET {path} (key {key:?}): {wanted} expected, {}",
                    shown(&answer)
                );
            }
            Ok(())
        };
        let body = |path: &str, key: Option<&str>, wanted: &str| -> anyhow::Result<()> {
            let answer = send(path, key)?;
            if (answer.status, &*answer.text()) != (200, wanted) {
                bail!(
                    "GET {path} (key {key:?}): 200 {wanted:?} expected, {}",
                    shown(&answer)
                );
            }
            Ok(())
        };
        if self.name == Name::Plain {
            return body("/", None, &self.body);
        }
        let key = Workload::key(0);
        for route in [0, self.routes / 2, self.routes - 1] {
            body(
                &format!("{}/item", Workload::prefix(route)),
                Some(&key),
                &self.body,
            )?;
        }
        // The backend tells what reached it at /seen: the prefix is gone, the edits are there.
        let seen = format!("{}/seen", Workload::prefix(0));
        let consumer = Workload::consumer(0);
        body(
            &seen,
            Some(&key),
            &format!("consumer={consumer} forwarded=127.0.0.1/http"),
        )?;
        let item = format!("{}/item", Workload::prefix(0));
        status(&item, None, 401)?;
        status(&item, Some("a wrong key"), 401)?;
        status("/no-such-route", Some(&key), 404)
    }
}

fn shown(answer: &Response) -> String {
    format!("got {} {:?}", answer.status, answer.text())
}
