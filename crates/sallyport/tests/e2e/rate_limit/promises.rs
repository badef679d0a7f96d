//! What several nodes promise together, counted from outside.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use sallyport_testkit::eventually;
use serde_json::json;

use super::clients::calls;
use super::lab::{Client, take};
use super::nodes::{NAMES, Nodes, owner};
use crate::lab::{Handshake, Pair, bytes_until_close, soon};

const SIZE: u64 = 1_000;
const RATE: u64 = 100;
/// Silence is answered with a refusal, so that a slow machine cannot make a promise look broken.
const BUCKETS: &str = "buckets:
  hot: {size: 1000, per_second: 100, when_unreachable: refuse}
  few: {size: 100, when_unreachable: refuse}
  open: {size: 100}
";

/// Takes through all nodes at once while `meanwhile` runs; how much was admitted and in what time.
fn count(nodes: &Nodes, key: &str, meanwhile: impl FnOnce(&AtomicU64)) -> (u64, Duration) {
    let (stop, admitted) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    scope(|scope| {
        for limiter in &nodes.limiters {
            for window in [1, 32] {
                let address = limiter.address;
                let (stop, admitted) = (&stop, &admitted);
                scope.spawn(move || Client::connect(address).load(key, window, stop, admitted));
            }
        }
        meanwhile(&admitted);
        stop.store(true, Ordering::Relaxed);
    });
    (admitted.load(Ordering::Relaxed), began.elapsed())
}

fn dripped(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap() * RATE / 1_000 + 1
}

#[test]
fn r1_three_nodes_admit_no_more_than_one() {
    let nodes = Nodes::start(BUCKETS);
    let (admitted, time) = count(&nodes, "r1", |admitted| {
        // the first fill, and some of what drips
        eventually("more than a bucket", soon(), || {
            admitted.load(Ordering::Relaxed) > SIZE * 6 / 5
        });
    });
    let bound = SIZE + dripped(time);
    assert!(admitted <= bound, "{admitted} of {bound}");
}

#[test]
fn r2_an_owner_that_dies_costs_one_bucket_at_most() {
    let mut nodes = Nodes::start(BUCKETS);
    let at = owner("hot", "r2");
    let mut dying = nodes.limiters.remove(at);
    let (admitted, time) = count(&nodes, "r2", |admitted| {
        eventually("most of a bucket", soon(), || {
            admitted.load(Ordering::Relaxed) > SIZE / 2
        });
        dying.program.kill9();
        let before = admitted.load(Ordering::Relaxed);
        eventually("more from the next owner", soon(), || {
            admitted.load(Ordering::Relaxed) > before + SIZE
        });
    });
    let bound = 2 * SIZE + dripped(time);
    assert!(admitted <= bound, "{admitted} of {bound}");
}

#[test]
fn r3_each_side_of_a_partition_counts_alone_and_heals() {
    let nodes = Nodes::start(BUCKETS);
    let alone = owner("few", "r3");
    let others: Vec<_> = (0..3).filter(|at| *at != alone).collect();
    let lines: Vec<_> = nodes.limiters.iter().map(|l| l.program.lines()).collect();
    nodes.set_open(alone, false);
    for at in &others {
        let pattern = format!("node lost.* node=\"{}\"", NAMES[alone]);
        let program = &nodes.limiters[*at].program;
        program.wait_for_line_after(lines[*at], &pattern, soon());
    }
    let mut admitted = [0; 3];
    for (at, limiter) in nodes.limiters.iter().enumerate() {
        let mut client = limiter.client();
        admitted[at] = (0..150).filter(|_| client.take("few", "r3").0).count();
    }
    assert_eq!(admitted[alone], 100, "one side");
    assert_eq!(
        admitted[others[0]] + admitted[others[1]],
        100,
        "the other side"
    );
    let lines: Vec<_> = nodes.limiters.iter().map(|l| l.program.lines()).collect();
    nodes.set_open(alone, true);
    for at in others {
        nodes.wait_reached(at, lines[at], alone);
        nodes.wait_reached(alone, lines[alone], at);
    }
    for limiter in &nodes.limiters {
        assert!(
            !limiter.client().take("few", "r3").0,
            "its owner counts for all again"
        );
    }
}

