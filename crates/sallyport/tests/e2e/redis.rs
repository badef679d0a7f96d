//! Limits counted in a real Redis server, by several gateways; what happens when it goes.

use sallyport_testkit::http::Response;
use sallyport_testkit::{Echo, Program, eventually, foreign, free_port};

use crate::lab::{Alone, soon};

fn redis(port: u16) -> Option<Program> {
    let program = foreign("redis-server", "Debian package redis-server")?;
    let redis = Program::new(program)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--requirepass", "s3cret", "--port", &port.to_string()])
        .start();
    redis.wait_for_line("Ready to accept connections", soon());
    Some(redis)
}

fn gateway(echo: &Echo, port: u16) -> Alone {
    let redis = format!("redis: {{host: 127.0.0.1, port: {port}, password: s3cret, database: 2}}");
    let limits = |rest: &str| format!("{{policy: redis, {redis}, limit_by: service, {rest}}}");
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
    plugins: [{{name: rate-limiting, config: {tolerant}}}]
  - name: strict
    id: 7a1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c03
    paths: [/strict]
    plugins: [{{name: rate-limiting, config: {strict}}}]
  - name: behind
    id: 7a1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c05
    paths: [/behind]
    plugins: [{{name: rate-limiting, config: {behind}}}]
  - name: costs
    id: 7a1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c04
    paths: [/costs]
    plugins: [{{name: response-ratelimiting, config: {{policy: redis, {redis}, fault_tolerant: false, limits: {{video: {{year: 9}}}}}}}}]
"#,
        url = echo.url(),
        tolerant = limits("month: 4, year: 100"),
        behind = limits("month: 6, year: 100, sync_rate: 0.05"),
        strict = limits("year: 1000, fault_tolerant: false"),
    );
    Alone::start(&document, "")
}

fn ask(gateway: &Alone, path: &str) -> Response {
    gateway.get(path).send().unwrap()
}

#[test]
fn gateways_count_together_and_outlive_the_server() {
    let port = free_port();
    let Some(mut server) = redis(port) else {
        return;
    };
    let echo = Echo::start();
    let gateways = [gateway(&echo, port), gateway(&echo, port)];

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
    let before = echo.count();
    let passed: usize = std::thread::scope(|scope| {
        let burst = |gateway: usize| {
            let gateway = &gateways[gateway % 2];
            let passes = move || ask(gateway, "/strict").status == 200;
            scope.spawn(move || (0..25).filter(|_| passes()).count())
        };
        let asking: Vec<_> = (0..4).map(burst).collect();
        asking
            .into_iter()
            .map(|asking| asking.join().unwrap())
            .sum()
    });
    assert_eq!((passed, echo.count() - before), (100, 100));
    let answer = ask(&gateways[0], "/strict");
    assert_eq!(answer.header("x-ratelimit-remaining-year"), Some("899"));
    let costs = ask(&gateways[0], "/costs");
    assert_eq!(costs.header("x-ratelimit-remaining-video-year"), Some("9"));
    assert_eq!(
        costs.json()["headers"]["x-ratelimit-remaining-video"][0],
        "9"
    );

    server.kill9();
    let uncounted = ask(&gateways[0], "/tolerant");
    assert_eq!(uncounted.status, 200);
    assert!(
        uncounted
            .headers
            .iter()
            .all(|(name, _)| !name.contains("ratelimit"))
    );
    for path in ["/strict", "/costs"] {
        let failed = ask(&gateways[0], path);
        assert_eq!(failed.status, 500, "{path}");
        assert_eq!(failed.json()["message"], "An unexpected error occurred");
    }

    let _server = redis(port).expect("it was there before");
    eventually("Redis is used again", soon(), || {
        let answer = ask(&gateways[0], "/tolerant");
        answer.header("x-ratelimit-remaining-month").is_some()
    });
}

/// What Redis counts for the route `behind` in this month.
fn told(port: u16) -> String {
    let script = "return redis.call('get', redis.call('keys', ARGV[1])[1] or '') or 'nothing'";
    let asked = Program::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(["-a", "s3cret", "-n", "2", "--no-auth-warning"])
        .args(["--raw", "EVAL", script, "0"])
        .arg("ratelimit:7a1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c05:*:month")
        .run(soon());
    asked.success().stdout.trim().to_owned()
}

#[test]
fn gateways_that_tell_redis_later_count_together_too() {
    let port = free_port();
    let Some(mut server) = redis(port) else {
        return;
    };
    let echo = Echo::start();
    let [one, other] = [gateway(&echo, port), gateway(&echo, port)];
    let left = |gateway: &Alone| {
        let answer = ask(gateway, "/behind");
        let left = answer.header("x-ratelimit-remaining-month");
        (answer.status, left.unwrap_or("nothing").to_owned())
    };
    for expected in ["5", "4", "3"] {
        assert_eq!(left(&one), (200, expected.to_owned()));
    }
    eventually("Redis is told", soon(), || told(port) == "3");
    for expected in ["2", "1", "0"] {
        assert_eq!(left(&other), (200, expected.to_owned()));
    }
    assert_eq!(left(&other), (429, "0".to_owned()));
    eventually("Redis is told", soon(), || told(port) == "6");
    eventually("the first learns of it", soon(), || left(&one).0 == 429);

    server.kill9();
    let uncounted = || left(&one) == (200, "nothing".to_owned());
    eventually("requests pass uncounted", soon(), uncounted);
    let _server = redis(port).expect("it was there before");
    eventually("Redis is used again", soon(), || {
        left(&other).1 != "nothing"
    });
}
