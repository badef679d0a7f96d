//! `/healthz` and `/metrics` of the control plane, and the log line of each request.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use sallyport_plugins::metrics::{Exposition, Family, Kind};
use sallyport_store::{Node, NodeSeen, SyncStatus};
use serde_json::json;
use tracing::debug;

use crate::KONG_VERSION;
use crate::app::App;
use crate::config_sync::Answered;
use crate::identity::{Access, Needs, Part, Principal};
use crate::route::Route;

/// Methods that are told apart; any other is `other`.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bounds of the histogram, in milliseconds.
const BOUNDS_MS: [u64; 9] = [1, 5, 10, 25, 50, 100, 500, 1_000, 10_000];

/// What is counted of the requests of this process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: [[AtomicU64; CLASSES.len()]; METHODS.len()],
    /// Requests in each bucket alone; the last one is beyond all bounds.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    micros: AtomicU64,
    in_flight: AtomicI64,
}

impl Metrics {
    fn done(&self, method: &Method, status: StatusCode, micros: u64) {
        let method = METHODS.iter().position(|name| *name == method.as_str());
        let method = method.unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.requests[method][class].fetch_add(1, Ordering::Relaxed);
        let bucket = BOUNDS_MS.iter().position(|bound| micros <= bound * 1_000);
        let bucket = bucket.unwrap_or(BOUNDS_MS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// In the text format of Prometheus.
    fn text(&self, control_planes: usize, operations: u64) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, String)]| {
            _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in rows {
                _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let version = (format!("{{version=\"{KONG_VERSION}\"}}"), "1".to_owned());
        family("sallyport_control_info", "gauge", "What runs.", &[version]);
        let count = (String::new(), control_planes.to_string());
        let help = "Control planes, drafts among them.";
        family("sallyport_control_planes", "gauge", help, &[count]);
        let help = "Reads and writes of the database.";
        let row = (String::new(), operations.to_string());
        family("sallyport_store_operations_total", "counter", help, &[row]);
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let help = "Requests under way.";
        let row = (String::new(), in_flight.to_string());
        family("sallyport_api_requests_in_flight", "gauge", help, &[row]);
        let mut rows = Vec::new();
        for (method, counts) in METHODS.iter().zip(&self.requests) {
            for (class, count) in CLASSES.iter().zip(counts) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = format!("{{method=\"{method}\",status=\"{class}\"}}");
                    rows.push((labels, count.to_string()));
                }
            }
        }
        let help = "Requests answered.";
        family("sallyport_api_requests_total", "counter", help, &rows);
        let name = "sallyport_api_request_duration_seconds";
        _ = writeln!(
            text,
            "# HELP {name} From head to answer.\n# TYPE {name} histogram"
        );
        let mut total = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Ordering::Relaxed);
            let bound = BOUNDS_MS.get(at).map_or("+Inf".to_owned(), |bound| {
                format!("{}.{:03}", bound / 1_000, bound % 1_000)
            });
            _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let micros = self.micros.load(Ordering::Relaxed);
        let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
        _ = writeln!(text, "{name}_sum {whole}.{part:06}\n{name}_count {total}");
        text
    }
}

/// Labels of what is told of a data plane.
const DATA_PLANE: &[&str] = &["node_id", "hostname", "ip", "control_plane_id"];

const fn of_data_planes(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        help,
        kind: Kind::Gauge,
        labels: DATA_PLANE,
    }
}

// Kong's names, with the control plane beside its labels, as there are several here.
static LAST_SEEN: Family = of_data_planes(
    "kong_data_plane_last_seen",
    "Last time data plane contacted control plane",
);
static CONFIG_HASH: Family = of_data_planes(
    "kong_data_plane_config_hash",
    "Config hash numeric value of the data plane",
);
static COMPATIBLE: Family = of_data_planes(
    "kong_data_plane_version_compatible",
    "Version compatible status of the data plane, 0 is incompatible",
);
static CERT_EXPIRES: Family = of_data_planes(
    "kong_data_plane_cluster_cert_expiry_timestamp",
    "Unix timestamp of Data Plane's cluster_cert expiry time",
);

static ANSWERS: Family = Family {
    name: "sallyport_config_sync_answers_total",
    help: "Questions of data planes on protocol v2 that were answered, with changes or everything",
    kind: Kind::Counter,
    labels: &["answer"],
};

fn answers(text: &mut Exposition, answered: &Answered) {
    for (answer, count) in answered.by_answer() {
        text.value(&ANSWERS, &[answer], count as f64);
    }
}

