use proptest::prelude::*;

use super::otlp::METRICS;
use super::sketch::{INDEX_MAX, INDEX_MIN};
use super::*;
use crate::protobuf::{Fields, bytes, fixed64, message, number, sint32};

fn sketch_of(values: &[u64]) -> Sketch {
    let mut sketch = Sketch::default();
    for value in values {
        sketch.record(*value);
    }
    sketch
}

/// Durations from one nanosecond to some hours, evenly over their magnitudes.
fn duration() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0_u64),
        20 => (0..43_u32, any::<u64>()).prop_map(|(bits, low)| (1 << bits) | (low & ((1 << bits) - 1))),
    ]
}

fn durations() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(duration(), 0..200)
}

/// What the sketch promises about: above its lowest and below its highest bucket.
fn is_covered(nanoseconds: u64) -> bool {
    let seconds = nanoseconds as f64 / 1e9;
    nanoseconds == 0 || (seconds > 2f64.powi(-20) && seconds <= 2f64.powi(13))
}

proptest! {
    #[test]
    fn merging_is_exact_in_any_order(a in durations(), b in durations(), c in durations()) {
        let all: Vec<u64> = [&a[..], &b, &c].concat();
        let (a, b, c) = (sketch_of(&a), sketch_of(&b), sketch_of(&c));
        let mut left = a.clone();
        left.merge(&b);
        left.merge(&c);
        let mut right = c;
        right.merge(&b);
        right.merge(&a);
        prop_assert_eq!(&left, &right);
        prop_assert_eq!(&left, &sketch_of(&all));
        prop_assert_eq!(left.count(), all.len() as u64);
    }

    #[test]
    fn quantiles_are_within_the_error(mut values in durations(), q in 0.0..=1.0_f64) {
        values.retain(|value| is_covered(*value));
        let found = sketch_of(&values).quantile(q);
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).max(1);
        let Some(&exact) = values.get(rank - 1) else {
            prop_assert!(values.is_empty() && found.is_none());
            return Ok(());
        };
        let (exact, found) = (exact as f64 / 1e9, found.unwrap());
        prop_assert!((found - exact).abs() <= exact * RELATIVE_ERROR_MAX, "{exact} {found}");
    }

    #[test]
    fn counts_up_to_a_power_of_two_are_exact(values in durations(), exponent in -19..=12_i32) {
        let bound = 2f64.powi(exponent);
        let expected = values.iter().filter(|value| **value as f64 / 1e9 <= bound).count();
        prop_assert_eq!(sketch_of(&values).count_up_to(exponent), expected as u64);
    }

    #[test]
    fn a_stored_sketch_is_read_the_same(values in durations()) {
        let sketch = sketch_of(&values);
        prop_assert_eq!(Sketch::from_bytes(&sketch.to_bytes()), Some(sketch));
    }

    #[test]
    fn any_bytes_are_a_sketch_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Some(sketch) = Sketch::from_bytes(&bytes) {
            prop_assert_eq!(Sketch::from_bytes(&sketch.to_bytes()), Some(sketch));
        }
    }

    #[test]
    fn what_is_sent_is_read_the_same(batch in batch()) {
        let decoded = Batch::decode(&batch.encode(), 1000).unwrap();
        prop_assert_eq!(decoded.unknown, 0);
        prop_assert_eq!(decoded.batch, batch);
    }

    #[test]
    fn broken_batches_are_refused_quietly(
        batch in batch(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut body = batch.encode();
        let at = at.index(body.len());
        match cut {
            true => body.truncate(at),
            false => body[at] = byte,
        }
        _ = Batch::decode(&body, 1000);
    }

    #[test]
    fn any_bytes_are_a_batch_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        _ = Batch::decode(&bytes, 10);
    }
}

fn dimensions() -> impl Strategy<Value = Dimensions> {
    let id = || proptest::option::of(any::<u128>().prop_map(Uuid::from_u128));
    let upstream = proptest::option::of("[a-z.]{0,20}");
    (id(), id(), id(), 100..600_u16, upstream, 0..10_u8).prop_map(
        |(service, route, consumer, status, upstream, dice)| {
            let class = StatusClass::of(status);
            match dice {
                0 => Dimensions::overflow(class),
                _ => Dimensions {
                    service,
                    route,
                    consumer,
                    class,
                    upstream: upstream.map(Into::into),
                    overflow: false,
                },
            }
        },
    )
}

fn batch() -> impl Strategy<Value = Batch> {
    let totals = (durations(), durations(), 0..1_u64 << 60, 0..1_u64 << 60).prop_map(
        |(latency, upstream, request_bytes, response_bytes)| Totals {
            request_bytes,
            response_bytes,
            latency: sketch_of(&latency),
            upstream_latency: sketch_of(&upstream),
        },
    );
    let records = proptest::collection::btree_map(dimensions(), totals, 1..5);
    (
        records,
        any::<u128>(),
        "[a-z]{0,9}",
        0..100_u64,
        1..u64::MAX / 2,
        0..1_000_u64,
    )
        .prop_map(
            |(records, node, hostname, dropped, start_unix_ns, length)| Batch {
                source: Source {
                    node: Uuid::from_u128(node),
                    hostname,
                    version: "3.9.1".to_owned(),
                },
                start_unix_ns,
                end_unix_ns: start_unix_ns + length,
                records: records
                    .into_iter()
                    .map(|(dimensions, totals)| Record { dimensions, totals })
                    .collect(),
                dropped,
            },
        )
}

