//! Which target gets a request.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use sallyport_testkit::{Echo, eventually, http};
use serde_json::{Value, json};

use crate::running::{Running, deadline, over};

#[test]
fn least_connections_spreads_what_is_under_way() {
    let (a, b) = (Echo::start(), Echo::start());
    let gateway = over(json!({"algorithm": "least-connections"}), &[&a, &b]);
    a.delay(Duration::from_secs(5));
    b.delay(Duration::from_secs(5));
    let in_flight = || -> Vec<u32> {
        let targets = gateway.targets();
        targets.iter().map(|it| it.addresses[0].in_flight).collect()
    };
    let url = gateway.url("/");
    let requests: Vec<_> = (0..6)
        .map(|_| {
            let url = url.clone();
            thread::spawn(move || http::get(url).timeout(Duration::from_secs(60)).send())
        })
        .collect();
    eventually("three requests on each", deadline(), || {
        in_flight() == [3, 3]
    });
    for request in requests {
        assert_eq!(request.join().unwrap().unwrap().status, 200);
    }
    eventually("no request under way", deadline(), || in_flight() == [0, 0]);
}

#[test]
fn least_connections_counts_requests_that_fail_or_are_given_up() {
    let a = Echo::start();
    let gateway = over(json!({"algorithm": "least-connections"}), &[&a]);
    a.close_next(1);
    let post = http::request("POST", gateway.url("/")).body("x");
    assert_eq!(post.send().unwrap().status, 502);
    assert_eq!(gateway.targets()[0].addresses[0].in_flight, 0);
}

#[test]
fn latency_prefers_who_answers_fast() {
    let (fast, slow) = (Echo::start(), Echo::start());
    slow.delay(Duration::from_millis(200));
    let gateway = over(json!({"algorithm": "latency"}), &[&fast, &slow]);
    assert_eq!(gateway.statuses(20), [200; 20]);
    assert!(slow.count() <= 2, "{} went to the slow one", slow.count());
    let measured = gateway.targets();
    let ms = |at: usize| measured[at].addresses[0].latency_ms;
    assert!(ms(1) > ms(0), "{measured:?}");
}

/// Who gets the requests of so many keys, each sent as `request` makes it.
fn owners(gateway: &Running, keys: usize, request: impl Fn(usize) -> http::Request) -> Vec<u16> {
    (0..keys).map(|key| gateway.who(&request(key))).collect()
}

#[test]
fn a_key_stays_with_its_target_while_targets_come() {
    let echoes: Vec<_> = (0..5).map(|_| Echo::start()).collect();
    let hashed = || json!({"hash_on": "header", "hash_on_header": "X-Key"});
    let of = |count: usize| {
        let echoes: Vec<_> = echoes[..count].iter().collect();
        over(hashed(), &echoes)
    };
    let (four, same, five) = (of(4), of(4), of(5));
    const KEYS: usize = 300;
    let ask = |gateway: &Running| {
        owners(gateway, KEYS, |key| {
            http::get(gateway.url("/")).header("X-Key", format!("key-{key}"))
        })
    };
    let before = ask(&four);
    assert!(!before.contains(&0));
    assert_eq!(ask(&same), before, "another node agrees");
    let after = ask(&five);
    let moved: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    let share = moved.len() as f64 / KEYS as f64;
    assert!((0.05..0.4).contains(&share), "{share} of the keys moved");
    let new = echoes[4].port();
    let astray = moved.iter().filter(|(_, to)| **to != new).count();
    assert!(
        astray * 20 < KEYS,
        "{astray} keys moved between old targets"
    );
}

#[test]
fn a_key_comes_back_to_its_target() {
    let (a, b) = (Echo::start(), Echo::start());
    let gateway = over(json!({"hash_on": "path"}), &[&a, &b]);
    let ask = || {
        owners(&gateway, 40, |key| {
            http::get(gateway.url(&format!("/{key}")))
        })
    };
    let before = ask();
    assert!(before.contains(&a.port()) && before.contains(&b.port()));
    let upstreams = gateway.gateway().upstreams();
    let target = a.addr().to_string();
    upstreams.set_healthy("pool", &target, None, false).unwrap();
    assert_eq!(ask(), [b.port(); 40]);
    upstreams.set_healthy("pool", &target, None, true).unwrap();
    assert_eq!(ask(), before);
}

