use http::request::Builder;

use super::*;
use crate::testing::exchange;
use crate::trial::{Seen, Trial, get, problems};

const TEXT: (&str, &str) = ("content-type", "text/plain");
const NOON_MS: u64 = 43_200_000;
const NOON: &str = "Thu, 01 Jan 1970 12:00:00 GMT";

/// A plugin and an upstream whose answers are numbered.
struct Asked {
    trial: Trial,
    answers: u32,
}

impl Asked {
    #[track_caller]
    fn new(mut config: Value) -> Asked {
        config["strategy"] = json!("memory");
        Asked {
            trial: Trial::new(&ProxyCache, config),
            answers: 0,
        }
    }

    /// A request `at_s` seconds after noon, for which the upstream has these headers.
    fn ask(&mut self, at_s: u64, request: Exchange, headers: &[(&str, &str)]) -> Seen {
        self.ask_for(at_s, request, 200, headers)
    }

    fn ask_for(
        &mut self,
        at_s: u64,
        mut exchange: Exchange,
        status: u16,
        headers: &[(&str, &str)],
    ) -> Seen {
        exchange.now_ms = NOON_MS + at_s * 1_000;
        match self.trial.access(&mut exchange, b"") {
            None => {
                self.answers += 1;
                let body = format!("answer {}", self.answers);
                self.trial.response(&mut exchange, status, headers, &body)
            }
            Some(reply) => self.trial.later(&mut exchange, reply),
        }
    }
}

fn with(headers: &[(&str, &str)]) -> Exchange {
    let request = headers
        .iter()
        .fold(Builder::new().uri("/"), |request, (name, value)| {
            request.header(*name, *value)
        });
    exchange(request)
}

#[track_caller]
fn is(seen: &Seen, status: &str, body: &str) {
    let found = (seen.header("x-cache-status"), &*seen.body);
    assert_eq!(found, (Some(status), body));
}

#[test]
fn a_response_is_used_for_its_time() {
    let mut asked = Asked::new(json!({"cache_ttl": 10, "storage_ttl": 20}));
    let first = asked.ask(
        0,
        get("/"),
        &[TEXT, ("x-a", "1"), ("connection", "x-b"), ("x-b", "2")],
    );
    is(&first, "Miss", "answer 1");
    assert_eq!(first.header("age"), None);
    let key = first.header("x-cache-key").unwrap();
    assert_eq!(key.len(), 64);
    let hit = asked.ask(10, get("/"), &[TEXT]);
    is(&hit, "Hit", "answer 1");
    assert_eq!(hit.header("x-cache-key"), Some(key));
    assert_eq!(hit.header("age"), Some("10"));
    assert_eq!(hit.header("x-a"), Some("1"));
    assert_eq!((hit.header("x-b"), hit.header("connection")), (None, None));
    is(&asked.ask(11, get("/"), &[TEXT]), "Refresh", "answer 2");
    is(&asked.ask(31, get("/"), &[TEXT]), "Miss", "answer 3");
    is(&asked.ask(31, get("/?a"), &[TEXT]), "Miss", "answer 4");
}

#[test]
fn what_is_not_listed_passes() {
    let json = ("content-type", "application/json; charset=utf-8");
    for (method, status, headers) in [
        ("POST", 200, &[TEXT][..]),
        ("GET", 500, &[TEXT]),
        ("GET", 206, &[TEXT]),
        ("GET", 200, &[]),
        ("GET", 200, &[json]),
        ("GET", 200, &[TEXT, ("vary", "accept, *")]),
    ] {
        let mut asked = Asked::new(json!({"response_code": [200, 206]}));
        for body in ["answer 1", "answer 2"] {
            let request = exchange(Builder::new().method(method).uri("/"));
            is(&asked.ask_for(0, request, status, headers), "Bypass", body);
        }
    }
    let mut asked = Asked::new(json!({"content_type": ["application/json; charset=utf-8"]}));
    is(&asked.ask(0, get("/"), &[json]), "Miss", "answer 1");
    is(&asked.ask(0, get("/"), &[json]), "Hit", "answer 1");
}

#[test]
fn headers_about_the_cache_can_be_hidden_and_asked_for() {
    let hidden = json!({"age": false, "X-Cache-Status": false, "X-Cache-Key": false});
    let mut asked = Asked::new(json!({"response_headers": hidden}));
    let about = |seen: &Seen| {
        ["age", "x-cache-status", "x-cache-key"].map(|name| seen.header(name).is_some())
    };
    assert_eq!(about(&asked.ask(0, get("/"), &[TEXT])), [false; 3]);
    let hit = asked.ask(0, get("/"), &[TEXT]);
    assert_eq!((about(&hit), &*hit.body), ([false; 3], "answer 1"));
    let debug = asked.ask(0, with(&[("kong-debug", "1")]), &[TEXT]);
    assert_eq!((about(&debug), &*debug.body), ([true; 3], "answer 1"));
}

