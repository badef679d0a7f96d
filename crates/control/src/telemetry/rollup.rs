//! Folding batches into minutes and hours. Knows no thread and no clock: whoever calls says how late
//! it is.

use std::collections::hash_map::Entry as At;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, TransactionBehavior};
use sallyport_wire::telemetry::{Batch, BatchId, Dimensions, Record, Totals};
use uuid::Uuid;

use super::Counters;
use super::database::{self, Grain, Place};
use super::settings::Keep;

/// A batch may be from this many seconds after now, for clocks that differ.
const FUTURE_SECS_MAX: i64 = 60;
/// Runs of gateways that were not heard of for so long are forgotten.
const RUN_SECS_MAX: i64 = 30 * 86_400;
/// Minutes whose nodes are put together in one go.
const COMPACTED_MAX: usize = 240;
const COMPACTED: &str = "minutes without nodes";

/// A batch that is to be added.
pub(super) struct Entry<'a> {
    pub(super) control_plane: Uuid,
    pub(super) id: BatchId,
    pub(super) batch: &'a Batch,
}

/// The roll-ups.
pub(super) struct Rollup {
    conn: Connection,
    known: Known,
}

/// What is at hand.
struct Known {
    keep: Keep,
    counters: Arc<Counters>,
    series: HashMap<(Uuid, Dimensions), i64>,
    series_of: HashMap<Uuid, usize>,
    nodes: HashMap<Uuid, i64>,
    /// Last batch by control plane and run.
    runs: HashMap<(Uuid, Uuid), u64>,
    sums: HashMap<(Grain, Place), Totals>,
    /// Minutes before this one have no nodes.
    compacted_until: i64,
}

impl Rollup {
    pub(super) fn new(
        conn: Connection,
        keep: Keep,
        counters: Arc<Counters>,
    ) -> rusqlite::Result<Rollup> {
        let mut known = Known {
            keep,
            counters,
            series: HashMap::new(),
            series_of: HashMap::new(),
            nodes: HashMap::new(),
            runs: HashMap::new(),
            sums: HashMap::new(),
            compacted_until: 0,
        };
        known.read_again(&conn)?;
        Ok(Rollup { conn, known })
    }

    /// Adds batches in one transaction; for each, whether it was new. On an error none was added.
    pub(super) fn add(&mut self, entries: &[Entry<'_>], now: i64) -> rusqlite::Result<Vec<bool>> {
        let added = self.known.add_in(&mut self.conn, entries, now);
        if added.is_err() {
            // what is at hand may be ahead of the file now
            self.known.read_again(&self.conn)?;
        }
        added
    }

    /// Lets go of what is too old: sums, the nodes of minutes, runs and empty series.
    pub(super) fn tidy(&mut self, now: i64) -> rusqlite::Result<()> {
        let Rollup { conn, known } = self;
        let minutes = (now - known.keep.seconds(Grain::Minute)) / 60;
        let hours = (now - known.keep.seconds(Grain::Hour)) / 3_600;
        let gone = database::delete_rows(conn, Grain::Minute, minutes)?
            + database::delete_rows(conn, Grain::Hour, hours)?;
        database::delete_runs(conn, now - RUN_SECS_MAX)?;
        known.compact(conn, now / 60 - known.keep.node_minutes)?;
        if gone > 0 && database::delete_empty_series(conn)? > 0 {
            known.read_again(conn)?;
        }
        Ok(())
    }

    /// Folds the write-ahead log into the file.
    pub(super) fn close(self) -> rusqlite::Result<()> {
        self.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
    }
}

impl Known {
    /// Forgets what is at hand; the file knows better.
    fn read_again(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.series.clear();
        self.series_of.clear();
        self.nodes.clear();
        self.runs.clear();
        self.sums.clear();
        for (id, control_plane, dimensions) in database::all_series(conn)? {
            self.series.insert((control_plane, dimensions), id);
            *self.series_of.entry(control_plane).or_default() += 1;
        }
        self.tell_series();
        self.compacted_until = database::state(conn, COMPACTED)?.unwrap_or(0);
        Ok(())
    }

    fn tell_series(&self) {
        let series = self.series.len() as u64;
        self.counters.series.store(series, Ordering::Relaxed);
    }

