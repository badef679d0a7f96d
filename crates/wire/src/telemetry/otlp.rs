//! OTLP metrics, as far as telemetry uses them: sums and exponential histograms of requests.
//!
//! Field numbers: opentelemetry-proto 1.x, `metrics/v1/metrics.proto`, `resource/v1`, `common/v1`,
//! `collector/metrics/v1`. What others add to a message is skipped.

mod read;

use uuid::Uuid;

use read::{Reading, utf8};

use super::sketch::SCALE;
use super::{Dimensions, Record, Sketch, Totals};
use crate::protobuf::{self, Fields, ProtobufError, bytes, fixed64, message, number, sint32};

/// Names, kinds and units of the metrics, in the order in which they are sent.
pub const METRICS: [(&str, &str); 5] = [
    ("sallyport.request.duration", "s"),
    ("sallyport.upstream.duration", "s"),
    ("sallyport.request.size", "By"),
    ("sallyport.response.size", "By"),
    ("sallyport.telemetry.dropped", "{request}"),
];
// their places in `METRICS`
const REQUEST_DURATION: usize = 0;
const UPSTREAM_DURATION: usize = 1;
const REQUEST_SIZE: usize = 2;
const RESPONSE_SIZE: usize = 3;
const DROPPED: usize = 4;

const SCOPE: &str = "sallyport.gateway";
/// `AGGREGATION_TEMPORALITY_DELTA`.
const DELTA: u64 = 1;
/// Largest upstream name, bytes; longer ones are no host names.
const UPSTREAM_BYTES_MAX: usize = 255;
/// Largest scale that OpenTelemetry allows.
const SCALE_MAX: i32 = 20;

const SERVICE: &str = "sallyport.service";
const ROUTE: &str = "sallyport.route";
const CONSUMER: &str = "sallyport.consumer";
const UPSTREAM: &str = "sallyport.upstream";
const CLASS: &str = "sallyport.status_class";
const OVERFLOW: &str = "otel.metric.overflow";

/// Who counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The gateway's id: `service.instance.id`.
    pub node: Uuid,
    /// Its machine: `host.name`.
    pub hostname: String,
    /// Its version: `service.version`.
    pub version: String,
}

/// What a gateway counted in some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Who counted.
    pub source: Source,
    /// When counting began, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// When it ended.
    pub end_unix_ns: u64,
    /// One for each combination.
    pub records: Vec<Record>,
    /// Requests before `end_unix_ns` that no batch tells of, since the last batch.
    pub dropped: u64,
}

/// A batch as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What is understood of it; records by their dimensions.
    pub batch: Batch,
    /// Data points of metrics that are none of [`METRICS`].
    pub unknown: u64,
}

/// Bytes are no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtlpError {
    /// They are no message.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    /// A text is not UTF-8.
    #[error("a text in the message is not UTF-8")]
    Text,
    /// The resource does not say who it is.
    #[error("the resource attribute service.instance.id must be the gateway's UUID")]
    NoNode,
    /// Only what is new is added up.
    #[error("metric {0} must have delta temporality")]
    NotDelta(String),
    /// A value of an attribute cannot be used.
    #[error("attribute {0} has a value that it cannot have")]
    Attribute(&'static str),
    /// Buckets are too wide or too narrow.
    #[error("a histogram has scale {0}; it must be {SCALE} to {SCALE_MAX}")]
    Scale(i32),
    /// A number is no count of anything.
    #[error("a sum has a value that is negative or no number")]
    Value,
    /// There are more combinations than one batch may have.
    #[error("the message has more than {0} combinations of attributes")]
    TooMany(usize),
}

