//! What happens to a request when its target fails.

use sallyport_testkit::{Echo, free_port, http};
use serde_json::json;

use crate::running::{Running, over, targets};

fn nobody() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[test]
fn a_try_that_fails_goes_to_another_target() {
    let echo = Echo::start();
    let (live, dead, deaf) = (echo.addr().to_string(), nobody(), nobody());
    let with = |retries: u16| {
        let service = json!({"retries": retries});
        Running::with(service, json!({}), &[&live, &dead, &deaf], "")
    };
    assert_eq!(with(2).statuses(12), [200; 12]);
    let single = with(0).statuses(12);
    let failed = single.iter().filter(|status| **status == 502).count();
    assert_eq!(
        failed, 8,
        "without retries a third gets through: {single:?}"
    );
}

#[test]
fn every_algorithm_fails_over() {
    let echo = Echo::start();
    for algorithm in [
        "round-robin",
        "least-connections",
        "latency",
        "consistent-hashing",
    ] {
        let upstream = json!({"algorithm": algorithm});
        let targets = [nobody(), echo.addr().to_string()];
        let gateway = Running::pool(upstream, &[&targets[0], &targets[1]]);
        assert_eq!(gateway.statuses(6), [200; 6], "{algorithm}");
    }
}

#[test]
fn what_may_have_happened_is_not_done_twice() {
    let (a, b) = (Echo::start(), Echo::start());
    let gateway = over(json!({}), &[&a, &b]);
    let both = |count: usize| {
        a.close_next(count);
        b.close_next(count);
    };
    both(100);
    let post = http::request("POST", gateway.url("/")).body("pay");
    assert_eq!(post.send().unwrap().status, 502);
    assert_eq!(a.count() + b.count(), 1, "a POST is sent once");
    both(0);
    a.close_next(100);
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200, "a GET goes to the other one");
    }
    assert!(b.count() >= 4);
}

#[test]
fn an_answer_is_an_answer_whatever_its_status() {
    let (a, b) = (Echo::start(), Echo::start());
    a.answer_with(503);
    b.answer_with(503);
    let gateway = over(json!({}), &[&a, &b]);
    assert_eq!(gateway.statuses(4), [503; 4]);
    assert_eq!((a.count(), b.count()), (2, 2));
}

#[test]
fn without_a_healthy_target_there_is_no_peer() {
    let (a, b) = (Echo::start(), Echo::start());
    let gateway = over(json!({}), &[&a, &b]);
    let upstreams = gateway.gateway().upstreams();
    for target in targets(&[&a, &b]) {
        upstreams.set_healthy("pool", &target, None, false).unwrap();
    }
    let answer = gateway.get("/");
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json()["message"],
        "failure to get a peer from the ring-balancer"
    );
    assert_eq!(gateway.health(), ["UNHEALTHY", "UNHEALTHY"]);
    let target = a.addr().to_string();
    upstreams.set_healthy("pool", &target, None, true).unwrap();
    assert_eq!(gateway.statuses(4), [200; 4]);
    assert_eq!((a.count(), b.count()), (4, 0));
    assert_eq!(gateway.health(), ["HEALTHCHECKS_OFF", "UNHEALTHY"]);
}

#[test]
fn host_is_what_settings_say_it_is() {
    let echo = Echo::start();
    let target = format!("localhost:{}", echo.port());
    let host = |service: serde_json::Value, upstream: serde_json::Value| {
        let gateway = Running::with(service, upstream, &[&target], "");
        let request = http::get(gateway.url("/")).header("Host", "client.test");
        request.send().unwrap().json()["headers"]["host"][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(host(json!({}), json!({})), target);
    let given = json!({"host_header": "a.test"});
    assert_eq!(host(json!({}), given.clone()), "a.test");
    let routes = json!([{"name": "r", "paths": ["/"], "preserve_host": true}]);
    assert_eq!(host(json!({"routes": routes}), given), "client.test");
}
