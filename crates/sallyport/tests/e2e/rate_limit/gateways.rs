//! Gateways that count on the nodes: `rate-limiting` with the policy `cluster`.

use sallyport_testkit::http::Response;
use sallyport_testkit::{Echo, eventually};

use super::lab::{BUCKETS, Limiter};
use super::nodes::{Nodes, certificates};
use crate::lab::{Alone, soon};

pub(super) fn gateway(echo: &Echo, conf: &str) -> Alone {
    let document = format!(
        r#"
_format_version: "3.0"
services:
- name: echo
  id: 7a1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c01
  url: {url}
  routes:
  - name: tolerant
    id: 7a1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c02
    paths: [/tolerant]
    plugins: [{{name: rate-limiting, config: {{policy: cluster, limit_by: service, month: 4, year: 100}}}}]
  - name: strict
    id: 7a1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c03
    paths: [/strict]
    plugins: [{{name: rate-limiting, config: {{policy: cluster, limit_by: service, year: 1000, fault_tolerant: false}}}}]
  - name: burst
    id: 7a1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c04
    paths: [/burst]
    plugins: [{{name: rate-limiting, config: {{policy: cluster, limit_by: service, year: 50}}}}]
"#,
        url = echo.url(),
    );
    Alone::start(&document, conf)
}

fn ask(gateway: &Alone, path: &str) -> Response {
    gateway.get(path).send().unwrap()
}

/// Patient, so that a slow machine does not look like a dead node.
pub(super) fn counting_on(limiters: &[&Limiter]) -> String {
    let nodes: Vec<String> = limiters.iter().map(|it| it.address.to_string()).collect();
    format!(
        "sallyport_rate_limit = {}\nsallyport_rate_limit_timeout = 10s\n",
        nodes.join(", ")
    )
}

#[test]
fn gateways_count_together_on_the_nodes_and_go_on_without() {
    let mut nodes = Nodes::start(BUCKETS);
    let echo = Echo::start();
    let [a, b, c] = [&nodes.limiters[0], &nodes.limiters[1], &nodes.limiters[2]];
    let gateways = [
        gateway(&echo, &counting_on(&[a, b, c])),
        gateway(&echo, &counting_on(&[b, c, a])),
    ];

    for left in (0..4).rev() {
        let answer = ask(&gateways[left % 2], "/tolerant");
        assert_eq!(answer.status, 200);
        let left = left.to_string();
        assert_eq!(answer.header("x-ratelimit-remaining-month"), Some(&*left));
        assert_eq!(answer.header("ratelimit-limit"), Some("4"));
    }
    for gateway in &gateways {
        let over = ask(gateway, "/tolerant");
        assert_eq!(over.status, 429);
        assert_eq!(over.header("retry-after"), over.header("ratelimit-reset"));
        // a refused request is counted nowhere
        assert_eq!(over.header("x-ratelimit-remaining-year"), Some("96"));
    }
    // a burst over both gateways cannot exceed the limit
    let passed: usize = std::thread::scope(|scope| {
        let burst = |gateway: usize| {
            let gateway = &gateways[gateway % 2];
            (0..25)
                .filter(|_| ask(gateway, "/burst").status == 200)
                .count()
        };
        let threads: Vec<_> = (0..4).map(|at| scope.spawn(move || burst(at))).collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert_eq!(passed, 50);

    // the node that a gateway is connected to dies: the next one is asked
    nodes.limiters[0].program.kill9();
    eventually("the next node counts", soon(), || {
        ask(&gateways[0], "/strict").status == 200
    });
    // all of them are gone: each gateway counts alone, or lets nobody pass
    for limiter in &mut nodes.limiters[1..] {
        limiter.program.kill9();
    }
    eventually("no node counts", soon(), || {
        ask(&gateways[0], "/strict").status == 500
    });
    let statuses: Vec<u16> = (0..6)
        .map(|_| ask(&gateways[0], "/tolerant").status)
        .collect();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429]);
    gateways[0]
        .program
        .wait_for_line("no node that counts rate limits can be reached", soon());
}

#[test]
fn a_gateway_without_nodes_says_so_and_tls_is_verified() {
    let echo = Echo::start();
    let alone = gateway(&echo, "");
    assert_eq!(ask(&alone, "/strict").status, 500);
    assert_eq!(ask(&alone, "/tolerant").status, 200);

    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path(), &["localhost"]);
    let path = |file: &str| dir.path().join(file).display().to_string();
    let tls = format!(
        "tls: {{certificate: {}, key: {}, required: true}}\n{BUCKETS}",
        path("localhost.crt"),
        path("localhost.key")
    );
    let limiter = Limiter::start(&tls);
    let with = |more: &str| {
        let port = limiter.address.port();
        let conf = format!(
            "sallyport_rate_limit = localhost:{port}\nsallyport_rate_limit_timeout = 10s\n{more}"
        );
        ask(&gateway(&echo, &conf), "/strict").status
    };
    let ca = format!("lua_ssl_trusted_certificate = {}\n", path("ca.crt"));
    assert_eq!(with(&format!("{ca}sallyport_rate_limit_ssl = on\n")), 200);
    assert_eq!(with("sallyport_rate_limit_ssl = on\n"), 500);
    assert_eq!(with(""), 500);
}