impl Batch {
    /// As `ExportMetricsServiceRequest`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.records.len() * 512);
        message(&mut out, 1, |out| {
            message(out, 1, |out| {
                let source = &self.source;
                text(out, 1, "service.name", SCOPE);
                text(out, 1, "service.instance.id", &source.node.to_string());
                text(out, 1, "service.version", &source.version);
                text(out, 1, "host.name", &source.hostname);
            });
            message(out, 2, |out| {
                message(out, 1, |out| bytes(out, 1, SCOPE.as_bytes()));
                self.histogram(out, REQUEST_DURATION, |totals| &totals.latency);
                self.histogram(out, UPSTREAM_DURATION, |totals| &totals.upstream_latency);
                self.sum(out, REQUEST_SIZE, |totals| totals.request_bytes);
                self.sum(out, RESPONSE_SIZE, |totals| totals.response_bytes);
                if self.dropped > 0 {
                    metric(out, DROPPED, 7, |out| {
                        message(out, 1, |out| self.number_point(out, self.dropped));
                        number(out, 3, 1);
                    });
                }
            });
        });
        out
    }

    fn times(&self, out: &mut Vec<u8>) {
        fixed64(out, 2, self.start_unix_ns);
        fixed64(out, 3, self.end_unix_ns);
    }

    fn number_point(&self, out: &mut Vec<u8>, value: u64) {
        self.times(out);
        fixed64(out, 6, value.min(i64::MAX as u64));
    }

    fn sum(&self, out: &mut Vec<u8>, which: usize, of: impl Fn(&Totals) -> u64) {
        metric(out, which, 7, |out| {
            for Record { dimensions, totals } in &self.records {
                message(out, 1, |out| {
                    attributes(out, 7, dimensions);
                    self.number_point(out, of(totals));
                });
            }
            number(out, 3, 1);
        });
    }

    fn histogram(&self, out: &mut Vec<u8>, which: usize, of: impl Fn(&Totals) -> &Sketch) {
        metric(out, which, 10, |out| {
            for Record { dimensions, totals } in &self.records {
                let sketch = of(totals);
                if sketch.is_empty() {
                    continue;
                }
                message(out, 1, |out| {
                    attributes(out, 1, dimensions);
                    self.times(out);
                    fixed64(out, 4, sketch.count());
                    fixed64(out, 5, (sketch.sum_ns() as f64 / 1e9).to_bits());
                    sint32(out, 6, SCALE);
                    fixed64(out, 7, sketch.zeros());
                    message(out, 8, |out| buckets(out, sketch));
                });
            }
        });
    }

    /// Reads an `ExportMetricsServiceRequest` with at most `records_max` combinations.
    ///
    /// # Errors
    /// See [`OtlpError`].
    pub fn decode(body: &[u8], records_max: usize) -> Result<Decoded, OtlpError> {
        let mut reading = Reading {
            records_max,
            ..Reading::default()
        };
        let mut fields = Fields(body);
        while let Some((field, value)) = fields.next()? {
            if field == 1 {
                reading.resource_metrics(value.bytes(field)?)?;
            }
        }
        let records = reading.records.into_iter();
        let start_unix_ns = reading.start.unwrap_or(reading.end);
        Ok(Decoded {
            batch: Batch {
                source: Source {
                    node: reading.node.ok_or(OtlpError::NoNode)?,
                    hostname: reading.hostname,
                    version: reading.version,
                },
                start_unix_ns: start_unix_ns.min(reading.end),
                end_unix_ns: reading.end,
                records: records
                    .map(|(dimensions, totals)| Record { dimensions, totals })
                    .collect(),
                dropped: reading.dropped,
            },
            unknown: reading.unknown,
        })
    }
}

/// Writes a metric with data of the kind that `field` stands for.
fn metric(out: &mut Vec<u8>, which: usize, field: u32, points: impl FnOnce(&mut Vec<u8>)) {
    let (name, unit) = METRICS[which];
    message(out, 2, |out| {
        bytes(out, 1, name.as_bytes());
        bytes(out, 3, unit.as_bytes());
        message(out, field, |out| {
            number(out, 2, DELTA);
            points(out);
        });
    });
}

fn text(out: &mut Vec<u8>, field: u32, key: &str, value: &str) {
    message(out, field, |out| {
        bytes(out, 1, key.as_bytes());
        message(out, 2, |out| bytes(out, 1, value.as_bytes()));
    });
}

fn attributes(out: &mut Vec<u8>, field: u32, of: &Dimensions) {
    let mut buffer = Uuid::encode_buffer();
    for (key, id) in [
        (SERVICE, of.service),
        (ROUTE, of.route),
        (CONSUMER, of.consumer),
    ] {
        if let Some(id) = id {
            text(out, field, key, id.hyphenated().encode_lower(&mut buffer));
        }
    }
    if let Some(upstream) = &of.upstream {
        text(out, field, UPSTREAM, upstream);
    }
    text(out, field, CLASS, of.class.as_str());
    if of.overflow {
        message(out, field, |out| {
            bytes(out, 1, OVERFLOW.as_bytes());
            message(out, 2, |out| number(out, 2, 1));
        });
    }
}

fn buckets(out: &mut Vec<u8>, sketch: &Sketch) {
    let mut all = sketch.buckets().peekable();
    let Some(&(first, _)) = all.peek() else {
        return;
    };
    sint32(out, 1, first);
    message(out, 2, |out| {
        let mut next = first;
        for (index, count) in all {
            out.extend(std::iter::repeat_n(0, (index - next) as usize));
            protobuf::varint(out, count);
            next = index + 1;
        }
    });
}

/// An `ExportMetricsServiceResponse`: all was taken but for so many data points.
pub fn partial_success(rejected: u64, reason: &str) -> Vec<u8> {
    let mut out = Vec::new();
    if rejected > 0 {
        message(&mut out, 1, |out| {
            number(out, 1, rejected);
            bytes(out, 2, reason.as_bytes());
        });
    }
    out
}

/// A `google.rpc.Status`, the body of an answer that refuses.
pub fn status(reason: &str) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, 2, reason.as_bytes());
    out
}

/// The text of a `google.rpc.Status`, if it has one.
pub fn status_text(body: &[u8]) -> Option<&str> {
    let mut fields = Fields(body);
    while let Ok(Some((field, value))) = fields.next() {
        if field == 2 {
            return utf8(value.bytes(field).ok()?).ok();
        }
    }
    None
}
