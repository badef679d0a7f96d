//! What the router costs by itself: look-ups, and one changed route among many.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use http::{HeaderName, HeaderValue, Method};
use sallyport_gateway::router::{Query, Router};
use sallyport_model::RouterFlavor;
use sallyport_model::entities::Route;
use sallyport_plugins::Fields;
use serde_json::{Value, json};
use uuid::Uuid;

/// Measures the router inside this process.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Numbers of routes
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 50_000])]
    routes: Vec<usize>,
    /// What the routes look like; may be given several times [default: all]
    #[arg(long = "shape", value_name = "NAME", value_enum)]
    shapes: Vec<Shape>,
    /// Look-ups that are counted, for each shape and number
    #[arg(long, default_value_t = 2_000_000)]
    lookups: usize,
    /// Changes of one route, of which the median is shown
    #[arg(long, default_value_t = 25)]
    changes: usize,
}

/// What the routes look like.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    /// A host and a path each
    Hosts,
    /// A path each, no host
    Paths,
    /// A regex path each, no host
    Regexes,
    /// An expression on host and path each
    Expressions,
    /// One host and path, told apart by a header: the worst case, all are tried in turn
    Headers,
}

impl Shape {
    fn flavor(self) -> RouterFlavor {
        match self {
            Shape::Expressions => RouterFlavor::Expressions,
            _ => RouterFlavor::TraditionalCompatible,
        }
    }

    fn fields(self, n: usize) -> Value {
        match self {
            Shape::Hosts => {
                json!({"hosts": [format!("h{n}.example.com")], "paths": [format!("/api/{n}")]})
            }
            Shape::Paths => json!({"paths": [format!("/api/{n}/")]}),
            Shape::Regexes => json!({"paths": [format!("~/api/{n}/\\d+/items$")]}),
            Shape::Expressions => json!({"expression": format!(
                "http.host == \"h{n}.example.com\" && http.path ^= \"/api/{n}\" && http.method != \"PUT\""
            )}),
            Shape::Headers => json!({"paths": ["/"], "headers": {"x-route": [format!("r{n}")]}}),
        }
    }

    fn route(self, n: usize) -> anyhow::Result<Route> {
        let mut all = json!({
            "id": Uuid::from_u128(n as u128 + 1), "protocols": ["http", "https"],
            "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true,
            "preserve_host": false, "request_buffering": true, "response_buffering": true,
        });
        let fields = self.fields(n);
        for (name, value) in fields.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        serde_json::from_value(all).context("a route of the benchmark")
    }
}

/// Requests that are asked in turn, for routes all over the list.
const REQUESTS: usize = 1_024;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let shapes = match args.shapes.is_empty() {
        true => Shape::value_variants(),
        false => &args.shapes,
    };
    println!(
        "| routes | number | look-up | look-ups/s | built in | one change | compiled | lists sorted | KiB/route |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for shape in shapes {
        for &number in &args.routes {
            if number == 0 {
                bail!("--routes: a router without routes says nothing");
            }
            measure(args, *shape, number)?;
        }
    }
    Ok(())
}

fn measure(args: &Args, shape: Shape, number: usize) -> anyhow::Result<()> {
    let mut routes = (0..number)
        .map(|n| shape.route(n))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let refused = |bad: Vec<_>| anyhow::anyhow!("{} routes are refused", bad.len());
    let resident = resident_kib()?;
    let start = Instant::now();
    let (router, _) = Router::new(shape.flavor())
        .updated(&routes)
        .map_err(refused)?;
    let built = start.elapsed();
    let grown = resident_kib()?.saturating_sub(resident);

    // the worst case would take minutes
    let lookups = match shape {
        Shape::Headers => args.lookups.min(200_000_000 / number / 100),
        _ => args.lookups,
    };
    let look_up = look_ups(&router, number, lookups)? / u32::try_from(lookups)?;

    let mut times = Vec::new();
    let (mut router, mut work) = (router, None);
    for turn in 0..args.changes.max(1) {
        let at = turn * 7_919 % number;
        routes[at].strip_path = !routes[at].strip_path;
        let start = Instant::now();
        let (next, done) = router.updated(&routes).map_err(refused)?;
        times.push(start.elapsed());
        (router, work) = (next, Some(done));
    }
    times.sort_unstable();
    let change = times[times.len() / 2];
    let work = work.context("there was a change")?;
    println!(
        "| {shape:?} | {number} | {} ns | {:.2} M | {:.1} ms | {:.3} ms | {} | {} | {:.2} |",
        look_up.as_nanos(),
        1e3 / look_up.as_nanos() as f64,
        built.as_secs_f64() * 1e3,
        change.as_secs_f64() * 1e3,
        work.compiled,
        work.lists,
        grown as f64 / number as f64,
    );
    Ok(())
}

/// Time of so many look-ups, each of which must find its route.
fn look_ups(router: &Router, number: usize, lookups: usize) -> anyhow::Result<Duration> {
    struct Request {
        host: String,
        path: String,
        headers: Fields,
        slot: Option<usize>,
    }
    let request = |n: usize| -> anyhow::Result<Request> {
        let mut headers = Fields::new();
        for (name, value) in [("accept", "*/*"), ("user-agent", "bench"), ("x-other", "1")] {
            headers.append(
                &HeaderName::from_static(name),
                &HeaderValue::from_static(value),
            );
        }
        let value = HeaderValue::from_str(&format!("r{n}"))?;
        headers.append(&HeaderName::from_static("x-route"), &value);
        Ok(Request {
            host: format!("h{n}.example.com"),
            path: format!("/api/{n}/12/items"),
            headers,
            slot: router.slot(Uuid::from_u128(n as u128 + 1)),
        })
    };
    let requests = (0..REQUESTS)
        .map(|turn| request(turn * 7_919 % number))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let ask = |request: &Request| {
        router
            .find(&Query {
                method: &Method::GET,
                host: &request.host,
                host_port: None,
                port: 8000,
                path: &request.path,
                query: None,
                headers: &request.headers,
                sni: None,
                tls: false,
                source: (None, None),
                local: None,
            })
            .map(|found| found.slot)
    };
    for request in &requests {
        if ask(request) != request.slot {
            bail!("{}{} did not find its route", request.host, request.path);
        }
    }
    let start = Instant::now();
    for request in requests.iter().cycle().take(lookups) {
        black_box(ask(black_box(request)));
    }
    Ok(start.elapsed())
}

/// Memory of this process.
fn resident_kib() -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse().ok())
        .context("/proc/self/status has no VmRSS")
}