#[test]
fn r4_a_silent_owner_is_answered_for_as_its_type_says() {
    let mut nodes = Nodes::patient(BUCKETS, 30);
    // keys of two types that one node owns, asked for at another
    let key = |bucket: &str| {
        let mut keys = (0..).map(|n| format!("r4-{n}"));
        keys.find(|key| owner(bucket, key) == 0).unwrap()
    };
    let (few, open) = (key("few"), key("open"));
    let mut client = nodes.limiters[1].client();
    eventually("an answer of the owner", soon(), || {
        client.take("few", &few).0
    });
    nodes.limiters[0].program.signal("STOP");
    // Were it not for the policy, the next owner would grant it from a full bucket.
    assert_eq!(client.take("few", &few), (false, 0));
    assert!(client.take("open", &open).0);
    let lines = nodes.limiters[1].program.lines();
    eventually("another owner", soon(), || client.take("few", &few).0);
    nodes.limiters[0].program.signal("CONT");
    nodes.wait_reached(1, lines, 0);
    // It counts for all again: both see one bucket.
    let mut at_owner = nodes.limiters[0].client();
    eventually("one bucket for both", soon(), || {
        let (_, left) = at_owner.take("few", &few);
        left > 0 && client.take("few", &few) == (true, left - 1)
    });
}

#[test]
fn all_nodes_list_all_buckets_and_share_resets() {
    let nodes = Nodes::start(BUCKETS);
    let mut keys: Vec<_> = (0..12).map(|n| format!("s{n:02}")).collect();
    let mut first = nodes.limiters[0].client();
    for key in &keys {
        assert_eq!(first.take("open", key), (true, 99));
    }
    let urls: Vec<_> = nodes.limiters.iter().map(|limiter| limiter.url()).collect();
    let asked = json!([
        ["status", "open", "s"],
        ["put", "open", "s00"],
        ["get", "open", "s00"],
        ["wait", "open", "s01", 2],
        ["take", "open", "s01", 2],
    ]);
    for (n, url) in urls.iter().enumerate() {
        let Some(answers) = calls(2, url, &asked) else {
            return;
        };
        let items = answers[0]["result"]["items"].as_array().unwrap();
        let found: Vec<_> = items
            .iter()
            .map(|item| item["instance"].as_str().unwrap())
            .collect();
        assert_eq!(found, keys, "at node {n}");
        assert_eq!(answers[2]["result"]["remaining"], 100);
        let remaining = 99 - 4 * (n + 1);
        assert_eq!(
            answers[4]["result"]["remaining"],
            json!(remaining),
            "at node {n}"
        );
        // it is full from now on
        keys.retain(|key| key != "s00");
    }
}

#[test]
fn clients_go_on_when_one_of_three_dies() {
    let mut nodes = Nodes::start(BUCKETS);
    let urls: Vec<_> = nodes.limiters.iter().map(|limiter| limiter.url()).collect();
    let urls = urls.join(",");
    let asked = json!([
        ["take", "open", "k"],
        ["take", "open", "l"],
        ["take", "open", "m"]
    ]);
    for generation in [1, 2] {
        let Some(answers) = calls(generation, &urls, &asked) else {
            return;
        };
        assert!(
            answers
                .iter()
                .all(|answer| answer["result"]["conformant"] == true)
        );
    }
    nodes.limiters[0].program.kill9();
    for generation in [1, 2] {
        let answers = calls(generation, &urls, &asked).unwrap();
        assert!(
            answers
                .iter()
                .all(|answer| answer["result"]["conformant"] == true),
            "{answers:?}"
        );
    }
}

#[test]
fn a_stranger_is_no_node() {
    let nodes = Nodes::start(BUCKETS);
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    for pair in [None, Some(&pair)] {
        let stranger = Handshake {
            port: nodes.limiters[0].address.port(),
            name: "a",
            ca: None,
            pair,
            alpn: &["sallyport-rate-limit/1"],
        };
        // With TLS 1.3 a client learns only from the first answer what its certificate is worth.
        let Ok(mut stream) = stranger.open() else {
            continue;
        };
        let mut asked = Vec::new();
        take("open", "k", 1).encode(&mut asked);
        _ = stream.write_all(&asked);
        assert!(bytes_until_close(&mut stream).is_empty());
    }
    assert!(nodes.limiters[0].client().take("open", "k").0);
}
