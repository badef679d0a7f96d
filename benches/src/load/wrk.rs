//! wrk: HTTP/1.1, plain or with TLS, over connections that are kept.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use sallyport_testkit::Deadline;

use super::{Counts, Run};
use crate::process::pinned;

/// End of every wrk script: prints the counts as one JSON line that begins with `{"wrk":`.
pub(crate) const REPORT: &str = r#"done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"wrk":{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"#;

/// Runs wrk to its end.
pub(super) fn run(run: &Run<'_>) -> anyhow::Result<Counts> {
    let script = run.dir.join("wrk.lua");
    fs::write(&script, run.script).with_context(|| format!("could not write {script:?}"))?;
    let scheme = if run.workload.is_tls() {
        "https"
    } else {
        "http"
    };
    // One thread: it saturates a core by far before a proxy does, and its pace is even.
    let args = [
        "wrk".to_owned(),
        "--threads=1".to_owned(),
        format!("--connections={}", run.connections),
        format!("--duration={}s", run.seconds),
        "--timeout=10s".to_owned(),
        format!("--script={}", script.display()),
        format!("{scheme}://127.0.0.1:{}/", run.port),
    ];
    let limit = Deadline::after(Duration::from_secs(u64::from(run.seconds) + 30));
    let mut wrk = pinned(run.cores, args)
        .dir(run.dir)
        .try_start()
        .context("could not run wrk")?;
    if let Err(why) = wrk.find_line_after(0, r#"^\{"wrk":"#, limit) {
        bail!("wrk did not report ({why}):\n{}", wrk.output());
    }
    wrk.wait(limit); // so that its CPU time is counted as ours
    parse(&wrk.output())
}

fn parse(output: &str) -> anyhow::Result<Counts> {
    #[derive(serde::Deserialize)]
    struct Line {
        wrk: Counts,
    }
    let line = output.lines().find(|line| line.starts_with(r#"{"wrk":"#));
    Ok(serde_json::from_str::<Line>(line.context("wrk did not report")?)?.wrk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<(u64, u64), &str>) {
        let got = parse(&format!("Running 8s test\n{line}\n")).and_then(Counts::checked);
        let got = got
            .map(|c| (c.requests, c.p99_us))
            .map_err(|e| e.to_string());
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn counts_are_read_and_failures_refused() {
        let counts = r#""duration_us":2,"p50_us":3,"p99_us":4,"errors""#;
        let none = r#"{"connect":0,"read":0,"write":0,"status":0,"timeout":0}"#;
        let refused = r#"{"connect":0,"read":0,"write":0,"status":7,"timeout":0}"#;
        check(
            &format!(r#"{{"wrk":{{"requests":9,{counts}:{none}}}}}"#),
            Ok((9, 4)),
        );
        check(
            &format!(r#"{{"wrk":{{"requests":0,{counts}:{none}}}}}"#),
            Err("no answer"),
        );
        check(
            &format!(r#"{{"wrk":{{"requests":9,{counts}:{refused}}}}}"#),
            Err("status: 7"),
        );
        check("unable to connect", Err("did not report"));
    }
}
