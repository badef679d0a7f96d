//! Requests with signatures, good and bad.

use super::*;
use crate::testing::{Bench, Seen, exchange, header, validate};

/// 2026-01-02T03:04:05Z.
const NOW_MS: u64 = 1_767_323_045_000;
const DATE_NOW: &str = "Fri, 02 Jan 2026 03:04:05 GMT";

/// A request signed by `alice`, whose secret is `alice-secret`.
struct Signed<'a> {
    headers: &'a str,
    algorithm: &'a str,
    date: &'a str,
    body: &'a [u8],
    digest: Option<&'a str>,
}

impl Default for Signed<'_> {
    fn default() -> Self {
        Signed {
            headers: "date @request-target",
            algorithm: "hmac-sha256",
            date: DATE_NOW,
            body: b"",
            digest: None,
        }
    }
}

impl Signed<'_> {
    fn make(&self) -> Exchange {
        let request = http::Request::post("/orders?a=1").header("date", self.date);
        let request = match self.digest {
            Some(digest) => request.header("digest", digest),
            None => request,
        };
        let mut exchange = exchange(request.header("host", "a.example").header("x-two", "1"));
        exchange.now_ms = NOW_MS;
        let algorithm = match self.algorithm {
            "hmac-sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            "hmac-sha384" => hmac::HMAC_SHA384,
            "hmac-sha512" => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        };
        let message = signing_string(self.headers, &exchange.request);
        let tag = hmac::sign(&hmac::Key::new(algorithm, b"alice-secret"), &message);
        let value = format!(
            "hmac username=\"alice\", algorithm=\"{}\", headers=\"{}\", signature=\"{}\"",
            self.algorithm,
            self.headers,
            BASE64_STANDARD.encode(tag)
        );
        set(&mut exchange, AUTHORIZATION, &value);
        exchange
    }
}

fn set(exchange: &mut Exchange, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).unwrap();
    exchange.request.headers.set(&name, &value);
}

fn refused(message: &str) -> Seen {
    Seen::refused(401, message).with("www-authenticate", "hmac")
}

#[track_caller]
fn check(config: Value, mut exchange: Exchange, expected: Seen) {
    assert_eq!(Bench::new(&HmacAuth, config).seen(&mut exchange), expected);
}

#[test]
fn the_signing_string_is_the_documented_one() {
    let exchange = Signed::default().make();
    let text = |names| String::from_utf8(signing_string(names, &exchange.request)).unwrap();
    assert_eq!(
        text("date @request-target Host missing request-line X-Two"),
        format!(
            "date: {DATE_NOW}\n@request-target: post /orders?a=1\nHost: a.example\nmissing:\n\
             POST /orders?a=1 HTTP/1.1\nX-Two: 1"
        )
    );
}

/// `printf 'date: …\n@request-target: post /orders?a=1' | openssl dgst -sha256 -hmac alice-secret`
#[test]
fn a_signature_made_elsewhere_is_accepted() {
    let mut exchange = Signed::default().make();
    let value = "hmac username=\"alice\", algorithm=\"hmac-sha256\", \
                 headers=\"date @request-target\", \
                 signature=\"WMa2n3GyMGsVkWXSVZOjVqxUid6OYZKAr2lvMn32F+c=\"";
    set(&mut exchange, AUTHORIZATION, value);
    check(json!({}), exchange, Seen::Continued);
}

#[test]
fn every_algorithm_and_every_part_can_be_signed() {
    for algorithm in ALGORITHMS {
        let signed = Signed {
            algorithm,
            headers: "x-date date host request-line",
            ..Signed::default()
        };
        check(json!({}), signed.make(), Seen::Continued);
    }
    let mut elsewhere = Signed::default().make();
    let value = header(&elsewhere, "authorization").unwrap().to_owned();
    set(&mut elsewhere, AUTHORIZATION, "Bearer x");
    set(&mut elsewhere, PROXY_AUTHORIZATION, &value);
    check(json!({}), elsewhere, Seen::Continued);
}

#[test]
fn a_request_outside_of_its_time_is_refused() {
    let at = |date| {
        Signed {
            date,
            ..Signed::default()
        }
        .make()
    };
    let (late, early) = (
        "Fri, 02 Jan 2026 03:09:05 GMT",
        "Fri, 02 Jan 2026 02:59:05 GMT",
    );
    check(json!({}), at(late), Seen::Continued);
    check(json!({}), at(early), Seen::Continued);
    let later = "Fri, 02 Jan 2026 03:09:06 GMT";
    for bad in [
        later,
        "Fri, 02 Jan 2026 02:59:04 GMT",
        "now",
        "",
        "1767323045",
    ] {
        check(json!({}), at(bad), refused(NO_DATE));
    }
    check(json!({"clock_skew": 301}), at(later), Seen::Continued);
    // one good date is enough
    let mut both = at(later);
    set(&mut both, X_DATE, DATE_NOW);
    check(json!({}), both, Seen::Continued);
    let mut none = at(later);
    none.request.headers.remove(&DATE);
    check(json!({}), none, refused(NO_DATE));
}

