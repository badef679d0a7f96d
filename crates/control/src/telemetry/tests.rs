//! The roll-ups, without sockets or threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use sallyport_wire::telemetry::{Batch, BatchId, Dimensions, Record, Source, StatusClass, Totals};
use tempfile::TempDir;
use uuid::Uuid;

use super::Counters;
use super::database::{self, Grain, Place};
use super::query::{By, Found, Query, Value, run};
use super::rollup::{Entry, Rollup};
use super::settings::Keep;

/// A whole hour.
const NOW: i64 = 1_700_000_000 / 3_600 * 3_600;
const CP: Uuid = Uuid::from_u128(1);
const MS: u64 = 1_000_000;

struct Lab {
    dir: TempDir,
    rollup: Option<Rollup>,
    counters: Arc<Counters>,
    keep: Keep,
    sequence: u64,
}

impl Lab {
    fn new(keep: Keep) -> Lab {
        let mut lab = Lab {
            dir: tempfile::tempdir().unwrap(),
            rollup: None,
            counters: Arc::default(),
            keep,
            sequence: 0,
        };
        lab.open();
        lab
    }

    fn open(&mut self) {
        self.rollup = None;
        let conn = database::open(&self.dir.path().join("telemetry.db")).unwrap();
        let rollup = Rollup::new(conn, self.keep, Arc::clone(&self.counters));
        self.rollup = Some(rollup.unwrap());
    }

    fn rollup(&mut self) -> &mut Rollup {
        self.rollup.as_mut().unwrap()
    }

    fn add_as(&mut self, sequence: u64, batch: &Batch, now: i64) -> bool {
        let id = BatchId {
            run: Uuid::from_u128(77),
            sequence,
        };
        let entry = Entry {
            control_plane: CP,
            id,
            batch,
        };
        self.rollup().add(&[entry], now).unwrap()[0]
    }

    fn add(&mut self, batch: &Batch, now: i64) {
        self.sequence += 1;
        assert!(self.add_as(self.sequence, batch, now));
    }

    fn query(&self, query: &Query) -> Found {
        let conn = database::open_to_read(&self.dir.path().join("telemetry.db")).unwrap();
        run(&conn, query).unwrap()
    }

    fn rows(&self, grain: Grain) -> Vec<(Place, u64)> {
        let conn = database::open_to_read(&self.dir.path().join("telemetry.db")).unwrap();
        let mut all = Vec::new();
        database::rows(&conn, grain, (0, i64::MAX), |place, totals| {
            all.push((place, totals()?.requests()));
            Ok::<(), rusqlite::Error>(())
        })
        .unwrap();
        all
    }
}

fn dimensions(route: u128, status: u16) -> Dimensions {
    Dimensions {
        service: Some(Uuid::from_u128(500)),
        route: Some(Uuid::from_u128(route)),
        consumer: None,
        class: StatusClass::of(status),
        upstream: Some("orders.example".into()),
        overflow: false,
    }
}

fn totals(latencies_ms: &[u64]) -> Totals {
    let mut totals = Totals {
        request_bytes: 10 * latencies_ms.len() as u64,
        response_bytes: 20 * latencies_ms.len() as u64,
        ..Totals::default()
    };
    for ms in latencies_ms {
        totals.latency.record(ms * MS);
    }
    totals
}

/// A batch of a node at a time; a record for each route and status.
fn batch(node: u128, at: i64, records: &[(u128, u16, &[u64])]) -> Batch {
    let record = |(route, status, latencies): &(u128, u16, &[u64])| Record {
        dimensions: dimensions(*route, *status),
        totals: totals(latencies),
    };
    Batch {
        source: Source {
            node: Uuid::from_u128(node),
            hostname: String::new(),
            version: String::new(),
        },
        start_unix_ns: 0,
        end_unix_ns: at as u64 * 1_000 * MS,
        records: records.iter().map(record).collect(),
        dropped: 0,
    }
}

fn all(grain: Grain) -> Query {
    Query {
        grain,
        from: NOW - 86_400 * 30,
        to: NOW + 86_400,
        interval: None,
        by: Vec::new(),
        only: Vec::new(),
        groups_max: 100,
    }
}

