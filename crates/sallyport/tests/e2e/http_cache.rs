//! The public test suite for HTTP caches against `proxy-cache`. What is expected is in
//! `docs/conformance.md` in words and here by the suite's own ids.

use std::collections::{BTreeMap, BTreeSet};

use sallyport_testkit::{Deadline, Program, eventually, foreign, free_port};
use serde_json::json;

use crate::lab::{Alone, soon};

/// Required by the suite and not done, or not judged because of one that is not done.
const NOT_DONE: &str = include_str!("../foreign/http_cache/not_done.txt");

/// Statuses that the suite's origin answers with.
const STATUSES: &[u16] = &[
    200, 203, 204, 206, 299, 301, 302, 303, 307, 308, 400, 404, 410, 414, 499, 500, 501, 502, 503,
    504, 599,
];

/// Ids and results of all tests, or of these, that the suite calls required.
#[track_caller]
fn run(program: &std::path::Path, base: &str, ids: &[&str]) -> BTreeMap<String, String> {
    let run = Program::new(program)
        .args(["run", base])
        .args(ids)
        .run(Deadline::secs(300))
        .success();
    let required = run.stdout.lines().filter_map(|line| {
        let mut parts = line.split('\t');
        let (id, kind, result) = (parts.next()?, parts.next()?, parts.next()?);
        (kind == "required").then(|| (id.to_owned(), result.to_owned()))
    });
    required.collect()
}

#[test]
fn proxy_cache_does_what_it_is_said_to_do() {
    let Some(program) = foreign(
        "http-cache-tests",
        "npm package http-cache-tests, see .ci/run",
    ) else {
        return;
    };
    let origin = free_port();
    let _origin = Program::new(&program)
        .args(["server", &origin.to_string()])
        .start();
    eventually("the suite's origin listens", soon(), || {
        std::net::TcpStream::connect(("127.0.0.1", origin)).is_ok()
    });
    let document = json!({
        "_format_version": "3.0",
        "services": [{"url": format!("http://127.0.0.1:{origin}"), "routes": [{"paths": ["/"]}],
            "plugins": [{"name": "proxy-cache", "config": {"strategy": "memory",
                "cache_control": true, "storage_ttl": 3600, "response_code": STATUSES,
                "content_type": ["text/plain", "application/json", "*/*"]}}]}],
    });
    let gateway = Alone::start(&document.to_string(), "");
    let base = format!("http://127.0.0.1:{}", gateway.port);
    let not_done: BTreeSet<&str> = NOT_DONE.lines().collect();
    let mut results = run(&program, &base, &[]);
    assert!(results.len() > 150, "{results:?}");
    // the suite waits for seconds and not for events: on a busy machine a test may miss its time
    let failed: Vec<String> = results
        .iter()
        .filter(|(id, result)| *result != "passed" && !not_done.contains(&***id))
        .map(|(id, _)| id.clone())
        .collect();
    for id in &failed {
        results.extend(run(&program, &base, &[id]));
    }
    let found: BTreeSet<&str> = results
        .iter()
        .filter(|(_, result)| *result != "passed")
        .map(|(id, _)| id.as_str())
        .collect();
    let new: Vec<_> = found
        .difference(&not_done)
        .map(|id| (id, &results[*id]))
        .collect();
    assert!(new.is_empty(), "{new:#?}");
    let done: Vec<_> = not_done.difference(&found).collect();
    assert!(
        done.is_empty(),
        "these pass now, take them out of not_done.txt: {done:?}"
    );
}
