//! Rings and balancers without sockets.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::{Target, Upstream};
use sallyport_model::schema::parse_entity;
use serde_json::{Value, json};

use super::circuit::Report;
use super::ring::Chance;
use super::xxh32::xxh32;
use super::*;

/// An upstream with these fields, the others as by default.
pub(crate) fn upstream(fields: Value) -> Upstream {
    let mut body = json!({"name": "pool", "id": Uuid::from_u128(1)});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    let parsed = parse_entity(Kind::Upstream, body, sallyport_plugins::schemas()).unwrap();
    serde_json::from_value(parsed).unwrap()
}

fn targets(all: &[(&str, u16)]) -> Vec<Target> {
    let target = |(at, (target, weight)): (usize, &(&str, u16))| Target {
        id: Uuid::from_u128(100 + at as u128),
        target: (*target).to_owned(),
        weight: *weight,
        upstream: sallyport_model::entities::Foreign(Uuid::from_u128(1)),
    };
    all.iter().enumerate().map(target).collect()
}

struct Pool {
    balancers: Balancers,
    balancer: Arc<Balancer>,
}

impl Pool {
    fn new(fields: Value, all: &[(&str, u16)]) -> Pool {
        let balancers = Balancers::new(Dns::default());
        let balancer = make(&balancers, fields, all);
        balancers.put_these_in_force(std::slice::from_ref(&balancer));
        Pool {
            balancers,
            balancer,
        }
    }

    /// The next configuration of the same upstream.
    fn change(&mut self, fields: Value, all: &[(&str, u16)]) {
        self.balancer = make(&self.balancers, fields, all);
        self.balancers
            .put_these_in_force(std::slice::from_ref(&self.balancer));
    }

    fn address(&self, socket: &str) -> Arc<Address> {
        let socket: SocketAddr = socket.parse().unwrap();
        let ring = self.balancer.ring();
        let entry = ring.entries.iter().find(|it| it.address.socket == socket);
        entry.unwrap().address.clone()
    }

    fn pick_with(&self, chance: Chance<'_>) -> String {
        match self.balancer.ring().pick(&chance) {
            Some(entry) => entry.address.socket.to_string(),
            None => "none".to_owned(),
        }
    }

    fn pick(&self, cursor: u32) -> String {
        self.pick_with(Chance {
            cursor,
            hash: 0,
            tried: &[],
            now_ms: 0,
        })
    }

    /// How often each is chosen in so many turns.
    #[track_caller]
    fn check(&self, turns: u32, expected: &[(&str, u32)]) {
        let mut counts = BTreeMap::new();
        for turn in 0..turns {
            *counts.entry(self.pick(turn)).or_insert(0) += 1;
        }
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(address, count)| ((*address).to_owned(), *count))
            .collect();
        assert_eq!(counts, expected);
    }
}

/// TLS for probes that need none.
pub(super) fn probe_tls() -> ProbeTls {
    let trust = sallyport_runtime::tls::ServerTrust::Anybody;
    let config = Arc::new(sallyport_runtime::tls::client_config(trust, None).unwrap());
    ProbeTls {
        verified: config.clone(),
        unverified: config,
        roots: Arc::new(rustls::RootCertStore::empty()),
    }
}

/// The balancer of [`upstream`] with these fields and targets.
pub(super) fn make(balancers: &Balancers, fields: Value, all: &[(&str, u16)]) -> Arc<Balancer> {
    let targets = targets(all);
    let targets: Vec<_> = targets.iter().collect();
    balancers
        .balancer(&upstream(fields), &targets, None)
        .unwrap()
}

const A: &str = "10.0.0.1:8000";
const B: &str = "10.0.0.2:8000";
const C: &str = "[::1]:9000";
const PASSIVE: &str =
    r#"{"passive": {"unhealthy": {"tcp_failures": 1}, "healthy": {"successes": 1}}}"#;

fn passive() -> Value {
    serde_json::from_str(PASSIVE).unwrap()
}

