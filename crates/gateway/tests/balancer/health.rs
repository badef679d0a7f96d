//! Targets that fail are left alone, and come back.

use sallyport_testkit::{Echo, eventually, http};
use serde_json::{Value, json};

use crate::running::{Running, deadline, over};

fn checks(active: Value, passive: Value) -> Value {
    json!({"healthchecks": {"active": active, "passive": passive}})
}

#[test]
fn traffic_ejects_a_target_and_a_probe_brings_it_back() {
    let (a, b) = (Echo::start(), Echo::start());
    let active = json!({
        "http_path": "/up",
        "unhealthy": {"interval": 0.05},
        "healthy": {"successes": 2},
    });
    let passive = json!({"unhealthy": {"http_failures": 2}});
    let gateway = over(checks(active, passive), &[&a, &b]);
    assert_eq!(gateway.health(), ["HEALTHY", "HEALTHY"]);
    a.answer_with(500);
    let statuses = gateway.statuses(12);
    let failed = statuses.iter().filter(|status| **status == 500).count();
    assert_eq!(failed, 2, "two answers are enough: {statuses:?}");
    assert_eq!(gateway.health(), ["UNHEALTHY", "HEALTHY"]);
    assert_eq!(gateway.statuses(4), [200; 4]);
    eventually("a probe", deadline(), || {
        a.last().is_some_and(|seen| seen.path == "/up")
    });
    a.answer_with(200);
    gateway.wait_for_health(&["HEALTHY", "HEALTHY"]);
    let before = b.count();
    assert_eq!(gateway.statuses(8), [200; 8]);
    assert_eq!(b.count() - before, 4, "both take part again");
}

#[test]
fn connections_that_fail_eject_a_target() {
    let a = Echo::start();
    let passive = json!({"unhealthy": {"tcp_failures": 1}});
    let gone = Echo::start();
    let (addr, live) = (gone.addr().to_string(), a.addr().to_string());
    drop(gone);
    let upstream = checks(json!({}), passive);
    let gateway = Running::with(json!({"retries": 1}), upstream, &[&addr, &live], "");
    assert_eq!(gateway.statuses(4), [200; 4]);
    assert_eq!(gateway.health(), ["UNHEALTHY", "HEALTHY"]);
}

#[test]
fn silence_ejects_a_target() {
    let (a, b) = (Echo::start(), Echo::start());
    a.delay(std::time::Duration::from_secs(20));
    let passive = json!({"unhealthy": {"timeouts": 1}});
    let targets = [a.addr().to_string(), b.addr().to_string()];
    let service = json!({"read_timeout": 200, "retries": 1});
    let targets: Vec<_> = targets.iter().map(String::as_str).collect();
    let gateway = Running::with(service, checks(json!({}), passive), &targets, "");
    assert_eq!(gateway.statuses(4), [200; 4]);
    assert_eq!(gateway.health(), ["UNHEALTHY", "HEALTHY"]);
    assert_eq!(a.count(), 1);
}

#[test]
fn an_answer_of_504_counts_as_silence() {
    let (a, b) = (Echo::start(), Echo::start());
    a.answer_with(504);
    let passive = json!({"unhealthy": {"timeouts": 2, "http_failures": 1}});
    let gateway = over(checks(json!({}), passive), &[&a, &b]);
    let statuses = gateway.statuses(8);
    assert_eq!(statuses.iter().filter(|status| **status == 504).count(), 2);
    assert_eq!(gateway.health(), ["UNHEALTHY", "HEALTHY"]);
}

#[test]
fn probes_find_out_without_traffic() {
    for kind in ["tcp", "http"] {
        let a = Echo::start();
        let addr = a.addr();
        let active = json!({
            "type": kind,
            "healthy": {"interval": 0.05, "successes": 1},
            "unhealthy": {"interval": 0.05, "tcp_failures": 2},
        });
        let gateway = over(checks(active, json!({})), &[&a]);
        assert_eq!(gateway.health(), ["HEALTHY"]);
        drop(a);
        gateway.wait_for_health(&["UNHEALTHY"]);
        assert_eq!(gateway.get("/").status, 503);
        let _back = Echo::start_at(addr);
        gateway.wait_for_health(&["HEALTHY"]);
        assert_eq!(gateway.get("/").status, 200);
    }
}

