//! h2load of nghttp2: HTTP/2 with TLS, or requests at a fixed pace over plain HTTP/1.1.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use sallyport_testkit::Deadline;

use super::{Counts, Errors, Run, percentiles};
use crate::process::pinned;

/// Requests on their way on each connection of HTTP/2. There are that many times fewer
/// connections, so that as much is on its way as in other workloads.
pub(crate) const STREAMS: u32 = 8;

/// How requests follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// The next request of a stream when the one before is answered, over HTTP/2 with TLS.
    AsFastAsItGoes,
    /// So many requests a second and connection, over plain HTTP/1.1.
    PerSecond(u32),
}

/// Runs h2load to its end.
pub(crate) fn run(run: &Run<'_>, pace: Pace) -> anyhow::Result<Counts> {
    let log = run.dir.join("h2load.log");
    let mut args = vec![
        "h2load".to_owned(),
        "--threads=1".to_owned(),
        format!("--duration={}", run.seconds),
        "--connection-active-timeout=600".to_owned(),
        format!("--log-file={}", log.display()),
    ];
    match pace {
        Pace::AsFastAsItGoes => args.extend([
            format!("--clients={}", (run.connections / STREAMS).max(1)),
            format!("--max-concurrent-streams={STREAMS}"),
            format!("https://127.0.0.1:{}/", run.port),
        ]),
        Pace::PerSecond(rate) => args.extend([
            "--h1".to_owned(),
            format!("--clients={}", run.connections),
            format!("--rps={rate}"),
            format!("http://127.0.0.1:{}{}", run.port, run.script),
        ]),
    }
    let limit = Deadline::after(Duration::from_secs(u64::from(run.seconds) + 30));
    let mut h2load = pinned(run.cores, args)
        .dir(run.dir)
        .try_start()
        .context("could not run h2load")?;
    h2load.wait(limit);
    let output = h2load.output();
    let times = fs::read_to_string(&log).context("h2load wrote no log")?;
    fs::remove_file(&log).context("could not remove h2load's log")?;
    parse(&output, &times, run.seconds)
}

/// `output` is what it prints, `times` its log: start, status and duration of each request.
fn parse(output: &str, times: &str, seconds: u32) -> anyhow::Result<Counts> {
    let line = output.lines().find_map(|l| l.strip_prefix("requests: "));
    let Some(line) = line else {
        bail!("h2load did not report:\n{output}");
    };
    // "9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout"
    let count = |what: &str| -> anyhow::Result<u64> {
        let part = line.split(", ").find_map(|part| part.strip_suffix(what));
        let number = part.with_context(|| format!("no number of{what} in {line:?}"))?;
        Ok(number.parse()?)
    };
    let mut took = Vec::new();
    let mut refused = 0;
    for line in times.lines() {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut field = || fields.next().and_then(|text| text.parse::<i64>().ok());
        let (status, us) = field().zip(field()).context("h2load's log")?;
        match u64::try_from(us) {
            Ok(us) if (200..400).contains(&status) => took.push(us),
            _ => refused += 1,
        }
    }
    let requests = took.len() as u64;
    let (p50_us, p99_us) = percentiles(took);
    Ok(Counts {
        requests,
        duration_us: u64::from(seconds) * 1_000_000,
        p50_us,
        p99_us,
        errors: Errors {
            read: count(" errored")?,
            status: refused.max(count(" failed")?),
            timeout: count(" timeout")?,
            ..Errors::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_report_and_its_log_are_read() {
        let report =
            "requests: 4 total, 5 started, 4 done, 4 succeeded, 0 failed, 0 errored, 0 timeout";
        let counts = parse(report, "1 200 30\n2 200 10\n3 200 20\n", 2).unwrap();
        assert_eq!((counts.requests, counts.duration_us), (3, 2_000_000));
        assert_eq!((counts.p50_us, counts.p99_us), (20, 20));
        assert!(counts.checked().is_ok());
        let refused = parse(report, "1 200 30\n2 503 10\n", 2).unwrap();
        assert_eq!(refused.errors.status, 1);
        assert!(refused.checked().is_err());
        assert!(parse("no servers", "", 2).is_err());
    }
}
