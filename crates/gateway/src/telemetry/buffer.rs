//! What waits to be sent. Pure: bytes and times come and go as values.
//!
//! What has not been tried yet is put together by minute, which is as fine as the far end keeps it, so
//! an outage of hours costs a record for each minute and combination. What has been tried once keeps
//! its form and its number until it is acknowledged: the far end may have it already.

use std::collections::{HashMap, VecDeque};

use sallyport_wire::telemetry::{Batch, BatchId, Dimensions, Record, Source, Totals};
use uuid::Uuid;

use super::Folded;

/// Records of one batch.
pub(super) const BATCH_RECORDS_MAX: usize = 2_000;
/// Memory of all records, bytes, about.
pub(super) const BYTES_MAX: usize = 64 << 20;
/// Of a record beside its sketches and its upstream's name.
const RECORD_BYTES: usize = size_of::<Record>() + 64;
const MINUTE_NS: u64 = 60_000_000_000;

/// A batch that is being sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frozen {
    pub(super) id: BatchId,
    pub(super) body: Vec<u8>,
    records: u64,
    requests: u64,
    /// Dropped requests that it tells of.
    told: u64,
}

/// Records and requests that were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) records: u64,
    pub(super) requests: u64,
}

/// See the module.
pub(super) struct Buffer {
    /// By minute, oldest first.
    minutes: VecDeque<Minute>,
    /// Of the oldest minute, cut to size.
    parts: VecDeque<Part>,
    frozen: Option<Frozen>,
    run: Uuid,
    sequence: u64,
    records_max: usize,
    bytes_max: usize,
    records: usize,
    bytes: usize,
    /// Up to when batches tell.
    told_until_ns: u64,
}

struct Minute {
    number: u64,
    end_ns: u64,
    records: HashMap<Dimensions, Totals>,
}

struct Part {
    end_ns: u64,
    records: Vec<Record>,
}

impl Buffer {
    /// An empty one of a run that begins now.
    pub(super) fn new(run: Uuid, records_max: usize, bytes_max: usize, now_ns: u64) -> Buffer {
        Buffer {
            minutes: VecDeque::new(),
            parts: VecDeque::new(),
            frozen: None,
            run,
            sequence: 0,
            records_max,
            bytes_max,
            records: 0,
            bytes: 0,
            told_until_ns: now_ns,
        }
    }

    /// Records that wait.
    pub(super) fn records(&self) -> usize {
        self.records
            + self
                .frozen
                .as_ref()
                .map_or(0, |frozen| frozen.records as usize)
    }

    /// Whether there is more than what came last.
    pub(super) fn is_behind(&self) -> bool {
        !self.parts.is_empty() || self.minutes.len() > 1
    }

    /// Adds what was counted up to now. What had to go for it, oldest first.
    pub(super) fn add(&mut self, folded: Folded, now_ns: u64) -> Dropped {
        let number = now_ns / MINUTE_NS;
        // a clock that was set back goes on with the minute it was in
        if self.minutes.back().is_none_or(|last| last.number < number) {
            self.minutes.push_back(Minute {
                number,
                end_ns: now_ns,
                records: HashMap::new(),
            });
        }
        let minute = self.minutes.back_mut().expect("there is one now");
        minute.end_ns = minute.end_ns.max(now_ns);
        for (dimensions, totals) in folded {
            match minute.records.get_mut(&dimensions) {
                Some(known) => {
                    let before = bytes(&dimensions, known);
                    known.merge(&totals);
                    self.bytes += bytes(&dimensions, known).saturating_sub(before);
                }
                None => {
                    self.bytes += bytes(&dimensions, &totals);
                    self.records += 1;
                    minute.records.insert(dimensions, totals);
                }
            }
        }
        self.drop_oldest()
    }

    fn is_over(&self) -> bool {
        self.records > self.records_max || self.bytes > self.bytes_max
    }

    fn drop_oldest(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        while self.is_over() {
            let gone: Vec<Record> = if let Some(part) = self.parts.pop_front() {
                part.records
            } else if self.minutes.len() > 1 {
                let minute = self.minutes.pop_front().expect("there are two");
                minute.into_records()
            } else if let Some(minute) = self.minutes.back_mut() {
                // within a minute nothing is older
                let over = self.records.saturating_sub(self.records_max);
                let over = over.max(minute.records.len() / 8).max(1);
                let keys: Vec<Dimensions> = minute.records.keys().take(over).cloned().collect();
                let take = |key| minute.records.remove_entry(&key);
                let taken = keys.into_iter().filter_map(take);
                taken
                    .map(|(dimensions, totals)| Record { dimensions, totals })
                    .collect()
            } else {
                break;
            };
            self.forget(&gone);
            dropped.records += gone.len() as u64;
            dropped.requests += requests(&gone);
        }
        dropped
    }

    fn forget(&mut self, gone: &[Record]) {
        self.records -= gone.len();
        let bytes: usize = gone
            .iter()
            .map(|it| bytes(&it.dimensions, &it.totals))
            .sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// The batch to send now: the one that was not acknowledged yet, or the oldest that waits.
    /// `untold` is how many dropped requests it should tell of.
    pub(super) fn next(&mut self, source: &Source, untold: u64) -> Option<&Frozen> {
        if self.frozen.is_none() {
            let part = self.next_part()?;
            self.forget(&part.records);
            self.sequence += 1;
            let start_unix_ns = self.told_until_ns.min(part.end_ns);
            self.told_until_ns = part.end_ns;
            let (records, requests) = (part.records.len() as u64, requests(&part.records));
            let batch = Batch {
                source: source.clone(),
                start_unix_ns,
                end_unix_ns: part.end_ns,
                records: part.records,
                dropped: untold,
            };
            self.frozen = Some(Frozen {
                id: BatchId {
                    run: self.run,
                    sequence: self.sequence,
                },
                body: batch.encode(),
                records,
                requests,
                told: untold,
            });
        }
        self.frozen.as_ref()
    }

    fn next_part(&mut self) -> Option<Part> {
        if self.parts.is_empty() {
            let minute = self.minutes.pop_front()?;
            let end_ns = minute.end_ns;
            let mut records = minute.into_records();
            while records.len() > BATCH_RECORDS_MAX {
                let records = records.split_off(records.len() - BATCH_RECORDS_MAX);
                self.parts.push_back(Part { end_ns, records });
            }
            self.parts.push_back(Part { end_ns, records });
        }
        self.parts.pop_front()
    }

    /// The batch was taken. How many dropped requests it told of.
    pub(super) fn acknowledged(&mut self) -> u64 {
        self.frozen.take().map_or(0, |frozen| frozen.told)
    }

    /// The batch will never be taken.
    pub(super) fn refused(&mut self) -> Dropped {
        let frozen = self.frozen.take();
        frozen.map_or_else(Dropped::default, |frozen| Dropped {
            records: frozen.records,
            requests: frozen.requests,
        })
    }
}

impl Minute {
    fn into_records(self) -> Vec<Record> {
        let all = self.records.into_iter();
        all.map(|(dimensions, totals)| Record { dimensions, totals })
            .collect()
    }
}

fn requests(records: &[Record]) -> u64 {
    records.iter().map(|record| record.totals.requests()).sum()
}

fn bytes(dimensions: &Dimensions, totals: &Totals) -> usize {
    let sketches = totals.latency.heap_bytes() + totals.upstream_latency.heap_bytes();
    RECORD_BYTES + sketches + dimensions.upstream.as_ref().map_or(0, |name| name.len())
}