#[test]
fn weights_and_health_decide() {
    let pool = Pool::new(json!({}), &[("10.0.0.1", 20), (B, 10), (C, 0)]);
    pool.check(30, &[(A, 20), (B, 10)]);
    pool.address(A).set_healthy(false);
    pool.check(30, &[(B, 30)]);
    pool.address(B).set_healthy(false);
    pool.check(3, &[("none", 3)]);
    let none = Pool::new(json!({}), &[]);
    none.check(2, &[("none", 2)]);
}

#[test]
fn few_of_many_are_found_however_far_away() {
    let many: Vec<_> = (0..200).map(|n| (format!("10.0.1.{n}:80"), 1)).collect();
    let many: Vec<_> = many
        .iter()
        .map(|(text, weight)| (text.as_str(), *weight))
        .collect();
    let pool = Pool::new(json!({}), &many);
    for (target, _) in &many[1..] {
        pool.address(target).set_healthy(false);
    }
    for turn in 0..200 {
        assert_eq!(pool.pick(turn), "10.0.1.0:80");
    }
}

#[test]
fn a_retry_goes_elsewhere_if_it_can() {
    for algorithm in [
        "round-robin",
        "least-connections",
        "latency",
        "consistent-hashing",
    ] {
        let pool = Pool::new(json!({"algorithm": algorithm}), &[(A, 1), (B, 1)]);
        let (a, b): (SocketAddr, SocketAddr) = (A.parse().unwrap(), B.parse().unwrap());
        for turn in 0..4 {
            let chance = Chance {
                cursor: turn,
                hash: turn * 77_777,
                tried: &[a],
                now_ms: 0,
            };
            assert_eq!(pool.pick_with(chance), B, "{algorithm}");
            let both = [a, b];
            let again = Chance {
                tried: &both,
                ..chance
            };
            assert_ne!(pool.pick_with(again), "none", "{algorithm}");
        }
    }
}

#[test]
fn least_connections_weighs_what_is_under_way() {
    let pool = Pool::new(
        json!({"algorithm": "least-connections"}),
        &[(A, 100), (B, 200)],
    );
    let mut held = Vec::new();
    let mut counts = BTreeMap::new();
    for turn in 0..30 {
        let picked = pool.pick(turn);
        held.push(Lease::new(&pool.address(&picked), pool.balancer.algorithm()).unwrap());
        *counts.entry(picked).or_insert(0) += 1;
    }
    assert_eq!(
        counts,
        BTreeMap::from([(A.to_owned(), 10), (B.to_owned(), 20)])
    );
    held.clear();
    assert_eq!(
        (pool.address(A).in_flight(), pool.address(B).in_flight()),
        (0, 0)
    );
    let turns: BTreeMap<_, _> = Pool::new(
        json!({"algorithm": "least-connections"}),
        &[(A, 100), (B, 100)],
    )
    .turns(10);
    assert_eq!(turns.len(), 2, "equal ones take turns: {turns:?}");
}

impl Pool {
    fn turns(&self, turns: u32) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for turn in 0..turns {
            *counts.entry(self.pick(turn)).or_insert(0) += 1;
        }
        counts
    }
}

#[test]
fn latency_prefers_the_faster_one_until_it_is_long_ago() {
    let pool = Pool::new(json!({"algorithm": "latency"}), &[(A, 100), (B, 100)]);
    pool.address(A)
        .update_latency(|average| average.with(50.0, 100_000));
    pool.address(B)
        .update_latency(|average| average.with(20.0, 100_000));
    let at = |now_ms| {
        pool.pick_with(Chance {
            cursor: 0,
            hash: 0,
            tried: &[],
            now_ms,
        })
    };
    assert_eq!(at(100_000), B);
    pool.address(B)
        .update_latency(|average| average.with(20.0, 130_000));
    assert_eq!(at(130_000), A, "the slow one has faded and gets a chance");
}