fn data_planes(text: &mut Exposition, nodes: &[Node]) {
    let mut family = |family: &'static Family, value: fn(&NodeSeen) -> f64| {
        for Node { seen, .. } in nodes {
            let (id, cp) = (seen.id.to_string(), seen.control_plane.to_string());
            let labels = [&*id, &*seen.hostname, &*seen.ip, &*cp];
            text.value(family, &labels, value(seen));
        }
    };
    family(&LAST_SEEN, |seen| seen.at as f64);
    // the whole hash as a float, like Kong: enough to see whether two are equal
    family(&CONFIG_HASH, |seen| {
        u128::from_str_radix(&seen.config_hash, 16).unwrap_or(0) as f64
    });
    family(&COMPATIBLE, |seen| match seen.sync_status {
        SyncStatus::Unknown | SyncStatus::Normal | SyncStatus::EntitiesRefused => 1.0,
        _ => 0.0,
    });
    family(&CERT_EXPIRES, |seen| seen.cert_expires_at as f64);
}

/// Takes a request off the count when it ends, however it ends.
struct InFlight<'a>(&'a AtomicI64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request and writes its log line.
pub(crate) async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let (began, method) = (Instant::now(), request.method().clone());
    let path = crate::audit_log::shown_path(request.uri().path());
    app.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
    let in_flight = InFlight(&app.metrics.in_flight);
    let response = next.run(request).await;
    drop(in_flight);
    let took = began.elapsed();
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    app.metrics.done(&method, response.status(), micros);
    let trace_id = response.headers().get("x-trace-id");
    let trace_id = trace_id.and_then(|id| id.to_str().ok());
    let (status, took_ms) = (response.status().as_u16(), micros / 1_000);
    debug!(%method, path, status, took_ms, trace_id, "request");
    response
}

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/healthz", Needs::Nothing, "Whether it can serve", health).gives(200, "Object"),
        Route::get(
            "/metrics",
            Needs::Token,
            "What is counted, for Prometheus",
            text,
        ),
    ]
}

/// 503 while the database cannot be read.
async fn health(State(app): State<App>) -> Response {
    match app.store.organization().await {
        Ok(_) => Json(json!({"status": "ok"})).into_response(),
        Err(error) => {
            debug!(%error, "not healthy");
            let body = json!({"status": "no database"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn text(State(app): State<App>, Extension(caller): Extension<Principal>) -> Response {
    let control_planes = app.store.watch().borrow().len();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let mut text = app.metrics.text(control_planes, app.store.operations());
    let mut more = Exposition::default();
    app.telemetry.metrics(&mut more);
    answers(&mut more, &app.publishers.answered);
    let mut nodes = app.store.all_nodes().await.unwrap_or_else(|error| {
        debug!(%error, "metrics without data planes");
        Vec::new()
    });
    nodes.retain(|node| {
        let cp = Some(node.seen.control_plane);
        caller.may(Needs::ControlPlane(Part::Nodes, Access::Read), cp)
    });
    data_planes(&mut more, &nodes);
    text.push_str(&more.into_text());
    ([(CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn data_planes_have_kongs_names() {
        let seen = NodeSeen {
            control_plane: Uuid::from_u128(1),
            id: Uuid::from_u128(2),
            hostname: "edge".to_owned(),
            version: "3.4.0".to_owned(),
            ip: "192.0.2.1".to_owned(),
            labels: Default::default(),
            at: 100,
            config_hash: "0000000000000000000000000000001f".to_owned(),
            sync_status: SyncStatus::PluginSetIncompatible,
            sync_detail: String::new(),
            cert_expires_at: 1_900_000_000,
            revision: 7,
            refused: Vec::new(),
        };
        let mut text = Exposition::default();
        let created_at = 1;
        data_planes(&mut text, &[Node { seen, created_at }]);
        let text = text.into_text();
        for (name, value) in [
            ("last_seen", "100"),
            ("config_hash", "31"),
            ("version_compatible", "0"),
            ("cluster_cert_expiry_timestamp", "1900000000"),
        ] {
            let line = format!(
                "kong_data_plane_{name}{{node_id=\"{}\",hostname=\"edge\",ip=\"192.0.2.1\",\
                 control_plane_id=\"{}\"}} {value}",
                Uuid::from_u128(2),
                Uuid::from_u128(1)
            );
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }

    #[test]
    fn requests_are_counted_in_the_format_of_prometheus() {
        let metrics = Metrics::default();
        metrics.done(&Method::GET, StatusCode::OK, 900);
        metrics.done(&Method::GET, StatusCode::NOT_FOUND, 26_000);
        metrics.done(&Method::TRACE, StatusCode::OK, 20_000_000);
        let text = metrics.text(2, 7);
        for line in [
            "sallyport_control_planes 2",
            "sallyport_store_operations_total 7",
            "sallyport_api_requests_in_flight 0",
            "sallyport_api_requests_total{method=\"GET\",status=\"2xx\"} 1",
            "sallyport_api_requests_total{method=\"GET\",status=\"4xx\"} 1",
            "sallyport_api_requests_total{method=\"other\",status=\"2xx\"} 1",
            "sallyport_api_request_duration_seconds_bucket{le=\"0.001\"} 1",
            "sallyport_api_request_duration_seconds_bucket{le=\"0.050\"} 2",
            "sallyport_api_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "sallyport_api_request_duration_seconds_sum 20.026900",
            "sallyport_api_request_duration_seconds_count 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