    fn add_in(
        &mut self,
        conn: &mut Connection,
        entries: &[Entry<'_>],
        now: i64,
    ) -> rusqlite::Result<Vec<bool>> {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut changed: HashSet<(Grain, Place)> = HashSet::new();
        let mut new = Vec::with_capacity(entries.len());
        for entry in entries {
            let run = (entry.control_plane, entry.id.run);
            let last = match self.runs.get(&run) {
                Some(last) => *last,
                None => database::last_batch(&tx, run.0, run.1)?,
            };
            let is_new = entry.id.sequence > last;
            new.push(is_new);
            if is_new {
                self.runs.insert(run, entry.id.sequence);
                database::set_last_batch(&tx, run, entry.id.sequence, now)?;
                self.fold(&tx, entry, now, &mut changed)?;
            }
        }
        for (grain, place) in &changed {
            database::set_row(&tx, *grain, *place, &self.sums[&(*grain, *place)])?;
        }
        tx.commit()?;
        // what is over is read again if it changes once more
        let (minute, hour) = (now / 60 - 1, now / 3_600);
        self.sums.retain(|(grain, place), _| match grain {
            Grain::Minute => place.at >= minute,
            Grain::Hour => place.at >= hour,
        });
        self.tell_series();
        Ok(new)
    }

    fn fold(
        &mut self,
        conn: &Connection,
        entry: &Entry<'_>,
        now: i64,
        changed: &mut HashSet<(Grain, Place)>,
    ) -> rusqlite::Result<()> {
        let batch = entry.batch;
        let at = i64::try_from(batch.end_unix_ns / 1_000_000_000).unwrap_or(now);
        let at = if at > now + FUTURE_SECS_MAX { now } else { at };
        let kept = |grain: Grain| {
            let oldest = now - self.keep.seconds(grain);
            at >= oldest
        };
        let grains: Vec<Grain> = [Grain::Minute, Grain::Hour]
            .into_iter()
            .filter(|grain| kept(*grain))
            .collect();
        if grains.is_empty() {
            let late = batch.records.len() as u64;
            self.counters.late.fetch_add(late, Ordering::Relaxed);
            return Ok(());
        }
        let node = match self.nodes.get(&batch.source.node) {
            Some(node) => *node,
            None => {
                let node = database::node(conn, batch.source.node)?;
                self.nodes.insert(batch.source.node, node);
                node
            }
        };
        for Record { dimensions, totals } in &batch.records {
            let series = self.series(conn, entry.control_plane, dimensions)?;
            for grain in &grains {
                let at = at.div_euclid(grain.seconds());
                let single = *grain == Grain::Minute && at >= self.compacted_until;
                let place = Place {
                    at,
                    series,
                    node: if single { node } else { 0 },
                };
                let key = (*grain, place);
                match self.sums.entry(key) {
                    At::Occupied(sum) => sum.into_mut().merge(totals),
                    At::Vacant(at_hand) => {
                        let stored = database::row(conn, *grain, place)?;
                        at_hand.insert(stored.unwrap_or_default()).merge(totals);
                    }
                }
                changed.insert(key);
            }
        }
        Ok(())
    }

    /// The number of a series, which it gets if there is room.
    fn series(
        &mut self,
        conn: &Connection,
        control_plane: Uuid,
        of: &Dimensions,
    ) -> rusqlite::Result<i64> {
        let mut key = (control_plane, of.clone());
        if let Some(known) = self.series.get(&key) {
            return Ok(*known);
        }
        let count = self.series_of.entry(control_plane).or_default();
        if *count >= self.keep.series_max && !of.overflow {
            self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
            key.1 = Dimensions::overflow(of.class);
            if let Some(known) = self.series.get(&key) {
                return Ok(*known);
            }
        }
        *count += 1;
        let id = database::add_series(conn, control_plane, &key.1)?;
        self.series.insert(key, id);
        Ok(id)
    }

    /// Puts the nodes of minutes before `until` together.
    fn compact(&mut self, conn: &mut Connection, until: i64) -> rusqlite::Result<()> {
        for _ in 0..COMPACTED_MAX {
            let first = database::first_with_nodes(conn, Grain::Minute, self.compacted_until)?;
            let Some(at) = first.filter(|at| *at < until) else {
                break;
            };
            let mut together: HashMap<i64, Totals> = HashMap::new();
            database::rows(conn, Grain::Minute, (at, at + 1), |place, totals| {
                together.entry(place.series).or_default().merge(&totals()?);
                Ok::<(), rusqlite::Error>(())
            })?;
            let tx = conn.transaction()?;
            database::delete_nodes_of(&tx, Grain::Minute, at)?;
            for (series, totals) in together {
                let place = Place {
                    at,
                    series,
                    node: 0,
                };
                database::set_row(&tx, Grain::Minute, place, &totals)?;
            }
            database::set_state(&tx, COMPACTED, at + 1)?;
            tx.commit()?;
            self.compacted_until = at + 1;
            self.sums
                .retain(|(grain, place), _| *grain != Grain::Minute || place.at > at);
        }
        Ok(())
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}
