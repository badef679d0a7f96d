//! limitd's own clients of both generations, as they come from npm.

use sallyport_testkit::{Deadline, Program, eventually, foreign};
use serde_json::{Value, json};

use super::lab::{BUCKETS, Limiter};
use crate::lab::{has_all, soon};

/// Where the program comes from that makes calls with them.
const PACKAGE: &str = "npm packages limitd-client 1.8.1 and 2.14.1, see .ci/run";

/// Makes calls one after the other; `None` where the clients are not installed.
#[track_caller]
pub(super) fn calls(generation: u8, hosts: &str, calls: &Value) -> Option<Vec<Value>> {
    let program = foreign("limitd-calls", PACKAGE)?;
    let args = [&generation.to_string(), hosts, &calls.to_string()];
    let run = Program::new(program).args(args).run(Deadline::secs(60));
    let lines = run.success().stdout;
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    Some(lines.collect())
}

/// A result with its time replaced: 0 stays, a time near now becomes `soon`.
fn timeless(mut answer: Value) -> Value {
    fn walk(value: &mut Value, now: u64) {
        match value {
            Value::Array(all) => all.iter_mut().for_each(|one| walk(one, now)),
            Value::Object(map) => {
                for (name, value) in map {
                    match value.as_u64() {
                        Some(at) if name == "reset" && at > 0 => {
                            assert!((now - 5..now + 120).contains(&at), "reset {at} at {now}");
                            *value = json!("soon");
                        }
                        _ => walk(value, now),
                    }
                }
            }
            _ => {}
        }
    }
    let now = jiff::Timestamp::now().as_second();
    walk(&mut answer, u64::try_from(now).unwrap());
    answer
}

#[test]
fn both_generations_make_all_their_calls() {
    for generation in [1, 2] {
        let limiter = Limiter::start(BUCKETS);
        let key = format!("191.12.23.{generation}");
        let name = format!("tito{generation}");
        let asked = json!([
            ["ping"],
            ["take", "ip", key],
            ["take", "ip", key, 11],
            ["take", "ip", "0.0.0.0", 5],
            ["take", "wrong_password", name, 2],
            ["put", "wrong_password", name, 1],
            ["put", "wrong_password", name],
            ["take", "ip", key, 9],
            ["wait", "ip", key, 3],
            ["status", "ip", key],
            ["take", "nope", key],
            ["take", "wrong_password", "", 3],
            ["take", "wrong_password", "", 1],
        ]);
        let Some(answers) = calls(generation, &limiter.url(), &asked) else {
            return;
        };
        let taken = |conformant: bool, delayed: bool, remaining: u32, reset: Value, limit: u32| {
            json!({"conformant": conformant, "delayed": delayed, "remaining": remaining,
                   "reset": reset, "limit": limit})
        };
        let level = |remaining: u32| json!({"remaining": remaining, "reset": 0, "limit": 3});
        let unknown = if generation == 1 {
            "nope is not a valid bucket type"
        } else {
            "Invalid bucket type"
        };
        let soon = || json!("soon");
        let wanted = [
            (1, taken(true, false, 9, soon(), 10)),
            (3, taken(true, false, 100, soon(), 100)),
            (4, taken(true, false, 1, json!(0), 3)),
            (5, level(2)),
            (6, level(3)),
            (11, taken(true, false, 0, json!(0), 3)),
            (12, taken(false, false, 0, json!(0), 3)),
        ];
        assert_eq!(answers.len(), 13, "{answers:#?}");
        for (at, wanted) in wanted {
            let found = timeless(answers[at]["result"].clone());
            let found = match generation {
                // it knows no field that was left out
                1 => with_default(found, &wanted),
                _ => found,
            };
            assert_eq!(found, wanted, "call {at} of generation {generation}");
        }
        assert_eq!(answers[2]["result"]["conformant"], false);
        assert_eq!(answers[8]["result"]["conformant"], true);
        assert_eq!(answers[8]["result"]["delayed"], true);
        assert_eq!(answers[9]["result"]["items"][0]["instance"], json!(key));
        assert_eq!(answers[10], json!({ "error": unknown }));
    }
}

fn with_default(mut found: Value, wanted: &Value) -> Value {
    if wanted.get("delayed").is_some() && found["delayed"].is_null() {
        found["delayed"] = json!(false);
    }
    found
}

#[test]
fn the_younger_one_looks_and_forgets() {
    let limiter = Limiter::start(BUCKETS);
    let asked = json!([
        ["get", "wrong_password", "k"],
        ["take", "wrong_password", "k", 2],
        ["get", "wrong_password", "k"],
        ["get", "once per hour", "k"],
    ]);
    let Some(answers) = calls(2, &limiter.url(), &asked) else {
        return;
    };
    let level = |n: usize| answers[n]["result"]["remaining"].clone();
    assert_eq!(
        [level(0), level(2), level(3)],
        [json!(3), json!(1), json!(1)]
    );
}

#[test]
fn a_changed_file_holds_and_a_bad_one_does_not() {
    let mut limiter = Limiter::start(BUCKETS);
    let file = limiter.program.dir().join("buckets.yml");
    let mut client = limiter.client();
    assert_eq!(client.take("wrong_password", "k"), (true, 2));
    let before = limiter.program.lines();
    crate::lab::write(&file, BUCKETS.replace("size: 3", "sise: 3"));
    limiter.program.signal("HUP");
    limiter.program.wait_for_line_after(
        before,
        r"buckets.yml:8: unknown field .*sise|stays as it was",
        soon(),
    );
    has_all(&limiter.program.output(), &["buckets.yml:8:", "sise"]);
    assert_eq!(client.take("wrong_password", "k"), (true, 1));
    // without any signal
    crate::lab::write(&file, BUCKETS.replace("size: 3", "size: 30"));
    let mut keys = 0..;
    eventually("the new size", soon(), || {
        let unused = format!("{:?}", keys.next());
        client.take("wrong_password", &unused).1 > 3
    });
}

#[test]
fn a_start_that_cannot_be_says_why() {
    let dir = tempfile::tempdir().unwrap();
    crate::lab::write(&dir.path().join("b.yml"), "buckets:\n  a: {sise: 1}\n");
    let run = |args: &[&str]| {
        let run = crate::lab::sallyport().args(args).dir(dir.path());
        let run = run.run(Deadline::secs(20));
        assert!(!run.status.success());
        run.stderr
    };
    has_all(&run(&["rate-limit", "-c", "b.yml"]), &["b.yml:2:", "sise"]);
    has_all(
        &run(&["rate-limit", "-c", "c.yml"]),
        &["c.yml", "could not read"],
    );
    crate::lab::write(&dir.path().join("b.yml"), BUCKETS);
    let limiter = Limiter::start(BUCKETS);
    let taken = limiter.address.to_string();
    has_all(
        &run(&["rate-limit", "-c", "b.yml", "--listen", &taken]),
        &["already in use", "--listen", "rate_limit"],
    );
}