#[test]
fn hashing_is_sticky_and_moves_the_share_of_a_new_target_only() {
    let by_ip = || json!({"hash_on": "ip"});
    let mut pool = Pool::new(by_ip(), &[(A, 100), (B, 100), (C, 100)]);
    let owner = |pool: &Pool, key: u32| {
        pool.pick_with(Chance {
            cursor: key,
            hash: xxh32(key.to_string().as_bytes()),
            tried: &[],
            now_ms: 0,
        })
    };
    let owners = |pool: &Pool| -> Vec<_> { (0..10_000).map(|key| owner(pool, key)).collect() };
    let before = owners(&pool);
    assert_eq!(owners(&pool), before, "the same key has the same target");
    let new = "10.0.0.9:8000";
    pool.change(by_ip(), &[(A, 100), (B, 100), (C, 100), (new, 100)]);
    let after = owners(&pool);
    let moved: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    let share = moved.len() as f64 / before.len() as f64;
    assert!((0.15..0.35).contains(&share), "{share} of the keys moved");
    let astray = moved.iter().filter(|(_, to)| *to != new).count();
    assert!(
        astray * 50 < before.len(),
        "{astray} moved between old targets"
    );
    pool.address(new).set_healthy(false);
    let fallen = owners(&pool);
    let stayed = before.iter().zip(&fallen).filter(|(a, b)| a == b).count();
    assert!(
        stayed * 100 > before.len() * 97,
        "{stayed} are back where they were"
    );
}

#[test]
fn the_threshold_is_a_share_of_the_weight() {
    // threshold, unhealthy targets of three with weights 10, 20, 70, whether it serves
    for (threshold, unhealthy, serves) in [
        (0.0, &[A, B][..], true),
        (25.0, &[A, B], true),
        (75.0, &[A, B], false),
        (70.0, &[A, B], false),
        (69.9, &[A, B], true),
        (25.0, &[A], true),
        (30.0, &[C], false),
        (29.9, &[C], true),
        (0.0, &[A, B, C], false),
    ] {
        let fields = json!({"healthchecks": {"threshold": threshold}});
        let pool = Pool::new(fields, &[(A, 10), (B, 20), (C, 70)]);
        for socket in unhealthy {
            pool.balancer.set_healthy(&pool.address(socket), false);
        }
        let found = pool.pick(0) != "none";
        assert_eq!(found, serves, "{threshold} without {unhealthy:?}");
        for socket in unhealthy {
            pool.balancer.set_healthy(&pool.address(socket), true);
        }
        assert_ne!(pool.pick(0), "none");
    }
}

#[test]
fn traffic_turns_targets_off_and_the_view_shows_it() {
    let checks = passive();
    let pool = Pool::new(json!({"healthchecks": checks}), &[(A, 1), (B, 1)]);
    let upstreams = Upstreams(Arc::new(pool.balancers));
    let shown = || {
        let view = upstreams.health_of("pool").unwrap();
        let one = |target: &TargetHealth| target.health.as_str();
        let targets: Vec<_> = view.targets.iter().map(one).collect();
        (view.health.as_str(), view.available_percent, targets)
    };
    assert_eq!(shown(), ("HEALTHY", 100.0, vec!["HEALTHY", "HEALTHY"]));
    let a = pool.balancer.ring().entries[0].address.clone();
    pool.balancer.note(&a, Report::Status(500), false);
    assert_eq!(shown().1, 100.0, "statuses have no limit here");
    pool.balancer.note(&a, Report::TcpFailure, false);
    assert_eq!(shown(), ("HEALTHY", 50.0, vec!["UNHEALTHY", "HEALTHY"]));
    pool.balancer.note(&a, Report::Status(200), false);
    assert_eq!(shown().1, 100.0);

    upstreams.set_healthy("pool", B, None, false).unwrap();
    assert_eq!(shown().2, ["HEALTHY", "UNHEALTHY"]);
    let id = Uuid::from_u128(1).to_string();
    let at = Some(B.parse().unwrap());
    upstreams.set_healthy(&id, B, at, true).unwrap();
    assert_eq!(shown().2, ["HEALTHY", "HEALTHY"]);
    for (upstream, target, address) in [("other", A, None), ("pool", "x:1", None), ("pool", A, at)]
    {
        assert!(
            upstreams
                .set_healthy(upstream, target, address, true)
                .is_err()
        );
    }
}