#[test]
fn buckets_are_those_of_opentelemetry() {
    // upper bounds belong to a bucket, at scale 5
    for (nanoseconds, index) in [
        (1_000_000_000, -1),
        (1_000_000_001, 0),
        (2_000_000_000, 31),
        (2_000_000_001, 32),
        (500_000_000, -33),
        (500_000_001, -32),
        (1_021_897_148, 0),
        (1_021_897_149, 1),
        (1, INDEX_MIN),
        (u64::MAX, INDEX_MAX),
    ] {
        let sketch = sketch_of(&[nanoseconds]);
        assert_eq!(
            sketch.buckets().collect::<Vec<_>>(),
            [(index, 1)],
            "{nanoseconds}"
        );
    }
}

/// A request with one histogram point of these buckets.
fn histogram(scale: i32, offset: i32, counts: &[u64], temporality: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, key: &str, value: &str| {
        message(out, 1, |out| {
            bytes(out, 1, key.as_bytes());
            message(out, 2, |out| bytes(out, 1, value.as_bytes()));
        });
    };
    message(&mut out, 1, |out| {
        message(out, 1, |out| {
            text(
                out,
                "service.instance.id",
                "00000000-0000-0000-0000-000000000001",
            );
        });
        message(out, 2, |out| {
            message(out, 2, |out| {
                bytes(out, 1, METRICS[0].0.as_bytes());
                message(out, 10, |out| {
                    number(out, 2, temporality);
                    message(out, 1, |out| {
                        text(out, "sallyport.status_class", "2xx");
                        text(out, "somebody.elses", "x");
                        fixed64(out, 3, 7);
                        sint32(out, 6, scale);
                        message(out, 8, |out| {
                            sint32(out, 1, offset);
                            // not packed, which readers must take too
                            for count in counts {
                                number(out, 2, *count);
                            }
                        });
                    });
                });
            });
        });
    });
    out
}

#[test]
fn finer_buckets_are_put_together() {
    let decoded = Batch::decode(&histogram(7, -5, &[1, 2, 4, 8, 16, 32], 1), 10).unwrap();
    let record = &decoded.batch.records[0];
    let buckets: Vec<_> = record.totals.latency.buckets().collect();
    assert_eq!(buckets, [(-2, 1), (-1, 2 + 4 + 8 + 16), (0, 32)]);
}

#[test]
fn bad_batches_are_told() {
    let told = |body: &[u8]| Batch::decode(body, 10).unwrap_err().to_string();
    assert!(told(&histogram(4, 0, &[1], 1)).contains("scale 4"));
    assert!(told(&histogram(5, 0, &[1], 2)).contains("delta"));
    assert!(told(b"").contains("service.instance.id"));
    assert!(told(b"\x0a").contains("ends within"));
    let mut fields = Fields(b"\x09\0\0\0\0\0\0\0");
    assert!(fields.next().is_err());
    let record = |service: u128| Record {
        dimensions: Dimensions {
            service: Some(Uuid::from_u128(service)),
            ..Dimensions {
                overflow: false,
                ..Dimensions::overflow(StatusClass::of(200))
            }
        },
        totals: Totals::default(),
    };
    let batch = Batch {
        source: Source {
            node: Uuid::nil(),
            hostname: String::new(),
            version: String::new(),
        },
        start_unix_ns: 0,
        end_unix_ns: 0,
        records: (0..11).map(record).collect(),
        dropped: 0,
    };
    assert!(told(&batch.encode()).contains("more than 10"));
}

#[test]
fn batch_ids_are_read_strictly() {
    let id = BatchId {
        run: Uuid::from_u128(7),
        sequence: 12,
    };
    assert_eq!(id.to_string().parse(), Ok(id));
    for bad in ["", "x/1", "/1"] {
        assert_eq!(bad.parse::<BatchId>(), Err(BatchIdError), "{bad}");
    }
    for bad in ["0", "", "+1", "-1", "18446744073709551616"] {
        let text = format!("{}/{bad}", id.run);
        assert_eq!(text.parse::<BatchId>(), Err(BatchIdError), "{text}");
    }
}

#[test]
fn statuses_have_classes() {
    for (status, class) in [
        (0, "1xx"),
        (101, "1xx"),
        (200, "2xx"),
        (499, "4xx"),
        (999, "5xx"),
    ] {
        assert_eq!(StatusClass::of(status).as_str(), class);
    }
    assert_eq!(StatusClass::parse("6xx"), None);
}

#[test]
fn remote_write_is_snappy_of_protobuf_with_ordered_labels() {
    let mut request = remote_write::WriteRequest::default();
    request.add(&[("a", "1"), ("__name__", "up"), ("none", "")], 1.5, -2);
    assert_eq!((request.samples(), request.is_empty()), (1, false));
    let raw = snap::raw::Decoder::new()
        .decompress_vec(&request.finish())
        .unwrap();
    let expected = b"\x0a\x2c\
        \x0a\x0e\x0a\x08__name__\x12\x02up\
        \x0a\x06\x0a\x01a\x12\x011\
        \x12\x14\x09\0\0\0\0\0\0\xf8\x3f\x10\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    let length = expected.len() - 2;
    let mut expected = expected.to_vec();
    expected[1] = length as u8;
    assert_eq!(raw, expected);
}
