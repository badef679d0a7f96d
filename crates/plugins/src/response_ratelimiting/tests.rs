use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::redis::{Redis, RedisAnswer, RedisCommand, RedisError, RedisValue};
use crate::testing::header;
use crate::trial::{Seen, Trial, get, problems};

const LIMIT: &str = "x-kong-limit";

#[track_caller]
fn ask(trial: &Trial, now_ms: u64, cost: &str) -> (Option<String>, Seen) {
    let mut exchange = get("/");
    exchange.now_ms = now_ms;
    if let Some(reply) = trial.access(&mut exchange, b"") {
        return (
            None,
            trial.response(&mut get("/"), reply.status.as_u16(), &[], ""),
        );
    }
    let left = header(&exchange, "x-ratelimit-remaining-video").map(str::to_owned);
    let seen = trial.response(&mut exchange, 200, &[(LIMIT, cost)], "body");
    (left, seen)
}

#[test]
fn what_responses_cost_is_counted() {
    let limits = json!({"limits": {"video": {"minute": 6, "hour": 10}, "sms": {"minute": 1}}});
    let trial = Trial::new(&ResponseRatelimiting, limits);
    let (left, seen) = ask(&trial, 0, "video=2, sms=1 , other=9, bad=x, video");
    assert_eq!(left.as_deref(), Some("6"));
    assert_eq!(
        (seen.status, &*seen.body, seen.header(LIMIT)),
        (200, "body", None)
    );
    assert_eq!(seen.header("x-ratelimit-limit-video-minute"), Some("6"));
    assert_eq!(seen.header("x-ratelimit-remaining-video-minute"), Some("4"));
    assert_eq!(seen.header("x-ratelimit-remaining-video-hour"), Some("8"));
    assert_eq!(seen.header("x-ratelimit-remaining-sms-minute"), Some("0"));
    // more than is left is let through once, and nothing is left then
    let (left, seen) = ask(&trial, 1, "video=7");
    assert_eq!((left.as_deref(), seen.status), (Some("4"), 200));
    assert_eq!(seen.header("x-ratelimit-remaining-video-minute"), Some("0"));
    let (left, seen) = ask(&trial, 2, "video=1");
    assert_eq!(
        (left.as_deref(), seen.status, &*seen.body),
        (Some("0"), 429, "")
    );
    // who costs nothing passes, and a refusal is not counted
    assert_eq!(ask(&trial, 3, "video=0").1.status, 200);
    let (left, seen) = ask(&trial, 60_000, "");
    assert_eq!((left.as_deref(), seen.status), (Some("1"), 200));
}

#[test]
fn the_first_violation_can_block() {
    let config = json!({"limits": {"video": {"minute": 1}, "sms": {"minute": 5}},
                        "block_on_first_violation": true, "hide_client_headers": true});
    let trial = Trial::new(&ResponseRatelimiting, config);
    let (_, seen) = ask(&trial, 0, "video=1");
    assert_eq!((seen.status, seen.headers.len()), (200, 0));
    let mut exchange = get("/");
    let seen = trial.ask(&mut exchange, b"");
    assert_eq!(
        (seen.status, &*seen.body),
        (429, "API rate limit exceeded for 'video'")
    );
}

/// Answers every question with the same counts, and remembers what it was told.
struct Fixed {
    answer: Result<RedisValue, RedisError>,
    told: Arc<Mutex<Vec<RedisCommand>>>,
}

impl Redis for Fixed {
    fn ask(&self, _: &Arc<RedisServer>, _: RedisCommand) -> RedisAnswer {
        Box::pin(std::future::ready(self.answer.clone()))
    }

    fn tell(&self, _: &Arc<RedisServer>, command: RedisCommand) {
        self.told.lock().unwrap().push(command);
    }

    fn later(&self, _: Duration, _: Pin<Box<dyn Future<Output = ()>>>) {
        unreachable!("this plugin puts nothing off")
    }
}

#[track_caller]
fn check_redis(
    answer: Result<RedisValue, RedisError>,
    fault_tolerant: bool,
    expected: (u16, usize),
) {
    let config = json!({"limits": {"video": {"minute": 6}}, "policy": "redis",
                        "fault_tolerant": fault_tolerant, "redis": {"host": "r.example"}});
    let told = Arc::default();
    let redis = Fixed {
        answer,
        told: Arc::clone(&told),
    };
    let node = Arc::new(Node {
        redis: Box::new(redis),
        ..Node::default()
    });
    let trial = Trial::at(&ResponseRatelimiting, config, node);
    let (_, seen) = ask(&trial, 0, "video=2");
    assert_eq!((seen.status, told.lock().unwrap().len()), expected);
}

#[test]
fn redis_is_asked_before_and_told_afterwards() {
    let counts = |used: &str| Ok(RedisValue::List(vec![RedisValue::Bytes(used.into())]));
    check_redis(counts("0"), true, (200, 1));
    check_redis(counts("6"), true, (429, 0));
    check_redis(Ok(RedisValue::Nil), true, (200, 0));
    check_redis(Err(RedisError::Timeout), true, (200, 0));
    check_redis(Err(RedisError::Timeout), false, (500, 0));
}

#[test]
fn bad_configurations_are_named() {
    for (config, part) in [
        (json!({}), "limits"),
        (json!({"limits": {}}), "length must be at least 1"),
        (json!({"limits": {"a": {}}}), "at least one of these fields"),
        (
            json!({"limits": {"a b": {"minute": 1}}}),
            "cannot be a part of a header",
        ),
        (
            json!({"limits": {"a": {"minute": 5, "hour": 1}}}),
            "cannot be lower",
        ),
        (
            json!({"limits": {"a": {"minute": 1}}, "policy": "cluster"}),
            "needs a gateway with",
        ),
        (
            json!({"limits": {"a": {"minute": 1}}, "policy": "redis"}),
            "redis.host",
        ),
    ] {
        let found = problems(&ResponseRatelimiting, config);
        assert!(found.contains(part), "{part:?} is not in {found:?}");
    }
}
