//! `rate-limiting` through a running gateway: the count, and what the client is told.
//!
//! Limits are per month or year, so that (almost) no window ends while a test counts.

use sallyport_testkit::Echo;
use sallyport_testkit::http::Response;

use crate::lab::Alone;

fn gateway(echo: &Echo, config: &str) -> Alone {
    let document = format!(
        r#"
_format_version: "3.0"
services:
- name: echo
  url: {}
  routes:
  - name: echo
    paths: [/echo]
    plugins:
    - {{name: key-auth}}
    - {{name: rate-limiting, config: {config}}}
consumers:
- {{username: alice, keyauth_credentials: [{{key: a}}]}}
- {{username: bob, keyauth_credentials: [{{key: b}}]}}
"#,
        echo.url()
    );
    Alone::start(&document, "")
}

fn ask(gateway: &Alone, key: &str) -> Response {
    gateway.get("/echo").header("apikey", key).send().unwrap()
}

#[track_caller]
fn number(answer: &Response, name: &str) -> u64 {
    let value = answer.header(name).unwrap_or_else(|| panic!("no {name}"));
    value.parse().unwrap_or_else(|_| panic!("{name}: {value}"))
}

#[test]
fn over_the_limit_is_429_with_kongs_headers_and_body() {
    let echo = Echo::start();
    let gateway = gateway(&echo, "{month: 3, year: 100000, policy: local}");
    for used in 1..=3 {
        let answer = ask(&gateway, "a");
        assert_eq!(answer.status, 200);
        assert_eq!(number(&answer, "X-RateLimit-Limit-Month"), 3);
        assert_eq!(number(&answer, "X-RateLimit-Remaining-Month"), 3 - used);
        assert_eq!(number(&answer, "X-RateLimit-Limit-Year"), 100_000);
        assert_eq!(number(&answer, "RateLimit-Limit"), 3, "the tightest one");
        assert_eq!(number(&answer, "RateLimit-Remaining"), 3 - used);
        assert!((1..=31 * 86_400).contains(&number(&answer, "RateLimit-Reset")));
        assert_eq!(answer.header("Retry-After"), None);
    }
    let over = ask(&gateway, "a");
    assert_eq!(over.status, 429);
    let body = over.json();
    assert_eq!(body["message"], "API rate limit exceeded");
    assert_eq!(
        body["request_id"].as_str(),
        over.header("x-kong-request-id")
    );
    assert_eq!(
        over.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(number(&over, "X-RateLimit-Limit-Month"), 3);
    assert_eq!(number(&over, "X-RateLimit-Remaining-Month"), 0);
    assert!(number(&over, "X-RateLimit-Remaining-Year") > 0);
    assert_eq!(number(&over, "RateLimit-Limit"), 3);
    assert_eq!(number(&over, "RateLimit-Remaining"), 0);
    assert_eq!(
        number(&over, "Retry-After"),
        number(&over, "RateLimit-Reset")
    );
    assert!(over.header("x-kong-response-latency").is_some());
    assert_eq!(echo.count(), 3, "the fourth did not reach the upstream");

    let other = ask(&gateway, "b");
    assert_eq!(
        (other.status, number(&other, "RateLimit-Remaining")),
        (200, 2)
    );
    // A request without a key is refused before it is counted.
    assert_eq!(gateway.get("/echo").send().unwrap().status, 401);
}

#[test]
fn all_cores_count_together() {
    let echo = Echo::start();
    let gateway = gateway(&echo, "{year: 40, policy: local}");
    // New connections land on any of the workers; the limit is one for all of them.
    let passed = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..20).filter(|_| ask(&gateway, "a").status == 200).count()))
            .collect();
        asking
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<usize>()
    });
    assert_eq!(passed, 40);
    assert_eq!(echo.count(), 40);
}

#[test]
fn headers_can_be_hidden_and_the_answer_chosen() {
    let echo = Echo::start();
    let config = "{year: 1, policy: local, hide_client_headers: true, error_code: 503, \
                  error_message: come back next year}";
    let gateway = gateway(&echo, config);
    let first = ask(&gateway, "a");
    let over = ask(&gateway, "a");
    assert_eq!((first.status, over.status), (200, 503));
    assert_eq!(over.json()["message"], "come back next year");
    for answer in [first, over] {
        let told = answer.headers.iter().find(|(name, _)| {
            let name = name.to_ascii_lowercase();
            name.contains("ratelimit") || name == "retry-after"
        });
        assert_eq!(told, None);
    }
}