#[test]
fn probes_judge_statuses_and_send_what_is_set() {
    let a = Echo::start();
    a.answer_with(404);
    let active = json!({
        "http_path": "/health",
        "headers": {"X-Probe": ["1", "2"]},
        "healthy": {"interval": 0.05, "successes": 1, "http_statuses": [204]},
        "unhealthy": {"interval": 0.05, "http_failures": 1, "http_statuses": [404]},
    });
    let mut upstream = checks(active, json!({}));
    upstream["host_header"] = json!("health.test");
    let gateway = over(upstream, &[&a]);
    gateway.wait_for_health(&["UNHEALTHY"]);
    a.answer_with(204);
    gateway.wait_for_health(&["HEALTHY"]);
    let seen = a.last().unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("GET", "/health")
    );
    let values = |name: &str| -> Vec<_> { seen.headers.all(name).map(str::to_owned).collect() };
    assert_eq!(values("x-probe"), ["1", "2"]);
    assert_eq!(values("host"), ["health.test"]);
}

#[test]
fn probes_over_tls_verify_if_they_are_told_to() {
    // another gateway: it shows a certificate of its own making and answers 404
    let empty = json!({"_format_version": "3.0", "services": []});
    let secure = Running::declared(&empty, "proxy_listen = 127.0.0.1:0 ssl");
    for (verify, health) in [(false, "HEALTHY"), (true, "UNHEALTHY")] {
        let active = json!({
            "type": "https",
            "https_verify_certificate": verify,
            "https_sni": "localhost",
            "healthy": {"interval": 0.05, "successes": 1, "http_statuses": [404]},
            "unhealthy": {"interval": 0.05, "tcp_failures": 1, "http_statuses": []},
        });
        let target = secure.address().to_string();
        let gateway = Running::pool(checks(active, json!({})), &[&target]);
        let upstreams = gateway.gateway().upstreams();
        let opposite = health != "HEALTHY";
        upstreams
            .set_healthy("pool", &target, None, opposite)
            .unwrap();
        gateway.wait_for_health(&[health]);
    }
}

#[test]
fn too_little_weight_is_as_good_as_none() {
    let (a, b) = (Echo::start(), Echo::start());
    let gateway = over(json!({"healthchecks": {"threshold": 60}}), &[&a, &b]);
    assert_eq!(gateway.get("/").status, 200);
    let upstreams = gateway.gateway().upstreams();
    let target = a.addr().to_string();
    upstreams.set_healthy("pool", &target, None, false).unwrap();
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(upstreams.health()[0].health.as_str(), "UNHEALTHY");
}

#[test]
fn the_status_api_shows_the_health_of_targets() {
    let (a, b) = (Echo::start(), Echo::start());
    let targets = [a.addr().to_string(), b.addr().to_string()];
    let targets: Vec<_> = targets.iter().map(String::as_str).collect();
    let passive = json!({"unhealthy": {"tcp_failures": 1}});
    let upstream = checks(json!({}), passive);
    let conf = "status_listen = 127.0.0.1:0";
    let gateway = Running::with(json!({}), upstream, &targets, conf);
    let upstreams = gateway.gateway().upstreams();
    upstreams
        .set_healthy("pool", targets[0], None, false)
        .unwrap();
    let status = gateway.gateway().status_addresses()[0];
    let get = |path: &str| http::get(format!("http://{status}{path}")).send().unwrap();
    let shown = get("/upstreams/pool/health").json();
    let id = upstreams.health()[0].id;
    assert_eq!(shown["data"][0]["health"], "UNHEALTHY");
    assert_eq!(shown["data"][0]["target"], targets[0]);
    let address = json!({
        "ip": "127.0.0.1", "port": b.port(), "weight": 100, "health": "HEALTHY",
    });
    assert_eq!(shown["data"][1]["data"]["addresses"], json!([address]));
    assert_eq!(shown["data"][1]["data"]["weight"]["available"], 100);
    assert_eq!(get(&format!("/upstreams/{id}/health")).json(), shown);
    assert_eq!(get("/upstreams/other/health").status, 404);
}
