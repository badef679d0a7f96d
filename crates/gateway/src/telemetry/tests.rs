use std::collections::BTreeMap;

use proptest::prelude::*;
use sallyport_wire::telemetry::{Batch, Dimensions, Source, StatusClass, Totals};
use uuid::Uuid;

use super::buffer::{BATCH_RECORDS_MAX, BYTES_MAX, Buffer};
use super::fold::COMBINATIONS_MAX;
use super::{Fold, Folded, Inbox, Request};

const SECOND: u64 = 1_000_000_000;

fn source() -> Source {
    Source {
        node: Uuid::from_u128(1),
        hostname: "gateway".to_owned(),
        version: "3.9.1".to_owned(),
    }
}

fn dimensions(route: u128) -> Dimensions {
    Dimensions {
        service: None,
        route: Some(Uuid::from_u128(route)),
        consumer: None,
        class: StatusClass::of(200),
        upstream: None,
        overflow: false,
    }
}

fn folded(counts: &[(u128, u64)]) -> Folded {
    let mut folded = Folded::new();
    for &(route, requests) in counts {
        let totals: &mut Totals = folded.entry(dimensions(route)).or_default();
        (0..requests).for_each(|_| totals.latency.record(SECOND));
    }
    folded
}

fn buffer(records_max: usize) -> Buffer {
    Buffer::new(Uuid::from_u128(9), records_max, BYTES_MAX, 0)
}

/// Requests by route in the batch that is to be sent, and its number.
fn told(buffer: &mut Buffer) -> Option<(u64, BTreeMap<u128, u64>)> {
    let frozen = buffer.next(&source(), 0)?;
    let batch = Batch::decode(&frozen.body, usize::MAX).unwrap().batch;
    let records = batch.records.iter().map(|record| {
        let route = record.dimensions.route.unwrap_or_default().as_u128();
        (route, record.totals.requests())
    });
    Some((frozen.id.sequence, records.collect()))
}

#[test]
fn what_waits_in_one_minute_is_put_together() {
    let mut buffer = buffer(100);
    _ = buffer.add(folded(&[(1, 2), (2, 1)]), 61 * SECOND);
    _ = buffer.add(folded(&[(1, 3)]), 62 * SECOND);
    _ = buffer.add(folded(&[(1, 1)]), 120 * SECOND);
    assert_eq!(buffer.records(), 3);
    assert!(buffer.is_behind());
    assert_eq!(
        told(&mut buffer),
        Some((1, BTreeMap::from([(1, 5), (2, 1)])))
    );
    // what was tried keeps its number and its content
    _ = buffer.add(folded(&[(1, 1)]), 121 * SECOND);
    assert_eq!(
        told(&mut buffer),
        Some((1, BTreeMap::from([(1, 5), (2, 1)])))
    );
    _ = buffer.acknowledged();
    assert_eq!(told(&mut buffer), Some((2, BTreeMap::from([(1, 2)]))));
    _ = buffer.acknowledged();
    assert_eq!(told(&mut buffer), None);
    assert_eq!(buffer.records(), 0);
}

#[test]
fn the_oldest_goes_first_and_is_counted() {
    let mut buffer = buffer(3);
    assert_eq!(buffer.add(folded(&[(1, 5), (2, 1)]), 0).records, 0);
    let dropped = buffer.add(folded(&[(3, 1), (4, 1)]), 60 * SECOND);
    assert_eq!((dropped.records, dropped.requests), (2, 6));
    // one minute alone is more than there is room for
    let dropped = buffer.add(folded(&[(5, 1), (6, 1), (7, 1)]), 61 * SECOND);
    assert_eq!((dropped.records, buffer.records()), (2, 3));
    // a clock that goes back opens no minute before
    _ = buffer.add(folded(&[(8, 1)]), 0);
    assert!(!buffer.is_behind());
}

#[test]
fn bytes_have_a_bound_too() {
    let mut buffer = Buffer::new(Uuid::nil(), 1_000, 10_000, 0);
    let mut dropped = 0;
    for minute in 0..100 {
        dropped += buffer
            .add(folded(&[(1, 1), (2, 1)]), minute * 60 * SECOND)
            .records;
    }
    assert!(dropped > 100, "{dropped}");
    assert!(buffer.records() < 50, "{}", buffer.records());
    assert_eq!(dropped as usize + buffer.records(), 200);
}

