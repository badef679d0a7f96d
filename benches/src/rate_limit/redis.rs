//! Debian's Redis with a token bucket as a script, as rate limiters on Redis do it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use sallyport_testkit::Deadline;

use super::load::Protocol;
use crate::process::{Server, pinned};

/// KEYS[1]: the bucket. ARGV: size, tokens per millisecond, count. Returns whether they were taken,
/// the whole tokens left, and in how many milliseconds the bucket will be full.
const SCRIPT: &str = r#"
local size, rate, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local bucket = redis.call('HMGET', KEYS[1], 'content', 'since')
local content, since = tonumber(bucket[1]) or size, tonumber(bucket[2]) or now
content = math.min(size, content + math.max(0, now - since) * rate)
local taken = 0
if content >= count then
  content = content - count
  taken = 1
end
redis.call('HSET', KEYS[1], 'content', content, 'since', now)
local full = 0
if rate > 0 then
  full = math.ceil((size - content) / rate)
  redis.call('PEXPIRE', KEYS[1], full + 120000)
end
return {taken, math.floor(content), full}
"#;

/// The first line of its version.
pub(super) fn version() -> anyhow::Result<String> {
    let version = crate::machine::first_line("redis-server", "--version");
    let version = version.context("redis-server is needed (Debian package redis-server)")?;
    Ok(version.split(" sha=").next().unwrap_or_default().to_owned())
}

/// Starts one that keeps everything in memory.
pub(super) fn start(core: &str, port: u16, dir: &Path) -> anyhow::Result<Server> {
    let port = port.to_string();
    let command = [
        "redis-server",
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    let server = Server(pinned(core, command).dir(dir).try_start()?);
    let ready = server
        .0
        .find_line_after(0, "Ready to accept", Deadline::secs(20));
    if ready.is_err() {
        bail!("redis-server does not start:\n{}", server.0.output());
    }
    Ok(server)
}

/// RESP, with the script's digest.
pub(super) struct Redis {
    digest: String,
}

impl Redis {
    /// Hands the script to the server.
    pub(super) fn load(port: u16) -> anyhow::Result<Redis> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut out = Vec::new();
        command(&mut out, &["SCRIPT", "LOAD", SCRIPT]);
        stream.write_all(&out)?;
        let mut answer = [0; 256];
        let read = stream.read(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        let digest = answer.lines().nth(1).filter(|digest| digest.len() == 40);
        let digest = digest.with_context(|| format!("SCRIPT LOAD: {answer}"))?;
        Ok(Redis {
            digest: digest.to_owned(),
        })
    }
}

fn command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
}

impl Protocol for Redis {
    fn take(&self, key: &str, out: &mut Vec<u8>) {
        let key = format!("ip:{key}");
        command(
            out,
            &[
                "EVALSHA",
                &self.digest,
                "1",
                &key,
                "1000000000",
                "1000",
                "1",
            ],
        );
    }

    fn take_of_two(&self, key: &str, out: &mut Vec<u8>) {
        let key = format!("two:{key}");
        command(out, &["EVALSHA", &self.digest, "1", &key, "2", "0", "1"]);
    }

    fn answer(&self, bytes: &[u8]) -> anyhow::Result<Option<(bool, usize)>> {
        if bytes.first() == Some(&b'-') {
            bail!("{}", String::from_utf8_lossy(bytes));
        }
        // *3 and three numbers, a line each
        let ends = bytes
            .windows(2)
            .enumerate()
            .filter(|(_, end)| end == b"\r\n");
        let end = ends.map(|(at, _)| at + 2).nth(3);
        Ok(end.map(|end| (bytes[..end].starts_with(b"*3\r\n:1"), end)))
    }
}
