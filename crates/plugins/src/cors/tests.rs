//! Preflights and other requests, and what browsers get to see.

use super::*;
use crate::testing::{Bench, Seen, exchange, validate};

/// The headers of the response that concern browsers, sorted.
fn told(fields: &Fields) -> Vec<String> {
    let mut lines: Vec<_> = fields
        .iter()
        .filter(|(name, _)| name.starts_with("access-control") || *name == "vary")
        .map(|(name, value)| {
            let name = name.trim_start_matches("access-control-");
            format!("{name}: {}", String::from_utf8_lossy(value))
        })
        .collect();
    lines.sort();
    lines
}

fn preflight(config: Value, headers: &[(&str, &str)]) -> (Seen, Vec<String>) {
    let request = http::Request::options("/").header("access-control-request-method", "PUT");
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    let bench = Bench::new(&Cors, config);
    let mut exchange = exchange(request);
    let seen = bench.seen(&mut exchange);
    let mut response = exchange.response_headers.clone();
    bench.filter(&mut exchange, 200, &mut response);
    (seen, told(&response))
}

/// What a response to a GET gets, beside `vary: Accept` of the upstream.
fn response(config: Value, origin: Option<&str>) -> Vec<String> {
    let request = http::Request::get("/");
    let request = match origin {
        Some(origin) => request.header("origin", origin),
        None => request,
    };
    let bench = Bench::new(&Cors, config);
    let mut exchange = exchange(request);
    assert_eq!(bench.seen(&mut exchange), Seen::Continued);
    let mut fields = Fields::new();
    fields.append(&VARY, &HeaderValue::from_static("Accept"));
    let stale = HeaderValue::from_static("http://of.the.upstream");
    fields.append(&ACCESS_CONTROL_ALLOW_ORIGIN, &stale);
    bench.filter(&mut exchange, 200, &mut fields);
    told(&fields)
}

const ALL_METHODS: &str = "allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT";

#[test]
fn a_preflight_is_answered_here() {
    let (seen, headers) = preflight(json!({}), &[("origin", "http://a.example")]);
    assert_eq!(seen, Seen::answered(200, ""));
    assert_eq!(headers, [ALL_METHODS, "allow-origin: *"]);
    let config = json!({
        "origins": ["http://a.example"], "methods": ["GET", "PUT"], "headers": ["X-A", "X-B"],
        "exposed_headers": ["X-C"], "max_age": 23, "credentials": true, "private_network": true,
    });
    let asked = [
        ("origin", "http://other.example"),
        ("access-control-request-headers", "x-z"),
        ("access-control-request-private-network", "true"),
    ];
    let (_, headers) = preflight(config, &asked);
    assert_eq!(
        headers,
        [
            "allow-credentials: true",
            "allow-headers: X-A,X-B",
            "allow-methods: GET,PUT",
            "allow-origin: http://a.example",
            "allow-private-network: true",
            "max-age: 23",
            "vary: Origin",
        ]
    );
    let asked = [
        ("origin", "http://a.example"),
        ("access-control-request-headers", "x-z, x-y"),
    ];
    let (_, headers) = preflight(json!({"max_age": 0.5}), &asked);
    assert_eq!(
        headers,
        [
            "allow-headers: x-z, x-y",
            ALL_METHODS,
            "allow-origin: *",
            "max-age: 0.5"
        ]
    );
}

#[test]
fn what_is_no_preflight_goes_on() {
    let go_on = |config, headers: &[(&str, &str)]| {
        let (seen, headers) = preflight(config, headers);
        assert_eq!(seen, Seen::Continued);
        headers
    };
    assert_eq!(
        go_on(json!({}), &[]),
        ["allow-origin: *"],
        "without an origin"
    );
    let passed_on = json!({"preflight_continue": true});
    assert!(go_on(passed_on, &[("origin", "http://a.example")]).is_empty());
}

#[test]
fn responses_are_marked() {
    let check = |config: Value, origin: Option<&str>, expected: &[&str]| {
        assert_eq!(
            response(config.clone(), origin),
            expected,
            "{config} {origin:?}"
        );
    };
    let a = Some("http://a.example");
    check(json!({}), a, &["allow-origin: *", "vary: Accept"]);
    check(
        json!({"origins": ["*"]}),
        None,
        &["allow-origin: *", "vary: Accept"],
    );
    check(
        json!({"exposed_headers": ["X-A", "X-B"]}),
        a,
        &["allow-origin: *", "expose-headers: X-A,X-B", "vary: Accept"],
    );
    let unmarked = ["allow-origin: http://of.the.upstream", "vary: Accept"];
    check(json!({"allow_origin_absent": false}), None, &unmarked);
    check(
        json!({"credentials": true}),
        a,
        &[
            "allow-credentials: true",
            "allow-origin: http://a.example",
            "vary: Accept",
            "vary: Origin",
        ],
    );
    check(
        json!({"credentials": true}),
        None,
        &["allow-origin: *", "vary: Accept"],
    );
}

#[test]
fn origins_are_matched() {
    let check = |origins: &[&str], origin: &str, expected: Option<&str>| {
        let headers = response(json!({ "origins": origins }), Some(origin));
        let found = headers
            .iter()
            .find_map(|line| line.strip_prefix("allow-origin: "));
        assert_eq!(found, expected, "{origins:?} {origin}");
        assert!(headers.contains(&"vary: Origin".to_owned()), "{headers:?}");
    };
    let two = ["http://a.example", "https://b.example:8443"];
    check(&two, "http://a.example", Some("http://a.example"));
    check(&two, "http://a.example:80", Some("http://a.example"));
    check(
        &two,
        "https://b.example:8443",
        Some("https://b.example:8443"),
    );
    for other in [
        "https://a.example",
        "http://a.example:81",
        "http://a.example.org",
        "null",
        "",
    ] {
        check(&two, other, None);
    }
    // one origin is told to everybody
    check(
        &["http://a.example"],
        "http://b.example",
        Some("http://a.example"),
    );
    // expressions: of the host, or of all with a colon
    let host = [r"(.*[./])?example\.com", "x.example"];
    check(
        &host,
        "https://www.example.com",
        Some("https://www.example.com"),
    );
    check(
        &host,
        "http://example.com:8080",
        Some("http://example.com:8080"),
    );
    check(&host, "http://example.com.evil", None);
    let whole = [r"https?://.*\.example\.com$"];
    check(
        &whole,
        "https://a.example.com",
        Some("https://a.example.com"),
    );
    check(&whole, "ftp://a.example.com", None);
    check(
        &[r"^http://a\.example|http://b\.example$"],
        "http://a.example.evil",
        None,
    );
    check(&["http://a.example", "*"], "http://z.example", Some("*"));
}

#[test]
fn bad_settings_are_named() {
    let errors = validate(
        &Cors,
        json!({"origins": ["*", "(", "(?!a)b"], "methods": ["PURGE"]}),
    );
    assert_eq!(
        errors.unwrap_err(),
        "origins[1]: '(' is not a valid regex; origins[2]: '(?!a)b' is not a valid regex; \
         methods[0]: expected one of: GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS, TRACE, CONNECT"
    );
}
