//! Sums since this process began, as Prometheus counts: what is away for a while misses nothing but
//! the points between.

use std::collections::HashMap;

use bytes::Bytes;
use sallyport_wire::telemetry::remote_write::{HEADERS, WriteRequest};
use sallyport_wire::telemetry::{Dimensions, Record, Sketch, Totals};
use uuid::Uuid;

use super::{Named, Names, Request};

/// Samples of one request. Source: Prometheus' own `max_samples_per_send`.
const SAMPLES_MAX: usize = 2_000;
/// A series that had no request for so long is not sent any more.
const IDLE_NS: u64 = 6 * 3_600_000_000_000;
/// Bounds of the histograms are 2^n seconds, which sketches count exactly: from about a millisecond
/// to 32 s.
const EXPONENTS: std::ops::RangeInclusive<i32> = -10..=5;

#[derive(Default)]
pub(super) struct State {
    series: HashMap<(Uuid, Dimensions), Series>,
}

#[derive(Default)]
struct Series {
    totals: Totals,
    /// Whether there was a request since the last push.
    changed: bool,
    changed_ns: u64,
}

impl State {
    pub(super) fn add(&mut self, control_plane: Uuid, record: &Record) {
        let key = (control_plane, record.dimensions.clone());
        let series = self.series.entry(key).or_default();
        series.totals.merge(&record.totals);
        series.changed = true;
    }

    /// One sample of every series, at `now_ns`.
    pub(super) async fn make(
        &mut self,
        names: &mut Names,
        instance: &str,
        now_ns: u64,
    ) -> Vec<Request> {
        self.series.retain(|_, series| {
            if std::mem::take(&mut series.changed) {
                series.changed_ns = now_ns;
            }
            now_ns.saturating_sub(series.changed_ns) < IDLE_NS
        });
        let at_ms = i64::try_from(now_ns / 1_000_000).unwrap_or(i64::MAX);
        let mut requests = Vec::new();
        let mut current = WriteRequest::default();
        for ((control_plane, of), series) in &self.series {
            let named = names.of(*control_plane, of).await;
            write(&mut current, of, &named, &series.totals, instance, at_ms);
            if current.samples() >= SAMPLES_MAX {
                requests.push(std::mem::take(&mut current));
            }
        }
        if !current.is_empty() {
            requests.push(current);
        }
        let made = requests.into_iter().map(|request| Request {
            headers: &HEADERS,
            more: None,
            body: Bytes::from(request.finish()),
        });
        made.collect()
    }
}

fn write(
    out: &mut WriteRequest,
    of: &Dimensions,
    named: &Named,
    totals: &Totals,
    instance: &str,
    at_ms: i64,
) {
    let upstream = match of.overflow {
        true => "overflow",
        false => of.upstream.as_deref().unwrap_or_default(),
    };
    let labels = |name: &'static str| {
        [
            ("__name__", name),
            ("job", "sallyport"),
            ("instance", instance),
            ("control_plane", named.control_plane.as_str()),
            ("service", named.service.as_str()),
            ("route", named.route.as_str()),
            ("consumer", named.consumer.as_str()),
            ("status_class", of.class.as_str()),
            ("upstream", upstream),
        ]
    };
    let mut add = |name: &'static str, value: f64| out.add(&labels(name), value, at_ms);
    add("sallyport_requests_total", totals.requests() as f64);
    add("sallyport_request_bytes_total", totals.request_bytes as f64);
    add(
        "sallyport_response_bytes_total",
        totals.response_bytes as f64,
    );
    let mut histogram = |names: [&'static str; 3], sketch: &Sketch| {
        let [bucket, sum, count] = names;
        for exponent in EXPONENTS {
            let le = 2f64.powi(exponent).to_string();
            let labels = labels(bucket);
            let labels: Vec<_> = labels.into_iter().chain([("le", le.as_str())]).collect();
            out.add(&labels, sketch.count_up_to(exponent) as f64, at_ms);
        }
        let labels_of_all = labels(bucket);
        let all: Vec<_> = labels_of_all.into_iter().chain([("le", "+Inf")]).collect();
        out.add(&all, sketch.count() as f64, at_ms);
        out.add(&labels(sum), sketch.sum_ns() as f64 / 1e9, at_ms);
        out.add(&labels(count), sketch.count() as f64, at_ms);
    };
    histogram(
        [
            "sallyport_request_duration_seconds_bucket",
            "sallyport_request_duration_seconds_sum",
            "sallyport_request_duration_seconds_count",
        ],
        &totals.latency,
    );
    if !totals.upstream_latency.is_empty() {
        histogram(
            [
                "sallyport_upstream_duration_seconds_bucket",
                "sallyport_upstream_duration_seconds_sum",
                "sallyport_upstream_duration_seconds_count",
            ],
            &totals.upstream_latency,
        );
    }
}
