//! What was added since the last push, as gateways send it: delta temporality, one resource for each
//! control plane.

use std::collections::HashMap;

use bytes::Bytes;
use sallyport_wire::telemetry::{BATCH_HEADER, Batch, BatchId, Dimensions, Record, Source, Totals};
use uuid::Uuid;

use super::Request;

/// Records of one request.
const RECORDS_MAX: usize = 2_000;

const HEADERS: [(&str, &str); 1] = [("content-type", sallyport_wire::telemetry::CONTENT_TYPE)];

pub(super) struct State {
    added: HashMap<Uuid, HashMap<Dimensions, Totals>>,
    told_until_ns: u64,
    run: Uuid,
    sequence: u64,
}

impl State {
    pub(super) fn new(now_ns: u64) -> State {
        State {
            added: HashMap::new(),
            told_until_ns: now_ns,
            run: Uuid::new_v4(),
            sequence: 0,
        }
    }

    pub(super) fn add(&mut self, control_plane: Uuid, record: &Record) {
        let all = self.added.entry(control_plane).or_default();
        let known = all.entry(record.dimensions.clone()).or_default();
        known.merge(&record.totals);
    }

    pub(super) fn make(&mut self, now_ns: u64) -> Vec<Request> {
        let start_unix_ns = std::mem::replace(&mut self.told_until_ns, now_ns).min(now_ns);
        let mut requests = Vec::new();
        for (control_plane, added) in self.added.drain() {
            let records = added.into_iter();
            let records: Vec<Record> = records
                .map(|(dimensions, totals)| Record { dimensions, totals })
                .collect();
            for records in records.chunks(RECORDS_MAX) {
                let batch = Batch {
                    source: Source {
                        node: control_plane,
                        hostname: String::new(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                    },
                    start_unix_ns,
                    end_unix_ns: now_ns,
                    records: records.to_vec(),
                    dropped: 0,
                };
                self.sequence += 1;
                let id = BatchId {
                    run: self.run,
                    sequence: self.sequence,
                };
                requests.push(Request {
                    headers: &HEADERS,
                    more: Some((BATCH_HEADER, id.to_string())),
                    body: Bytes::from(batch.encode()),
                });
            }
        }
        requests
    }
}
