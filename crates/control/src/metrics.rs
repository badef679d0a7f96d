//! `/healthz` and `/metrics` of the control plane, and the log line of each request.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use sallyport_plugins::metrics::Exposition;
use serde_json::json;
use tracing::debug;

use crate::KONG_VERSION;
use crate::app::App;
use crate::identity::Needs;
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
    fn text(&self, control_planes: usize) -> String {
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

async fn text(State(app): State<App>) -> Response {
    let control_planes = app.store.watch().borrow().len();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let mut text = app.metrics.text(control_planes);
    let mut more = Exposition::default();
    app.telemetry.metrics(&mut more);
    text.push_str(&more.into_text());
    ([(CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_in_the_format_of_prometheus() {
        let metrics = Metrics::default();
        metrics.done(&Method::GET, StatusCode::OK, 900);
        metrics.done(&Method::GET, StatusCode::NOT_FOUND, 26_000);
        metrics.done(&Method::TRACE, StatusCode::OK, 20_000_000);
        let text = metrics.text(2);
        for line in [
            "sallyport_control_planes 2",
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