#[test]
fn a_large_minute_is_cut_into_batches() {
    let all: Vec<(u128, u64)> = (0..2 * BATCH_RECORDS_MAX as u128 + 5)
        .map(|it| (it + 1, 1))
        .collect();
    let mut buffer = buffer(100_000);
    _ = buffer.add(folded(&all), SECOND);
    let mut seen = BTreeMap::new();
    for number in 1..=3 {
        let (sequence, records) = told(&mut buffer).unwrap();
        assert_eq!(sequence, number);
        assert!(records.len() <= BATCH_RECORDS_MAX);
        seen.extend(records);
        _ = buffer.acknowledged();
    }
    assert_eq!(seen.len(), all.len());
    assert_eq!(told(&mut buffer), None);
}

proptest! {
    /// Whatever happens, each request is told once or counted as dropped.
    #[test]
    fn nothing_is_told_twice_or_lost(
        events in proptest::collection::vec((0..4_u8, 1..9_u128, 1..4_u64, 0..200_u64), 1..100),
        records_max in 1..12_usize,
    ) {
        let mut buffer = buffer(records_max);
        let (mut now, mut added, mut dropped, mut taken) = (0, 0, 0, 0);
        for (event, route, requests, seconds) in events {
            now += seconds * SECOND;
            match event {
                0 | 1 => {
                    added += requests;
                    dropped += buffer.add(folded(&[(route, requests)]), now).requests;
                    prop_assert!(buffer.records() <= records_max + BATCH_RECORDS_MAX);
                }
                2 => if let Some((_, records)) = told(&mut buffer) {
                    taken += records.values().sum::<u64>();
                    _ = buffer.acknowledged();
                },
                _ => if told(&mut buffer).is_some() && seconds % 2 == 0 {
                    dropped += buffer.refused().requests;
                },
            }
        }
        while let Some((_, records)) = told(&mut buffer) {
            taken += records.values().sum::<u64>();
            _ = buffer.acknowledged();
        }
        prop_assert_eq!(added, dropped + taken);
        prop_assert_eq!(buffer.records(), 0);
    }
}

fn request<'a>(route: u128, upstream: &'a str, status: u16) -> Request<'a> {
    Request {
        route: Some(Uuid::from_u128(route)),
        service: Some(Uuid::from_u128(7)),
        consumer: None,
        upstream: Some(upstream),
        status,
        request_bytes: 10,
        response_bytes: 20,
        latency_ns: SECOND,
        upstream_latency_ns: Some(SECOND / 2),
    }
}

#[tokio::test]
async fn a_worker_folds_and_hands_in() {
    let (inbox, mut folded) = Inbox::new();
    let mut fold = Fold::new(inbox);
    fold.hand_in();
    assert!(
        folded.try_recv().is_err(),
        "nothing is handed in without a request"
    );
    for (route, upstream, status) in [
        (1, "a", 200),
        (1, "a", 204),
        (1, "a", 500),
        (2, "a", 200),
        // the service has moved
        (2, "b", 200),
        (2, "a", 200),
    ] {
        fold.add(&request(route, upstream, status));
    }
    fold.hand_in();
    let folded = folded.try_recv().unwrap();
    let counts: BTreeMap<_, _> = folded
        .iter()
        .map(|(at, totals)| {
            let route = at.route.unwrap().as_u128();
            let upstream = at.upstream.as_deref().unwrap();
            ((route, upstream, at.class.as_str()), totals.requests())
        })
        .collect();
    assert_eq!(
        counts,
        BTreeMap::from([
            ((1, "a", "2xx"), 2),
            ((1, "a", "5xx"), 1),
            ((2, "a", "2xx"), 2),
            ((2, "b", "2xx"), 1),
        ])
    );
    let both = folded
        .values()
        .find(|totals| totals.requests() == 2)
        .unwrap();
    assert_eq!((both.request_bytes, both.response_bytes), (20, 40));
    assert_eq!(both.upstream_latency.count(), 2);
}

#[tokio::test]
async fn too_many_combinations_are_counted_as_one() {
    let (inbox, mut folded) = Inbox::new();
    let mut fold = Fold::new(inbox);
    for route in 0..COMBINATIONS_MAX as u128 + 5 {
        fold.add(&request(route, "a", 200));
    }
    fold.hand_in();
    let folded = folded.try_recv().unwrap();
    assert_eq!(folded.len(), COMBINATIONS_MAX + 1);
    let rest = &folded[&Dimensions::overflow(StatusClass::of(200))];
    assert_eq!(rest.requests(), 5);
}

#[tokio::test]
async fn what_the_sender_does_not_take_is_counted() {
    let (inbox, folded) = Inbox::new();
    let counters = inbox.counters.clone();
    let mut fold = Fold::new(inbox);
    for _ in 0..super::INBOX_MAX + 2 {
        fold.add(&request(1, "a", 200));
        fold.hand_in();
    }
    let dropped = counters
        .dropped_requests
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(dropped, 2);
    drop(folded);
}
