//! What gateways report about traffic: aggregates, never single requests, as OTLP metrics over HTTP.
//!
//! A gateway folds requests into one [`Record`] for each combination of [`Dimensions`] and sends what
//! it folded as a [`Batch`]: `POST /v1/metrics` on the telemetry host, protobuf of
//! `opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest`, delta temporality. The
//! header [`BATCH_HEADER`] numbers batches, so that one that is sent again counts once.
//!
//! [`remote_write`] is what a control plane pushes to Prometheus.

mod batch;
mod otlp;
pub mod remote_write;
mod sketch;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

pub use batch::{BATCH_HEADER, BatchId, BatchIdError};
pub use otlp::{Batch, Decoded, METRICS, OtlpError, Source, partial_success, status, status_text};
pub use sketch::{RELATIVE_ERROR_MAX, Sketch};

/// Path of the endpoint. Source: OTLP specification, OTLP/HTTP.
pub const METRICS_PATH: &str = "/v1/metrics";
/// Value of `Content-Type` on both ways.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// The hundreds of an HTTP status: 1 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusClass(u8);

impl StatusClass {
    /// All of them.
    pub const ALL: [StatusClass; 5] = [
        StatusClass(1),
        StatusClass(2),
        StatusClass(3),
        StatusClass(4),
        StatusClass(5),
    ];

    /// The class of a status; what is above 599 counts as 5, what is below 200 as 1.
    pub fn of(status: u16) -> StatusClass {
        StatusClass((status / 100).clamp(1, 5) as u8)
    }

    /// 1 to 5.
    pub fn hundreds(self) -> u8 {
        self.0
    }

    /// Reads `2xx`.
    pub fn parse(text: &str) -> Option<StatusClass> {
        StatusClass::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
    }

    /// `2xx`.
    pub fn as_str(self) -> &'static str {
        ["1xx", "2xx", "3xx", "4xx", "5xx"][usize::from(self.0) - 1]
    }
}

impl fmt::Display for StatusClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By what requests are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dimensions {
    /// The service that was chosen.
    pub service: Option<Uuid>,
    /// The route that was chosen.
    pub route: Option<Uuid>,
    /// Who called.
    pub consumer: Option<Uuid>,
    /// How it was answered.
    pub class: StatusClass,
    /// The service's `host`: the name of an upstream, or of a machine. At most 255 bytes.
    pub upstream: Option<Arc<str>>,
    /// The rest: requests that came when there were too many combinations. All else but the class is
    /// `None` then. Source: OpenTelemetry's overflow attribute.
    pub overflow: bool,
}

impl Dimensions {
    /// Where requests go for which there is no room.
    pub fn overflow(class: StatusClass) -> Dimensions {
        Dimensions {
            service: None,
            route: None,
            consumer: None,
            class,
            upstream: None,
            overflow: true,
        }
    }
}

/// Sums over requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Heads and bodies of requests, bytes.
    pub request_bytes: u64,
    /// Heads and bodies of responses, bytes.
    pub response_bytes: u64,
    /// From the head of a request to the last byte of its answer; its count is the number of
    /// requests.
    pub latency: Sketch,
    /// From sending the request on to the head of the upstream's answer, for requests that had one.
    pub upstream_latency: Sketch,
}

impl Totals {
    /// Number of requests.
    pub fn requests(&self) -> u64 {
        self.latency.count()
    }

    /// Adds the sums of other requests.
    pub fn merge(&mut self, other: &Totals) {
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.latency.merge(&other.latency);
        self.upstream_latency.merge(&other.upstream_latency);
    }
}

/// What was counted for one combination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The combination.
    pub dimensions: Dimensions,
    /// Its sums.
    pub totals: Totals,
}