#[test]
fn variants_are_stored_for_themselves() {
    let mut asked = Asked::new(json!({}));
    let headers = [TEXT, ("vary", "Accept-Language")];
    let (de, en) = ([("accept-language", "de")], [("accept-language", "en")]);
    is(&asked.ask(0, with(&de), &headers), "Miss", "answer 1");
    is(&asked.ask(0, with(&en), &headers), "Miss", "answer 2");
    is(&asked.ask(0, with(&de), &headers), "Hit", "answer 1");
    is(&asked.ask(0, with(&en), &headers), "Hit", "answer 2");
    is(&asked.ask(0, get("/"), &headers), "Miss", "answer 3");
}

#[test]
fn headers_of_the_request_at_hand_are_not_stored() {
    let mut asked = Asked::new(json!({}));
    let limit = HeaderName::from_static("x-ratelimit-limit-minute");
    let mut request = get("/");
    request.response_headers.set_number(&limit, 5);
    let headers = [
        TEXT,
        ("x-kong-request-id", "1"),
        ("via", "1.1 kong"),
        ("age", "7"),
    ];
    let first = asked.ask(0, request, &headers);
    assert_eq!(first.header("x-ratelimit-limit-minute"), Some("5"));
    let hit = asked.ask(3, get("/"), &[]);
    for gone in ["x-ratelimit-limit-minute", "x-kong-request-id", "via"] {
        assert_eq!(hit.header(gone), None);
    }
    assert_eq!(hit.header("age"), Some("3"));
}

/// Status of the second of two requests, `at_s` after the first.
#[track_caller]
fn check(response: &[(&str, &str)], at_s: u64, request: &[(&str, &str)], expected: &str) {
    let mut asked = Asked::new(json!({"cache_control": true, "storage_ttl": 100}));
    let headers = [&[TEXT, ("date", NOON)], response].concat();
    asked.ask(0, get("/"), &headers);
    // what the upstream has now, if it is asked
    let new = [TEXT, ("cache-control", "max-age=60")];
    let new = if expected == "Bypass" {
        &headers[..]
    } else {
        &new
    };
    let seen = asked.ask(at_s, with(request), new);
    assert_eq!(seen.header("x-cache-status"), Some(expected));
}

#[test]
fn the_headers_decide_if_they_may() {
    let control = |value| [("cache-control", value)];
    let long = control("max-age=60");
    check(&long, 59, &[], "Hit");
    check(&long, 60, &[], "Refresh");
    check(&control("max-age=60, s-maxage=10"), 10, &[], "Refresh");
    check(
        &[("expires", "Thu, 01 Jan 1970 12:00:10 GMT")],
        9,
        &[],
        "Hit",
    );
    check(
        &[("expires", "Thu, 01 Jan 1970 12:00:10 GMT")],
        10,
        &[],
        "Refresh",
    );
    check(&[("age", "50"), long[0]], 9, &[], "Hit");
    check(&[("age", "50"), long[0]], 10, &[], "Refresh");
    for never in [
        "private, max-age=60",
        "no-store",
        "no-cache, max-age=60",
        "max-age=0",
        "public",
    ] {
        check(&control(never), 0, &[], "Bypass");
    }
    check(&[("age", "60"), long[0]], 0, &[], "Bypass");
    check(&[], 0, &[], "Bypass");
    check(&long, 5, &control("max-age=5"), "Hit");
    check(&long, 6, &control("max-age=5"), "Refresh");
    check(&long, 30, &control("min-fresh=30"), "Hit");
    check(&long, 31, &control("min-fresh=30"), "Refresh");
    check(&long, 70, &control("max-stale"), "Hit");
    check(&long, 70, &control("max-stale=10"), "Hit");
    check(&long, 71, &control("max-stale=10"), "Refresh");
    check(
        &control("max-age=60, must-revalidate"),
        61,
        &control("max-stale"),
        "Refresh",
    );
    check(&long, 0, &control("no-store"), "Bypass");
    check(&long, 0, &control("no-cache"), "Bypass");
    check(&long, 0, &[("authorization", "x")], "Bypass");
    check(&long, 0, &control("only-if-cached"), "Hit");
}

#[test]
fn without_a_stored_response_only_if_cached_is_504() {
    let mut asked = Asked::new(json!({"cache_control": true}));
    let seen = asked.ask(0, with(&[("cache-control", "only-if-cached")]), &[]);
    assert_eq!((seen.status, &*seen.body), (504, ""));
}