#[test]
fn a_batch_counts_once_over_restarts() {
    let mut lab = Lab::new(Keep::default());
    let first = batch(1, NOW, &[(1, 200, &[5, 7]), (1, 503, &[9])]);
    assert!(lab.add_as(1, &first, NOW));
    assert!(!lab.add_as(1, &first, NOW), "sent again");
    lab.open();
    assert!(!lab.add_as(1, &first, NOW), "sent again after a restart");
    assert!(lab.add_as(2, &batch(1, NOW + 5, &[(1, 200, &[5])]), NOW + 5));
    lab.open();
    assert!(lab.add_as(3, &batch(1, NOW + 6, &[(1, 200, &[5])]), NOW + 6));
    for grain in [Grain::Minute, Grain::Hour] {
        let found = lab.query(&all(grain));
        assert_eq!(found.all.totals.requests(), 5, "{grain:?}");
        assert_eq!(found.all.server_errors, 1);
        assert_eq!(found.all.totals.request_bytes, 50);
        assert_eq!(lab.rows(grain).len(), 2);
    }
}

#[test]
fn queries_tell_apart_and_filter() {
    let mut lab = Lab::new(Keep::default());
    lab.add(&batch(1, NOW, &[(1, 200, &[10, 20]), (2, 404, &[30])]), NOW);
    lab.add(
        &batch(2, NOW + 60, &[(1, 200, &[40]), (1, 500, &[50])]),
        NOW + 60,
    );
    let by = |by: &[By], only: Vec<(By, Vec<Value>)>, interval| {
        let query = Query {
            by: by.to_vec(),
            only,
            interval,
            ..all(Grain::Minute)
        };
        let found = lab.query(&query);
        found
            .groups
            .iter()
            .map(|(group, sums)| {
                let at = group.at - NOW;
                let route = group.of.route.map_or(0, |it| it.as_u128());
                let node = group.node.map_or(0, |it| it.as_u128());
                (at, route, node, sums.totals.requests())
            })
            .collect::<Vec<_>>()
    };
    let route = |id| Value::Id(Uuid::from_u128(id));
    let start = all(Grain::Minute).from - NOW;
    assert_eq!(
        by(&[By::Route], vec![], None),
        [(start, 1, 0, 4), (start, 2, 0, 1)]
    );
    assert_eq!(
        by(&[By::Node], vec![], Some(60)),
        [(0, 0, 1, 3), (60, 0, 2, 2)]
    );
    assert_eq!(
        by(&[], vec![(By::Route, vec![route(2)])], None),
        [(start, 0, 0, 1)]
    );
    let class = |status| Value::Class(StatusClass::of(status));
    let errors = vec![(By::StatusClass, vec![class(500), class(404)])];
    assert_eq!(by(&[], errors, None), [(start, 0, 0, 2)]);
    assert_eq!(
        by(&[], vec![(By::Node, vec![route(2)])], None),
        [(start, 0, 0, 2)]
    );
    assert_eq!(by(&[], vec![(By::Upstream, vec![Value::None])], None), []);
    assert_eq!(by(&[], vec![(By::ControlPlane, vec![route(2)])], None), []);
    let few = lab.query(&Query {
        by: vec![By::Route],
        groups_max: 1,
        ..all(Grain::Minute)
    });
    assert_eq!((few.groups.len(), few.left_out), (1, 1));
    assert_eq!(
        few.all.totals.requests(),
        5,
        "the total has what is left out too"
    );
}

#[test]
fn combinations_have_a_bound() {
    let mut lab = Lab::new(Keep {
        series_max: 3,
        ..Keep::default()
    });
    let records: Vec<(u128, u16, &[u64])> =
        (1..=5).map(|route| (route, 200, &[1_u64][..])).collect();
    lab.add(&batch(1, NOW, &records), NOW);
    lab.add(&batch(1, NOW, &[(9, 200, &[1]), (8, 500, &[1])]), NOW);
    let found = lab.query(&Query {
        by: vec![By::Route, By::StatusClass],
        ..all(Grain::Hour)
    });
    let rest: Vec<u64> = found
        .groups
        .iter()
        .filter(|(group, _)| group.of.overflow)
        .map(|(_, sums)| sums.totals.requests())
        .collect();
    assert_eq!(rest, [3, 1], "one for each status class");
    assert_eq!(found.all.totals.requests(), 7);
    assert_eq!(lab.counters.overflowed.load(Ordering::Relaxed), 4);
    assert_eq!(lab.counters.series.load(Ordering::Relaxed), 5);
    // known ones still have their place
    lab.add(&batch(1, NOW, &[(1, 200, &[1])]), NOW);
    assert_eq!(lab.counters.overflowed.load(Ordering::Relaxed), 4);
}

