//! Our rate limiter, in this process and as a process of its own.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use sallyport_appliance::rate_limit::config::{Config, Source};
use sallyport_appliance::rate_limit::limits::Limits;
use sallyport_testkit::Deadline;
use sallyport_wire::rate_limit::frame::RESPONSE_BYTES_MAX;
use sallyport_wire::rate_limit::{Body, Id, Method, Request, Response, split};

use super::load::Protocol;
use super::{KEYS, Sample};
use crate::process::{Server, own_cpu, pinned};

const BUCKETS: &str = "buckets:
  ip: {size: 1000000000, per_second: 1000000}
  two: {size: 2}
";

/// Requests answered between two readings of the clock, as on a connection.
const BATCH: u32 = 64;

fn request<'a>(bucket: &'a str, key: &'a str) -> Request<'a> {
    Request {
        id: Id::Number(1),
        bucket: bucket.as_bytes(),
        key: key.as_bytes(),
        method: Method::Take,
        count: None,
        all: false,
        skip_response: false,
        lease: 0,
        windows: b"",
    }
}

/// One thread that takes without any socket.
pub(super) fn in_process(seconds: u32) -> anyhow::Result<Sample> {
    let source = Source {
        path: "buckets.yml".into(),
        text: BUCKETS.to_owned(),
    };
    let config = Config::parse(&[source], 0)?;
    let limits = Limits::new(config.types, 1_000_000);
    let keys: Vec<String> = (0..KEYS)
        .map(|key| format!("10.0.{}.{}", key >> 8, key & 255))
        .collect();
    let (cpu, began) = (own_cpu()?, Instant::now());
    let time = Duration::from_secs(seconds.into());
    let (mut done, mut at) = (0_u64, 0);
    while began.elapsed() < time {
        let (types, now) = (limits.types(), limits.now());
        for _ in 0..BATCH {
            at = (at + 1) % keys.len();
            black_box(limits.answer(&types, &request("ip", &keys[at]), now));
        }
        done += u64::from(BATCH);
    }
    let (wall, used) = (began.elapsed(), own_cpu()?.saturating_sub(cpu));
    Ok(Sample {
        takes_per_second: done as f64 / wall.as_secs_f64(),
        cpu_us: used.as_secs_f64() * 1e6 / done as f64,
    })
}

/// Starts `sallyport rate-limit`.
pub(super) fn start(
    core: &str,
    executable: &Path,
    port: u16,
    dir: &Path,
) -> anyhow::Result<Server> {
    std::fs::write(dir.join("buckets.yml"), BUCKETS)?;
    let executable = std::path::absolute(executable)?.display().to_string();
    let listen = format!("127.0.0.1:{port}");
    let command = [
        &executable,
        "rate-limit",
        "-c",
        "buckets.yml",
        "--listen",
        &listen,
    ];
    let server = Server(pinned(core, command).dir(dir).try_start()?);
    let ready = server
        .0
        .find_line_after(0, "rate limiter started", Deadline::secs(20));
    if ready.is_err() {
        bail!(
            "sallyport rate-limit does not start:\n{}",
            server.0.output()
        );
    }
    Ok(server)
}

/// The limitd protocol.
pub(super) struct Limitd;

impl Protocol for Limitd {
    fn take(&self, key: &str, out: &mut Vec<u8>) {
        request("ip", key).encode(out);
    }

    fn take_of_two(&self, key: &str, out: &mut Vec<u8>) {
        request("two", key).encode(out);
    }

    fn answer(&self, bytes: &[u8]) -> anyhow::Result<Option<(bool, usize)>> {
        let Some(frame) = split(bytes, RESPONSE_BYTES_MAX)? else {
            return Ok(None);
        };
        match Response::decode(frame.body)?.body {
            Body::Take(taken) => Ok(Some((taken.conformant, frame.bytes))),
            other => bail!("a take is answered with {other:?}"),
        }
    }
}
