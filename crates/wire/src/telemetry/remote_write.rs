//! Prometheus remote write 1.0: `prometheus.WriteRequest` in protobuf, in snappy's block format.

use crate::protobuf::{bytes, fixed64, message, number};

/// Headers of a request, beside `User-Agent`. Source: Prometheus remote-write specification 1.0.
pub const HEADERS: [(&str, &str); 3] = [
    ("content-encoding", "snappy"),
    ("content-type", "application/x-protobuf"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// A request that grows.
#[derive(Debug, Default)]
pub struct WriteRequest {
    out: Vec<u8>,
    samples: usize,
}

impl WriteRequest {
    /// Adds a sample; `at_ms` is in milliseconds since the Unix epoch. `labels` has the metric's
    /// name as `__name__`; labels are put in order here, those without a value are left out.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64, at_ms: i64) {
        let mut labels: Vec<_> = labels
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        labels.sort_unstable();
        message(&mut self.out, 1, |out| {
            for (name, value) in labels {
                message(out, 1, |out| {
                    bytes(out, 1, name.as_bytes());
                    bytes(out, 2, value.as_bytes());
                });
            }
            message(out, 2, |out| {
                fixed64(out, 1, value.to_bits());
                number(out, 2, at_ms as u64);
            });
        });
        self.samples += 1;
    }

    /// Samples in it.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Its bytes before compression.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether there is no sample in it.
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The body of the request.
    ///
    /// # Panics
    /// If it has more than 2^32-1 bytes.
    pub fn finish(self) -> Vec<u8> {
        let packed = snap::raw::Encoder::new().compress_vec(&self.out);
        packed.expect("callers cut requests long before 4 GiB")
    }
}