#[test]
fn what_is_old_goes_and_makes_room() {
    let keep = Keep {
        node_minutes: 10,
        minute_hours: 1,
        hour_days: 1,
        series_max: 2,
    };
    let mut lab = Lab::new(keep);
    lab.add(&batch(1, NOW, &[(1, 200, &[1])]), NOW);
    lab.add(&batch(2, NOW, &[(1, 200, &[1, 1])]), NOW);
    assert_eq!(lab.rows(Grain::Minute).len(), 2);
    // nodes are put together first
    lab.rollup().tidy(NOW + 11 * 60).unwrap();
    let place = Place {
        at: NOW / 60,
        series: 1,
        node: 0,
    };
    assert_eq!(lab.rows(Grain::Minute), [(place, 3)]);
    // what comes late for such a minute is added to all nodes
    lab.add(&batch(1, NOW, &[(1, 200, &[1])]), NOW + 11 * 60);
    assert_eq!(lab.rows(Grain::Minute), [(place, 4)]);
    // then minutes go
    lab.add(&batch(1, NOW, &[(1, 200, &[1])]), NOW + 2 * 3_600);
    lab.rollup().tidy(NOW + 2 * 3_600).unwrap();
    assert_eq!(lab.rows(Grain::Minute), []);
    assert_eq!(lab.rows(Grain::Hour).len(), 1);
    assert_eq!(lab.query(&all(Grain::Hour)).all.totals.requests(), 5);
    // then hours, and what is older than that is not taken
    lab.rollup().tidy(NOW + 2 * 86_400).unwrap();
    assert_eq!(lab.rows(Grain::Hour), []);
    assert_eq!(lab.counters.series.load(Ordering::Relaxed), 0);
    lab.add(&batch(1, NOW, &[(1, 200, &[1])]), NOW + 2 * 86_400);
    assert_eq!(lab.counters.late.load(Ordering::Relaxed), 1);
    assert_eq!(lab.rows(Grain::Hour), []);
}

#[test]
fn a_clock_ahead_is_not_believed() {
    let mut lab = Lab::new(Keep::default());
    lab.add(&batch(1, NOW + 3_600, &[(1, 200, &[1])]), NOW);
    assert_eq!(lab.rows(Grain::Minute)[0].0.at, NOW / 60);
}

#[test]
fn a_write_that_fails_is_not_counted() {
    let mut lab = Lab::new(Keep::default());
    lab.add(&batch(1, NOW, &[(1, 200, &[1])]), NOW);
    let path = lab.dir.path().join("telemetry.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch("ALTER TABLE hour RENAME TO gone")
        .unwrap();
    let entry = |batch| Entry {
        control_plane: CP,
        id: BatchId {
            run: Uuid::from_u128(77),
            sequence: 2,
        },
        batch,
    };
    let second = batch(1, NOW, &[(1, 200, &[1])]);
    assert!(lab.rollup().add(&[entry(&second)], NOW).is_err());
    other
        .execute_batch("ALTER TABLE gone RENAME TO hour")
        .unwrap();
    assert_eq!(lab.rollup().add(&[entry(&second)], NOW).unwrap(), [true]);
    assert_eq!(lab.query(&all(Grain::Hour)).all.totals.requests(), 2);
    assert_eq!(lab.query(&all(Grain::Minute)).all.totals.requests(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Hours are the sums of their minutes, sketches included, whatever was sent, sent again, put
    /// together and restarted in between.
    #[test]
    fn hours_equal_minutes(
        steps in proptest::collection::vec(
            (0..6_u8, 1..4_u128, 1..5_u128, 0..7_200_i64, proptest::collection::vec(1..5_000_u64, 1..4)),
            1..40,
        ),
    ) {
        let mut lab = Lab::new(Keep { node_minutes: 5, ..Keep::default() });
        let mut sent = totals(&[]);
        for (step, node, route, offset, latencies) in steps {
            let at = NOW + offset;
            match step {
                0 => lab.open(),
                1 => lab.rollup().tidy(at).unwrap(),
                _ => {
                    let batch = batch(node, at, &[(route, 200, &latencies)]);
                    lab.sequence += 1;
                    prop_assert!(lab.add_as(lab.sequence, &batch, at));
                    prop_assert!(!lab.add_as(lab.sequence, &batch, at));
                    sent.merge(&totals(&latencies));
                }
            }
        }
        for interval in [None, Some(3_600)] {
            let of = |grain| {
                let query = Query { by: vec![By::Route], interval, ..all(grain) };
                let groups = lab.query(&query).groups;
                groups.into_iter().map(|(group, sums)| (group, sums.totals)).collect::<Vec<_>>()
            };
            prop_assert_eq!(of(Grain::Minute), of(Grain::Hour));
        }
        prop_assert_eq!(lab.query(&all(Grain::Hour)).all.totals, sent);
    }
}