#[test]
fn a_client_that_has_it_gets_304() {
    let stored = [
        TEXT,
        ("etag", "W/\"a\""),
        ("last-modified", NOON),
        ("cache-control", "max-age=60"),
    ];
    for (request, status) in [
        (("if-none-match", "\"b\", \"a\""), 304),
        (("if-none-match", "*"), 304),
        (("if-none-match", "\"b\""), 200),
        (("if-modified-since", NOON), 304),
        (("if-modified-since", "Thu, 01 Jan 1970 11:59:59 GMT"), 200),
        (("if-modified-since", "yesterday"), 200),
    ] {
        let mut asked = Asked::new(json!({"cache_control": true}));
        asked.ask(0, get("/"), &stored);
        let seen = asked.ask(7, with(&[request]), &[]);
        assert_eq!(seen.status, status, "{request:?}");
        assert_eq!(seen.body.is_empty(), status == 304);
        assert_eq!(seen.header("content-type").is_none(), status == 304);
        assert_eq!(seen.header("etag"), Some("W/\"a\""));
        assert_eq!(seen.header("age"), Some("7"));
    }
}

#[test]
fn a_change_makes_the_stored_response_untrue() {
    for (method, status, expected) in [
        ("POST", 200, "Miss"),
        ("DELETE", 204, "Miss"),
        ("PUT", 303, "Miss"),
        ("POST", 400, "Hit"),
        ("OPTIONS", 200, "Hit"),
    ] {
        let mut asked = Asked::new(json!({"cache_control": true}));
        let headers = [TEXT, ("cache-control", "max-age=60")];
        asked.ask(0, get("/"), &headers);
        let change = exchange(Builder::new().method(method).uri("/"));
        asked.ask_for(1, change, status, &headers);
        let seen = asked.ask(2, get("/"), &headers);
        assert_eq!(
            seen.header("x-cache-status"),
            Some(expected),
            "{method} {status}"
        );
    }
}

#[test]
fn a_change_makes_what_its_answer_names_untrue() {
    for (name, value, expected) in [
        ("location", "/other", "Miss"),
        ("content-location", "http://a.example/other", "Miss"),
        ("location", "http://b.example/other", "Hit"),
        ("location", "other", "Hit"),
    ] {
        let mut asked = Asked::new(json!({"cache_control": true}));
        let headers = [TEXT, ("cache-control", "max-age=60")];
        asked.ask(0, get("/other"), &headers);
        let change = Builder::new()
            .method("POST")
            .uri("/")
            .header("host", "a.example");
        asked.ask_for(1, exchange(change), 201, &[(name, value)]);
        let seen = asked.ask(2, get("/other"), &headers);
        assert_eq!(
            seen.header("x-cache-status"),
            Some(expected),
            "{name} {value}"
        );
    }
}

#[test]
fn who_must_understand_a_status_knows_it() {
    for (status, expected) in [(200, "Miss"), (499, "Bypass")] {
        let config = json!({"cache_control": true, "response_code": [200, 499]});
        let mut asked = Asked::new(config);
        let headers = [
            TEXT,
            ("cache-control", "must-understand, no-store, max-age=60"),
        ];
        let seen = asked.ask_for(0, get("/"), status, &headers);
        assert_eq!(seen.header("x-cache-status"), Some(expected));
    }
}

#[test]
fn the_date_of_a_stored_response_stays() {
    let mut asked = Asked::new(json!({}));
    asked.ask(0, get("/"), &[TEXT, ("date", NOON), ("server", "upstream")]);
    let mut request = get("/");
    request.now_ms = NOON_MS;
    let reply = asked.trial.access(&mut request, b"").unwrap();
    let reply = reply
        .with(http::header::DATE, HeaderValue::from_static("now"))
        .with(http::header::SERVER, HeaderValue::from_static("gateway"));
    let seen = asked.trial.later(&mut request, reply);
    assert_eq!(
        (seen.header("date"), seen.header("server")),
        (Some(NOON), Some("upstream"))
    );
}

#[test]
fn bad_configurations_are_named() {
    for (config, part) in [
        (json!({}), "strategy: required field missing"),
        (json!({"strategy": "redis"}), "expected one of"),
        (
            json!({"strategy": "memory", "cache_ttl": 0}),
            "greater than 0",
        ),
        (
            json!({"strategy": "memory", "response_code": [99]}),
            "between 100 and 900",
        ),
        (
            json!({"strategy": "memory", "request_method": ["DELETE"]}),
            "expected one of",
        ),
        (
            json!({"strategy": "memory", "vary_headers": ["a b"]}),
            "bad header name",
        ),
        (
            json!({"strategy": "memory", "storage_ttl": -1}),
            "must not be negative",
        ),
    ] {
        let found = problems(&ProxyCache, config);
        assert!(found.contains(part), "{part:?} is not in {found:?}");
    }
}