/// Nothing is stored, so the very same request passes again while its date is good, as with Kong.
#[test]
fn a_replayed_request_passes_only_as_it_was_and_in_its_time() {
    let replayed = || Signed::default().make();
    check(json!({}), replayed(), Seen::Continued);
    let mut later = replayed();
    later.now_ms += 301_000;
    check(json!({}), later, refused(NO_DATE));
    let mut elsewhere = replayed();
    elsewhere.request.uri = http::Uri::from_static("/payments?a=1");
    check(json!({}), elsewhere, refused(NOT_SAME));
    let mut otherwise = replayed();
    otherwise.request.method = http::Method::DELETE;
    check(json!({}), otherwise, refused(NOT_SAME));
}

#[test]
fn what_does_not_match_is_refused() {
    check(
        json!({}),
        exchange(http::Request::get("/")),
        refused("Unauthorized"),
    );
    let edited = |edit: fn(&mut Exchange)| {
        let mut exchange = Signed::default().make();
        edit(&mut exchange);
        exchange
    };
    let replaced = |from: &str, to: &str| {
        let mut exchange = Signed::default().make();
        let value = header(&exchange, "authorization")
            .unwrap()
            .replace(from, to);
        set(&mut exchange, AUTHORIZATION, &value);
        exchange
    };
    check(
        json!({}),
        edited(|e| e.request.uri = "/orders?a=2".parse().unwrap()),
        refused(NOT_SAME),
    );
    check(
        json!({}),
        edited(|e| e.request.method = http::Method::PUT),
        refused(NOT_SAME),
    );
    check(
        json!({}),
        replaced("signature=\"", "signature=\"A"),
        refused(NOT_SAME),
    );
    check(
        json!({}),
        replaced("hmac-sha256", "hmac-sha512"),
        refused(NOT_SAME),
    );
    check(json!({}), replaced("alice", "bob"), refused(NOT_SAME));
    check(json!({}), replaced("alice", "nobody"), refused(NOT_VALID));
    check(
        json!({}),
        replaced("hmac-sha256", "hmac-md5"),
        refused(NOT_VALID),
    );
    check(
        json!({}),
        replaced("hmac username", "hmac name"),
        refused(NOT_VALID),
    );
    let only = json!({"algorithms": ["hmac-sha512"]});
    check(only, Signed::default().make(), refused(NOT_VALID));
    let enforced = json!({"enforce_headers": ["date", "host"]});
    check(
        enforced.clone(),
        Signed::default().make(),
        refused(NOT_VALID),
    );
    let headers = "host date";
    check(
        enforced,
        Signed {
            headers,
            ..Signed::default()
        }
        .make(),
        Seen::Continued,
    );
    let realm = Seen::refused(401, "Unauthorized").with("www-authenticate", "hmac realm=\"r\"");
    check(
        json!({"realm": "r"}),
        exchange(http::Request::get("/")),
        realm,
    );
}

#[test]
fn a_body_must_be_the_one_that_was_digested() {
    let body = json!({"validate_request_body": true});
    // printf '{"a":1}' | openssl dgst -sha256 -binary | base64
    let digest = Some("SHA-256=AVq9f1zFei3ZS3WQ8ErYCEJzkF7jPsXOvq5iJ2qX+GI=");
    let run = |signed: Signed<'_>, expected: Seen| {
        let bench = Bench::new(&HmacAuth, body.clone()).with_body(signed.body);
        assert_eq!(bench.seen(&mut signed.make()), expected);
    };
    let good = || Signed {
        body: b"{\"a\":1}",
        digest,
        ..Signed::default()
    };
    run(good(), Seen::Continued);
    run(Signed::default(), Seen::Continued);
    run(
        Signed {
            body: b"{\"a\":2}",
            ..good()
        },
        refused(NOT_SAME),
    );
    run(
        Signed {
            digest: None,
            ..good()
        },
        refused(NOT_SAME),
    );
    run(
        Signed {
            digest: Some("SHA-256=x"),
            ..good()
        },
        refused(NOT_SAME),
    );
    let large = vec![b'x'; BODY_BYTES_MAX as usize + 1];
    let message = "Request body is larger than can be validated";
    run(
        Signed {
            body: &large,
            ..good()
        },
        Seen::refused(413, message),
    );
}

#[test]
fn the_upstream_learns_the_user_and_not_the_signature_when_it_is_hidden() {
    let bench = Bench::new(&HmacAuth, json!({"hide_credentials": true}));
    let mut exchange = Signed::default().make();
    assert_eq!(bench.seen(&mut exchange), Seen::Continued);
    assert_eq!(header(&exchange, "authorization"), None);
    assert_eq!(header(&exchange, "x-credential-identifier"), Some("alice"));
    let bench = Bench::new(&HmacAuth, json!({"anonymous": "guest"}));
    let mut stranger = crate::testing::exchange(http::Request::get("/"));
    assert_eq!(bench.seen(&mut stranger), Seen::Continued);
    assert_eq!(header(&stranger, "x-anonymous-consumer"), Some("true"));
}

#[test]
fn bad_settings_are_named() {
    let errors = validate(&HmacAuth, json!({"clock_skew": 0, "algorithms": ["md5"]})).unwrap_err();
    assert_eq!(
        errors,
        "clock_skew: value must be greater than 0; algorithms[0]: expected one of: hmac-sha1, \
         hmac-sha256, hmac-sha384, hmac-sha512"
    );
}