#[test]
fn what_is_known_outlives_configurations() {
    let checked = || json!({"healthchecks": passive()});
    let mut pool = Pool::new(checked(), &[(A, 1), (B, 1)]);
    let first = pool.balancer.clone();
    pool.change(checked(), &[(A, 1), (B, 1)]);
    assert!(Arc::ptr_eq(&first, &pool.balancer), "nothing has changed");
    pool.address(A).set_healthy(false);
    pool.change(checked(), &[(A, 5), (C, 1)]);
    pool.check(4, &[(C, 4)]);
    pool.change(checked(), &[(B, 1), (C, 1)]);
    pool.change(checked(), &[(A, 1), (C, 1)]);
    pool.check(4, &[(A, 2), (C, 2)]);
    pool.address(A).set_healthy(false);
    pool.change(json!({}), &[(A, 1), (C, 1)]);
    pool.check(4, &[(A, 2), (C, 2)]);
}

#[test]
fn newcomers_start_with_the_average_of_the_others() {
    let fields = || json!({"algorithm": "latency"});
    let mut pool = Pool::new(fields(), &[(A, 1), (B, 1)]);
    let now = now_ms();
    for socket in [A, B] {
        pool.address(socket)
            .update_latency(|_| latency::Average::starting(40.0, now));
    }
    pool.change(fields(), &[(A, 1), (B, 1), (C, 1)]);
    let new = pool.address(C).latency().now(now);
    assert!(new > 30.0, "{new} ms");
}

#[test]
fn host_headers_follow_target_scheme_and_settings() {
    let header = |fields: Value, target: &str, tls: bool| {
        let pool = Pool::new(fields, &[(target, 1)]);
        let ring = pool.balancer.ring();
        let header = pool
            .balancer
            .host_header(&ring.entries[0], tls)
            .into_owned();
        header.to_str().unwrap().to_owned()
    };
    for (target, tls, expected) in [
        ("10.0.0.1:80", false, "10.0.0.1"),
        ("10.0.0.1:80", true, "10.0.0.1:80"),
        ("10.0.0.1:443", true, "10.0.0.1"),
        ("10.0.0.1:443", false, "10.0.0.1:443"),
        ("[::1]:9000", false, "[::1]:9000"),
    ] {
        assert_eq!(header(json!({}), target, tls), expected);
    }
    let given = json!({"host_header": "a.test"});
    assert_eq!(header(given, "10.0.0.1:9000", false), "a.test");
}

/// What one choice leaves behind: whether something is held, and whether `Host` was copied.
#[track_caller]
fn check_cost(fields: Value, holds: bool) {
    let pool = Pool::new(fields.clone(), &[(A, 1), (B, 1)]);
    let peers = Peers::Many(pool.balancer.clone());
    let cursors = Cursors::new(1);
    let choice = Choice {
        names: &pool.balancers.names,
        cursors: &cursors,
        hash: 0,
        tls: false,
        tried: &[],
        now: Instant::now(),
    };
    let counts = || -> Vec<_> {
        let ring = pool.balancer.ring();
        let count = |entry: &ring::Entry| Arc::strong_count(&entry.address);
        ring.entries.iter().map(count).collect()
    };
    let before = counts();
    let mut picking = std::pin::pin!(peers.pick(&choice));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Ok(picked)) = picking.as_mut().poll(&mut cx) else {
        panic!("{fields}: a choice among addresses does not wait");
    };
    assert!(matches!(picked.host_header, Cow::Borrowed(_)));
    assert_eq!(
        picked.lease.is_some() || picked.watched.is_some(),
        holds,
        "{fields}"
    );
    assert_eq!(counts() != before, holds, "{fields}");
}

#[test]
fn a_plain_turn_touches_nothing_that_is_shared() {
    check_cost(json!({}), false);
    check_cost(json!({"hash_on": "ip"}), false);
    check_cost(json!({"algorithm": "least-connections"}), true);
    check_cost(json!({"algorithm": "latency"}), true);
    check_cost(json!({"healthchecks": passive()}), true);
}
