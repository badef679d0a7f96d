use sallyport_wire::rate_limit::{Body, Extra, Id, Item, Level, Method, Request};

use super::bucket::Now;
use super::config::{Config, Source};
use super::limits::{Answer, Limits};
use super::types::BucketType;

fn types(text: &str) -> Vec<BucketType> {
    let source = Source {
        path: "buckets.yml".into(),
        text: text.to_owned(),
    };
    Config::parse(&[source], 0).unwrap().types
}

const BUCKETS: &str = "buckets:
  ip:
    size: 10
    per_second: 5
    override:
      127.0.0.1: {size: 1000}
      0.0.0.0: {size: 100, unlimited: true}
  wrong_password: {size: 3}
";

struct Asked<'a> {
    limits: &'a Limits,
    now: Now,
}

impl Asked<'_> {
    fn ask(&self, request: &Request<'_>) -> (Body, Extra) {
        match self.limits.answer(&self.limits.types(), request, self.now) {
            Answer::Now(body, extra) => (body, extra),
            Answer::Later { ms } => panic!("to wait {ms} ms"),
        }
    }

    #[track_caller]
    fn take(&self, bucket: &str, key: &str, count: i32, wanted: (bool, u32, u32)) {
        let asked = Request {
            count: Some(count),
            ..request(Method::Take, bucket, key)
        };
        let Body::Take(taken) = self.ask(&asked).0 else {
            panic!("not taken")
        };
        let Level {
            remaining, limit, ..
        } = taken.level;
        assert_eq!((taken.conformant, remaining, limit), wanted);
    }

    fn status(&self, prefix: &str) -> Vec<Item> {
        match self.ask(&request(Method::Status, "ip", prefix)).0 {
            Body::Status(items) => items,
            other => panic!("{other:?}"),
        }
    }
}

fn request<'a>(method: Method, bucket: &'a str, key: &'a str) -> Request<'a> {
    Request {
        id: Id::Text(b"1"),
        bucket: bucket.as_bytes(),
        key: key.as_bytes(),
        method,
        count: None,
        all: false,
        skip_response: false,
        lease: 0,
        windows: b"",
    }
}

fn at(limits: &Limits, ms: u64) -> Asked<'_> {
    let now = Now { ms, unix_ms: ms };
    Asked { limits, now }
}

#[test]
fn answers_what_limitd_answers() {
    let limits = Limits::new(types(BUCKETS), 100);
    let asked = at(&limits, 1_000);
    asked.take("ip", "1.1.1.1", 1, (true, 9, 10));
    asked.take("ip", "1.1.1.1", 0, (true, 8, 10)); // 0 is 1
    asked.take("ip", "1.1.1.1", -1, (false, 8, 10));
    asked.take("ip", "1.1.1.1", 9, (false, 8, 10));
    asked.take("ip", "127.0.0.1", 2, (true, 998, 1000));
    asked.take("ip", "0.0.0.0", 1_000_000, (true, 100, 100));
    asked.take("wrong_password", "tito", 2, (true, 1, 3));
    asked.take("wrong_password", "", 1, (true, 2, 3));
    let all = |method| Request {
        all: true,
        ..request(method, "wrong_password", "tito")
    };
    asked.take("wrong_password", "tito", 1, (true, 0, 3));
    let put = Body::Put(Level {
        remaining: 1,
        reset: 0,
        limit: 3,
    });
    assert_eq!(
        asked.ask(&request(Method::Put, "wrong_password", "tito")).0,
        put
    );
    let full = Level {
        remaining: 3,
        reset: 0,
        limit: 3,
    };
    assert_eq!(asked.ask(&all(Method::Put)).0, Body::Put(full));
    assert_eq!(asked.ask(&all(Method::Get)).0, Body::Get(full));
    let error = Body::Error(sallyport_wire::rate_limit::ErrorKind::UnknownBucketType);
    assert_eq!(asked.ask(&request(Method::Take, "nope", "k")).0, error);
    let pong = Body::Pong { version: 0 };
    assert_eq!(asked.ask(&request(Method::Ping, "", "")).0, pong);
}

#[test]
fn status_lists_a_hundred_by_key() {
    let limits = Limits::new(types(BUCKETS), 1_000);
    let asked = at(&limits, 0);
    for n in (0..150).rev() {
        asked.take("ip", &format!("10.{n:03}"), 1, (true, 9, 10));
    }
    asked.take("ip", "11.0", 1, (true, 9, 10));
    let keys = |prefix: &str| -> Vec<String> {
        let items = asked.status(prefix).into_iter();
        items
            .map(|item| String::from_utf8(item.key).unwrap())
            .collect()
    };
    let wanted: Vec<_> = (0..100).map(|n| format!("10.{n:03}")).collect();
    assert_eq!(keys("10."), wanted);
    assert_eq!(keys("11"), ["11.0"]);
    assert!(keys("12").is_empty());
    assert_eq!(at(&limits, 5_000).status("11")[0].level.remaining, 10);
}

#[test]
fn forgets_what_is_full_again_and_never_more_than_it_may_keep() {
    let limits = Limits::new(types(BUCKETS), 2);
    let asked = at(&limits, 0);
    asked.take("ip", "a", 10, (true, 0, 10));
    asked.take("wrong_password", "b", 3, (true, 0, 3));
    // no room: granted, not counted
    asked.take("ip", "c", 10, (true, 0, 10));
    asked.take("ip", "c", 10, (true, 0, 10));
    asked.take("ip", "a", 1, (false, 0, 10));
    assert_eq!(limits.len(), 2);
    let now = |ms| Now { ms, unix_ms: ms };
    let sweep = |ms| {
        for part in 0..limits.parts() {
            limits.sweep_at(part, now(ms));
        }
    };
    sweep(121_000);
    assert_eq!(limits.len(), 2, "full for less than two minutes");
    sweep(122_000);
    assert_eq!(limits.len(), 1, "nothing fills the other one");
    limits.swap(types("buckets: {ip: {size: 10}}"));
    sweep(122_000);
    assert!(limits.is_empty(), "its type is gone");
}

#[test]
fn new_types_hold_at_once_and_buckets_stay() {
    let limits = Limits::new(types(BUCKETS), 100);
    at(&limits, 0).take("ip", "a", 4, (true, 6, 10));
    limits.swap(types(
        "buckets: {ip: {size: 4, override: {b: {size: 1}}}, new: {size: 1}}",
    ));
    at(&limits, 0).take("ip", "a", 1, (true, 3, 4));
    at(&limits, 0).take("ip", "b", 1, (true, 0, 1));
    at(&limits, 0).take("new", "a", 1, (true, 0, 1));
}

#[test]
fn leases_are_debited() {
    let limits = Limits::new(types(BUCKETS), 100);
    let asked = at(&limits, 0);
    let lease = Request {
        lease: 8,
        ..request(Method::Take, "wrong_password", "a")
    };
    assert_eq!(asked.ask(&lease).1, Extra::default(), "too few to lend any");
    let lease = Request {
        bucket: b"ip",
        ..lease
    };
    let lent = Extra {
        leased: 2,
        refused_ms: 0,
    };
    assert_eq!(asked.ask(&lease).1, lent, "a quarter of nine");
    asked.take("ip", "a", 7, (true, 0, 10));
    let refused = Extra {
        leased: 0,
        refused_ms: 200,
    };
    assert_eq!(asked.ask(&lease).1, refused);
}