#[test]
fn every_input_makes_requests_stick() {
    let (a, b) = (Echo::start(), Echo::start());
    let plain = |key: usize| (format!("/?user={key}"), None);
    let in_path = |key: usize| (format!("/users/{key}/x"), None);
    let keyed = |key: usize| ("/".to_owned(), Some(("apikey", format!("key-{key}"))));
    type Ask = fn(usize) -> (String, Option<(&'static str, String)>);
    let cases: [(Value, Ask, bool); 6] = [
        (
            json!({"hash_on": "query_arg", "hash_on_query_arg": "user"}),
            plain,
            true,
        ),
        (json!({"hash_on": "path"}), in_path, true),
        (
            json!({"hash_on": "uri_capture", "hash_on_uri_capture": "user"}),
            in_path,
            true,
        ),
        (json!({"hash_on": "consumer"}), keyed, true),
        (json!({"hash_on": "ip"}), plain, false),
        (
            json!({"hash_on": "header", "hash_on_header": "x-no"}),
            plain,
            false,
        ),
    ];
    for (upstream, ask, spreads) in cases {
        let gateway = everything(&upstream, &[&a, &b]);
        let mut seen = BTreeMap::new();
        for key in 0..16 {
            for _ in 0..2 {
                let (path, header) = ask(key);
                let mut request = http::get(gateway.url(&path));
                request = request.header("apikey", "key-0");
                if let Some((name, value)) = header {
                    request = http::get(gateway.url(&path)).header(name, value);
                }
                let who = gateway.who(&request);
                assert_ne!(who, 0, "{upstream}");
                let first = *seen.entry(key).or_insert(who);
                assert_eq!(who, first, "{upstream}: key {key}");
            }
        }
        let one = seen.values().all(|who| *who == seen[&0]);
        assert_eq!(one, !spreads, "{upstream}: {seen:?}");
    }
}

/// A service with key-auth, 16 consumers and a route that captures.
fn everything(upstream: &Value, echoes: &[&Echo]) -> Running {
    let consumers: Vec<_> = (0..16)
        .map(|n| {
            let keys = json!([{"key": format!("key-{n}")}]);
            json!({"username": format!("user-{n}"), "keyauth_credentials": keys})
        })
        .collect();
    let targets: Vec<_> = echoes
        .iter()
        .map(|echo| json!({"target": echo.addr().to_string()}))
        .collect();
    let mut pool = json!({"name": "pool", "targets": targets});
    for (name, value) in upstream.as_object().unwrap() {
        pool[name] = value.clone();
    }
    let paths = json!(["~/users/(?<user>[0-9]+)", "/"]);
    let declared = json!({
        "_format_version": "3.0",
        "consumers": consumers,
        "upstreams": [pool],
        "services": [{
            "name": "s", "host": "pool",
            "plugins": [{"name": "key-auth"}],
            "routes": [{"name": "r", "paths": paths, "strip_path": false}],
        }],
    });
    Running::declared(&declared, "")
}

#[test]
fn a_client_without_the_cookie_gets_one() {
    let (a, b) = (Echo::start(), Echo::start());
    let upstream = json!({"hash_on": "cookie", "hash_on_cookie": "sid"});
    let gateway = over(upstream, &[&a, &b]);
    for _ in 0..8 {
        let first = gateway.get("/");
        let cookie = first.header("set-cookie").unwrap().to_owned();
        let (pair, rest) = cookie.split_once("; ").unwrap();
        assert_eq!(rest, "Path=/; Same-Site=Lax; HttpOnly");
        let again = http::get(gateway.url("/")).header("Cookie", pair);
        let again = again.send().unwrap();
        assert_eq!(again.header("set-cookie"), None);
        assert_eq!(again.json()["upstream"], first.json()["upstream"]);
    }
}
