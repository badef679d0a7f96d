//! Sessions from the first cookie to the last.

use serde_json::json;

use super::*;
use crate::testing::{Bench, Seen, exchange, header, validate};

const BEGUN_S: u64 = 1_000_000;

struct Browser {
    bench: Bench,
    cookie: Option<String>,
    remember: Option<String>,
}

/// What one request led to.
struct Visit {
    exchange: Exchange,
    seen: Seen,
    response: Fields,
}

impl Visit {
    fn cookies(&self) -> Vec<String> {
        let values = self.response.get_all(&SET_COOKIE);
        values
            .map(|it| String::from_utf8(it.to_vec()).unwrap())
            .collect()
    }

    fn told(&self, name: &str) -> Option<&str> {
        self.response.get_str(&name.parse().unwrap())
    }
}

impl Browser {
    fn new(mut config: Value) -> Browser {
        config["secret"] = json!("the-secret-of-the-tests");
        Browser {
            bench: Bench::new(&Session, config),
            cookie: None,
            remember: None,
        }
    }

    /// One request this many seconds after the first; an authentication plugin recognises
    /// `known`, if it is somebody.
    fn visit(
        &mut self,
        after_s: u64,
        known: Option<&str>,
        request: http::request::Builder,
    ) -> Visit {
        let request = match &self.cookie {
            Some(cookie) => request.header("cookie", format!("a=1; {cookie}; b=2")),
            None => request,
        };
        let request = match &self.remember {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        let mut exchange = exchange(request);
        exchange.now_ms = (BEGUN_S + after_s) * 1000;
        let seen = self.bench.seen(&mut exchange);
        if let Some(known) = known {
            self.bench.known_as(&mut exchange, known);
        }
        let mut response = Fields::new();
        self.bench.filter(&mut exchange, 200, &mut response);
        let visit = Visit {
            exchange,
            seen,
            response,
        };
        if let Some(cookie) = visit.cookies().first() {
            self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
        }
        if let Some(cookie) = visit.cookies().get(1) {
            self.remember = Some(cookie.split(';').next().unwrap().to_owned());
        }
        visit
    }

    fn get(&mut self, after_s: u64) -> Visit {
        self.visit(after_s, None, http::Request::get("/"))
    }
}

#[test]
fn a_recognised_caller_gets_a_cookie_and_is_known_by_it() {
    let mut browser = Browser::new(json!({}));
    let first = browser.get(0);
    assert!(first.cookies().is_empty(), "nobody was recognised");
    let login = browser.visit(0, Some("alice"), http::Request::get("/"));
    let [cookie] = &login.cookies()[..] else {
        panic!("one cookie")
    };
    assert!(cookie.starts_with("session="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; SameSite=Strict; Secure; HttpOnly"),
        "{cookie}"
    );
    let again = browser.get(10);
    assert_eq!(again.seen, Seen::Continued);
    assert_eq!(
        header(&again.exchange, "x-consumer-username"),
        Some("alice")
    );
    assert!(header(&again.exchange, "x-credential-identifier").is_some());
    assert!(
        again.exchange.credential.is_some(),
        "plugins with anonymous let it pass"
    );
    assert!(again.cookies().is_empty(), "the cookie is good for a while");
    // the same caller proves itself again: the same session
    assert!(
        browser
            .visit(11, Some("alice"), http::Request::get("/"))
            .cookies()
            .is_empty()
    );
    // somebody else does: another session
    assert_eq!(
        browser
            .visit(12, Some("bob"), http::Request::get("/"))
            .cookies()
            .len(),
        1
    );
    let other = browser.get(13);
    assert_eq!(header(&other.exchange, "x-consumer-username"), Some("bob"));
}

#[test]
fn settings_of_the_cookie() {
    let config = json!({
        "cookie_name": "s", "cookie_path": "/a", "cookie_domain": "a.example",
        "cookie_same_site": "Default", "cookie_http_only": false, "cookie_secure": false,
    });
    let login = Browser::new(config).visit(0, Some("alice"), http::Request::get("/"));
    let [cookie] = &login.cookies()[..] else {
        panic!("one cookie")
    };
    assert!(cookie.starts_with("s="), "{cookie}");
    assert!(cookie.ends_with("; Path=/a; Domain=a.example"), "{cookie}");
}

#[track_caller]
fn is_known(visit: &Visit, known: bool) {
    assert_eq!(visit.exchange.consumer.is_some(), known);
}

#[test]
fn sessions_end_and_are_renewed() {
    let login = |config| {
        let mut browser = Browser::new(config);
        browser.visit(0, Some("alice"), http::Request::get("/"));
        browser
    };
    // unused
    let mut browser = login(json!({"idling_timeout": 100}));
    is_known(&browser.get(99), true);
    is_known(&browser.get(198), true);
    is_known(&browser.get(298), false);
    // used within a minute is not marked
    let mut browser = login(json!({"idling_timeout": 100}));
    assert!(browser.get(60).cookies().is_empty());
    is_known(&browser.get(100), false);
    // renewed after three quarters of the rolling timeout
    let config = json!({"idling_timeout": 0, "rolling_timeout": 100});
    let mut browser = login(config.clone());
    assert!(browser.get(75).cookies().is_empty());
    assert_eq!(browser.get(76).cookies().len(), 1);
    is_known(&browser.get(175), true);
    let mut browser = login(config);
    is_known(&browser.get(100), false);
    // in any case
    let mut browser = login(json!({"absolute_timeout": 100}));
    is_known(&browser.get(70), true);
    is_known(&browser.get(100), false);
    let mut browser =
        login(json!({"idling_timeout": 0, "rolling_timeout": 0, "absolute_timeout": 0}));
    is_known(&browser.get(1_000_000), true);
}

#[test]
fn a_forged_or_foreign_cookie_is_none() {
    let mut browser = Browser::new(json!({}));
    browser.visit(0, Some("alice"), http::Request::get("/"));
    let good = browser.cookie.clone().unwrap();
    for bad in [
        "session=".to_owned(),
        "session=x".to_owned(),
        format!("{good}x"),
        good.replace("session=", "other="),
        good[..good.len() - 2].to_owned(),
    ] {
        browser.cookie = Some(bad);
        is_known(&browser.get(1), false);
    }
    let mut foreign = Browser::new(json!({"audience": "other"}));
    foreign.cookie = Some(good.clone());
    is_known(&foreign.get(1), false);
    // a bad one before a good one of the same name, as for two paths
    browser.cookie = Some(format!("session=x; {good}"));
    is_known(&browser.get(1), true);
}

#[test]
fn a_replayed_cookie_is_good_until_its_timeouts_and_no_longer() {
    let mut browser = Browser::new(json!({"rolling_timeout": 100, "absolute_timeout": 150}));
    browser.visit(0, Some("alice"), http::Request::get("/"));
    let copied = browser.cookie.clone();
    let mut thief = Browser::new(json!({"rolling_timeout": 100, "absolute_timeout": 150}));
    let mut replayed = |after_s| {
        thief.cookie = copied.clone();
        thief.get(after_s).exchange.consumer.is_some()
    };
    // the browser's own session was renewed, the copy was not
    is_known(&browser.get(90), true);
    is_known(&browser.get(120), true);
    assert!(replayed(99));
    assert!(!replayed(100));
    is_known(&browser.get(150), false);
}

#[test]
fn a_request_ends_the_session() {
    let config = || json!({"read_body_for_logout": true, "logout_methods": ["GET", "POST"]});
    let form = "application/x-www-form-urlencoded";
    let run = |config: Value, request: http::request::Builder, body: &[u8]| {
        let mut browser = Browser::new(config);
        browser.visit(0, Some("alice"), http::Request::get("/"));
        browser.bench = browser.bench.with_body(body);
        let visit = browser.visit(1, None, request);
        let is_over = visit.seen == Seen::answered(200, "");
        if is_over {
            let [cookie] = &visit.cookies()[..] else {
                panic!("one cookie")
            };
            assert!(
                cookie.starts_with("session=; Expires=Thu, 01 Jan 1970"),
                "{cookie}"
            );
            assert!(cookie.contains("; Max-Age=0; Path=/"), "{cookie}");
            is_known(&browser.get(2), false);
        }
        is_over
    };
    let get = http::Request::get;
    let post = |kind| http::Request::post("/").header("content-type", kind);
    assert!(run(config(), get("/?a=1&session_logout"), b""));
    assert!(run(config(), get("/?session_logout=true"), b""));
    assert!(!run(config(), get("/?logout"), b""));
    assert!(
        !run(json!({}), get("/?session_logout"), b""),
        "GET is none of the methods"
    );
    assert!(run(config(), post(form), b"a=1&session_logout=1"));
    assert!(run(
        config(),
        post("application/json; charset=utf-8"),
        b"{\"session_logout\":true}"
    ));
    assert!(!run(
        config(),
        post("application/json"),
        b"{\"session_logout\":null}"
    ));
    assert!(!run(config(), post("application/json"), b"{"));
    assert!(!run(config(), post("text/plain"), b"session_logout=1"));
    assert!(
        !run(json!({}), post(form), b"session_logout=1"),
        "bodies are not read"
    );
    let large = [b"session_logout=", &vec![b'x'; 70_000][..]].concat();
    assert!(!run(config(), post(form), &large));
    // without a session there is nothing to end
    let mut stranger = Browser::new(config());
    let visit = stranger.visit(0, None, get("/?session_logout"));
    assert_eq!(visit.seen, Seen::Continued);
}

#[test]
fn a_session_of_nobody_is_taken_away() {
    let mut browser = Browser::new(json!({}));
    browser.visit(0, Some("alice"), http::Request::get("/"));
    browser.bench = browser.bench.without_consumers();
    let visit = browser.get(1);
    is_known(&visit, false);
    assert!(
        visit.cookies()[0].contains("Max-Age=0"),
        "{:?}",
        visit.cookies()
    );
}

#[test]
fn clients_and_upstreams_are_told_what_they_asked_for() {
    let all = json!([
        "id",
        "audience",
        "subject",
        "timeout",
        "idling-timeout",
        "rolling-timeout",
        "absolute-timeout"
    ]);
    let mut browser = Browser::new(json!({"request_headers": all, "response_headers": all}));
    let login = browser.visit(0, Some("alice"), http::Request::get("/"));
    assert_eq!(login.told("session-subject"), Some("alice"));
    let visit = browser.get(50);
    assert_eq!(visit.told("session-id"), login.told("session-id"));
    for (name, value) in [
        ("session-audience", "default"),
        ("session-subject", "alice"),
        ("session-timeout", "850"),
        ("session-idling-timeout", "850"),
        ("session-rolling-timeout", "3550"),
        ("session-absolute-timeout", "86350"),
    ] {
        assert_eq!(visit.told(name), Some(value), "{name}");
        assert_eq!(header(&visit.exchange, name), Some(value), "{name}");
    }
}

#[test]
fn bad_settings_are_named() {
    let errors = validate(
        &Session,
        json!({
            "secret": "", "storage": "kong", "cookie_name": "a b",
            "cookie_path": "/;x", "store_metadata": true,
        }),
    );
    assert_eq!(
        errors.unwrap_err(),
        "secret: length must be at least 1; \
         storage: sessions in a database are not supported by this build; use 'cookie'; \
         cookie_name: expected letters, digits and !#$%&'*+-.^_`|~; \
         cookie_path: expected printable ASCII without semicolons; \
         store_metadata: metadata of sessions are not stored by this build"
    );
    // without a secret the process has one of its own, the same for all configurations
    let config = validate(&Session, json!({"cookie_lifetime": 5})).unwrap();
    assert_eq!(
        (&config["secret"], &config["rolling_timeout"]),
        (&json!(null), &json!(5))
    );
    let first = Bench::new(&Session, json!({}));
    let mut browser = Browser {
        bench: first,
        cookie: None,
        remember: None,
    };
    browser.visit(0, Some("alice"), http::Request::get("/"));
    browser.bench = Bench::new(&Session, json!({}));
    is_known(&browser.get(1), true);
}

#[test]
fn one_cookie_cannot_be_both() {
    let config = json!({"secret": "s", "remember": true, "remember_cookie_name": "session"});
    assert_eq!(
        validate(&Session, config).unwrap_err(),
        "remember_cookie_name: must not be that of 'cookie_name'"
    );
}

#[test]
fn a_remembered_caller_begins_a_session_anew() {
    let config = json!({"remember": true, "remember_rolling_timeout": 10_000,
        "remember_absolute_timeout": 25_000});
    let mut browser = Browser::new(config);
    let login = browser.visit(0, Some("alice"), http::Request::get("/"));
    let cookies = login.cookies();
    assert!(cookies[0].starts_with("session=") && !cookies[0].contains("Max-Age"));
    assert!(cookies[1].starts_with("remember=") && cookies[1].contains("; Max-Age=10000;"));
    // the browser was closed
    browser.cookie = None;
    let again = browser.get(9_000);
    assert_eq!(
        header(&again.exchange, "x-consumer-username"),
        Some("alice")
    );
    assert_eq!(again.cookies().len(), 2, "both are new");
    assert!(browser.get(9_001).cookies().is_empty());
    // whatever is renewed, it ends
    browser.cookie = None;
    let last = browser.get(18_000);
    assert!(
        last.cookies()[1].contains("; Max-Age=7000;"),
        "{:?}",
        last.cookies()
    );
    browser.cookie = None;
    is_known(&browser.get(25_000), false);
    // the end of the session is the end of both
    let mut browser = Browser::new(json!({"remember": true}));
    browser.visit(0, Some("alice"), http::Request::get("/"));
    let end = http::Request::post("/?session_logout=1");
    let cookies = browser.visit(1, None, end).cookies();
    assert!(cookies.len() == 2 && cookies.iter().all(|it| it.contains("Max-Age=0")));
    // without `remember` the cookie says nothing
    let mut plain = Browser::new(json!({}));
    plain.remember = login.cookies().get(1).cloned();
    is_known(&plain.get(2), false);
}
