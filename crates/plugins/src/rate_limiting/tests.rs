use super::*;
use crate::testing::{Bench, Outcome, exchange};

/// Headers that the client would get, sorted.
fn headers(exchange: &Exchange) -> Vec<String> {
    let mut lines: Vec<_> = exchange
        .response_headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
        .collect();
    lines.sort();
    lines
}

fn request(now_ms: u64) -> Exchange {
    let mut exchange = exchange(http::Request::get("/orders"));
    exchange.now_ms = now_ms;
    exchange
}

#[test]
fn headers_count_down_and_the_refusal_says_when_to_come_back() {
    let bench = Bench::new(&RateLimiting, json!({"minute": 2, "hour": 100}));
    let mut first = request(30_000);
    assert_eq!(bench.access(&mut first), Outcome::Continued);
    assert_eq!(
        headers(&first),
        [
            "ratelimit-limit: 2",
            "ratelimit-remaining: 1",
            "ratelimit-reset: 30",
            "x-ratelimit-limit-hour: 100",
            "x-ratelimit-limit-minute: 2",
            "x-ratelimit-remaining-hour: 99",
            "x-ratelimit-remaining-minute: 1",
        ]
    );
    assert_eq!(bench.access(&mut request(40_000)), Outcome::Continued);
    let mut third = request(45_500);
    let refused = Outcome::Refused(429, "API rate limit exceeded".to_owned());
    assert_eq!(bench.access(&mut third), refused);
    assert!(headers(&third).contains(&"ratelimit-reset: 15".to_owned()));
    assert!(headers(&third).contains(&"x-ratelimit-remaining-hour: 98".to_owned()));
    assert_eq!(bench.access(&mut request(60_000)), Outcome::Continued);
}

#[test]
fn equal_remainders_show_the_longer_window() {
    let bench = Bench::new(&RateLimiting, json!({"second": 5, "minute": 5}));
    let mut exchange = request(30_000);
    bench.access(&mut exchange);
    assert!(headers(&exchange).contains(&"ratelimit-reset: 30".to_owned()));
}

#[test]
fn hidden_headers_stay_hidden() {
    let bench = Bench::new(
        &RateLimiting,
        json!({"minute": 1, "hide_client_headers": true}),
    );
    for _ in 0..2 {
        let mut exchange = request(0);
        bench.access(&mut exchange);
        assert!(exchange.response_headers.is_empty());
    }
}

#[test]
fn callers_are_told_apart_as_configured() {
    let config = json!({"minute": 1, "limit_by": "header", "header_name": "x-tenant"});
    let bench = Bench::new(&RateLimiting, config);
    let from = |tenant: &'static str| {
        let mut exchange = request(0);
        exchange.request.headers.set(
            &HeaderName::from_static("x-tenant"),
            &HeaderValue::from_static(tenant),
        );
        exchange
    };
    assert_eq!(bench.access(&mut from("a")), Outcome::Continued);
    assert_eq!(bench.access(&mut from("b")), Outcome::Continued);
    assert!(matches!(
        bench.access(&mut from("a")),
        Outcome::Refused(429, _)
    ));
}

#[track_caller]
fn check_config(config: Value, expected: Result<(), &str>) {
    let checked = crate::testing::validate(&RateLimiting, config);
    match expected {
        Ok(()) => assert_eq!(checked.err(), None),
        Err(part) => {
            let errors = checked.expect_err("the configuration is bad");
            assert!(errors.contains(part), "{part:?} is not in {errors:?}");
        }
    }
}

#[test]
fn bad_configurations_are_named() {
    check_config(json!({"minute": 5}), Ok(()));
    check_config(
        json!({}),
        Err("at least one of these fields must be non-empty"),
    );
    check_config(json!({"minute": 0}), Err("minute"));
    check_config(json!({"minute": "many"}), Err("expected a number"));
    check_config(
        json!({"second": 10, "hour": 5}),
        Err("cannot be lower than the limit for second"),
    );
    check_config(json!({"minute": 5, "policy": "cluster"}), Ok(()));
    check_config(
        json!({"minute": 5, "policy": "clusters"}),
        Err("expected one of"),
    );
    check_config(
        json!({"minute": 5, "policy": "redis"}),
        Err("redis.host: required field missing"),
    );
    check_config(
        json!({"minute": 5, "policy": "redis", "redis_host": "r.example"}),
        Ok(()),
    );
    let counting =
        |rate| json!({"minute": 5, "policy": "redis", "redis_host": "r", "sync_rate": rate});
    check_config(counting(1.0), Ok(()));
    for rate in [0.0, 0.01, -2.0] {
        check_config(counting(rate), Err("must be greater than 0.02"));
    }
    check_config(counting(1e9), Err("must not be more than 86400"));
    check_config(
        json!({"minute": 5, "sync_rate": 1}),
        Err("sync_rate can only be used with the redis policy"),
    );
    let below = json!({"minute": 5, "policy": "redis", "redis": {"host": "r", "database": -1}});
    check_config(below, Err("there is no database -1"));
    check_config(
        json!({"minute": 5, "limit_by": "header"}),
        Err("header_name"),
    );
    check_config(
        json!({"minute": 5, "limit_by": "moon"}),
        Err("expected one of"),
    );
    check_config(json!({"minute": 5, "minutes": 5}), Err("unknown field"));
}
