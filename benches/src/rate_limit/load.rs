//! The load generator: pipelined takes on a few connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::KEYS;

/// How takes are asked for and answered.
pub(super) trait Protocol: Sync {
    /// Appends a TAKE of one token, from a bucket that never empties.
    fn take(&self, key: &str, out: &mut Vec<u8>);

    /// Appends a TAKE of one token from a bucket of two that nothing refills.
    fn take_of_two(&self, key: &str, out: &mut Vec<u8>);

    /// The first answer: whether the take was granted, and how many bytes it has; `None` until
    /// all of it is there.
    fn answer(&self, bytes: &[u8]) -> anyhow::Result<Option<(bool, usize)>>;
}

/// Checks that it limits at all.
pub(super) fn verify(port: u16, protocol: &dyn Protocol) -> anyhow::Result<()> {
    let mut connection = Connection::open(port)?;
    let mut out = Vec::new();
    (0..3).for_each(|_| protocol.take_of_two("k", &mut out));
    connection.stream.write_all(&out)?;
    let mut granted = Vec::new();
    connection.answers(protocol, 3, |one| granted.push(one))?;
    if granted != [true, true, false] {
        bail!("three takes of a bucket of two: {granted:?}");
    }
    Ok(())
}

/// Takes for `time`, `window` at a time on each connection; returns how many were answered. All
/// have to be granted.
pub(super) fn run(
    port: u16,
    protocol: &dyn Protocol,
    connections: u32,
    window: u32,
    time: Duration,
) -> anyhow::Result<u64> {
    let until = Instant::now() + time;
    scope(|scope| {
        let one = |n| scope.spawn(move || takes(port, protocol, n, window, until));
        let running: Vec<_> = (0..connections).map(one).collect();
        let joined = running.into_iter().map(|thread| match thread.join() {
            Ok(takes) => takes,
            Err(_) => bail!("a connection's thread panicked"),
        });
        joined.sum()
    })
}

/// Takes for `time` on one connection to each port; how many were answered, and how many granted.
pub(super) fn all(
    ports: &[u16],
    protocol: &dyn Protocol,
    window: u32,
    time: Duration,
) -> anyhow::Result<(u64, u64)> {
    let until = Instant::now() + time;
    let one = |port: u16| -> anyhow::Result<(u64, u64)> {
        let mut connection = Connection::open(port)?;
        let mut batch = Vec::new();
        (0..window).for_each(|_| protocol.take("", &mut batch));
        let (mut done, mut granted) = (0, 0);
        while Instant::now() < until {
            connection.stream.write_all(&batch)?;
            connection.answers(protocol, window, |one| granted += u64::from(one))?;
            done += u64::from(window);
        }
        Ok((done, granted))
    };
    scope(|scope| {
        let running: Vec<_> = ports
            .iter()
            .map(|port| scope.spawn(move || one(*port)))
            .collect();
        let mut sum = (0, 0);
        for thread in running {
            let Ok(ended) = thread.join() else {
                bail!("a connection's thread panicked");
            };
            let (done, granted) = ended?;
            sum = (sum.0 + done, sum.1 + granted);
        }
        Ok(sum)
    })
}

fn takes(
    port: u16,
    protocol: &dyn Protocol,
    first: u32,
    window: u32,
    until: Instant,
) -> anyhow::Result<u64> {
    let mut connection = Connection::open(port)?;
    // A few batches are made before, so that making them is not what is measured.
    let mut key = first * 7_919;
    let batch = |_| {
        let mut out = Vec::new();
        for _ in 0..window {
            key = (key + 1) % KEYS;
            protocol.take(&format!("10.0.{}.{}", key >> 8, key & 255), &mut out);
        }
        out
    };
    let batches: Vec<Vec<u8>> = (0..1_000_u32.div_ceil(window).max(8)).map(batch).collect();
    let mut done = 0;
    for batch in batches.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        connection.stream.write_all(batch)?;
        let mut refused = 0;
        connection.answers(protocol, window, |granted| refused += u32::from(!granted))?;
        if refused > 0 {
            bail!("{refused} takes were refused");
        }
        done += u64::from(window);
    }
    Ok(done)
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    chunk: Box<[u8; 64 * 1024]>,
}

impl Connection {
    fn open(port: u16) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("could not connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Connection {
            stream,
            buffer: Vec::new(),
            chunk: Box::new([0; 64 * 1024]),
        })
    }

    fn answers(
        &mut self,
        protocol: &dyn Protocol,
        many: u32,
        mut each: impl FnMut(bool),
    ) -> anyhow::Result<()> {
        let mut missing = many;
        while missing > 0 {
            let read = self.stream.read(&mut self.chunk[..])?;
            if read == 0 {
                bail!("the server closed the connection");
            }
            self.buffer.extend_from_slice(&self.chunk[..read]);
            let mut done = 0;
            while let Some((granted, bytes)) = protocol.answer(&self.buffer[done..])? {
                each(granted);
                done += bytes;
                missing = missing.saturating_sub(1);
            }
            self.buffer.drain(..done);
        }
        Ok(())
    }
}
