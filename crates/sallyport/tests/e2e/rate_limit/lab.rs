//! A running rate limiter and a plain client for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use sallyport_testkit::Program;
use sallyport_wire::rate_limit::frame::RESPONSE_BYTES_MAX;
use sallyport_wire::rate_limit::{Body, Id, Method, Request, Response, split};

use crate::lab::{sallyport, soon, write};

/// The bucket types of limitd's own tests.
pub(super) const BUCKETS: &str = "buckets:
  ip:
    size: 10
    per_second: 5
    override:
      127.0.0.1: {size: 1000, per_second: 5}
      0.0.0.0: {size: 100, unlimited: true}
  wrong_password: {size: 3}
  once per hour: {per_hour: 1}
";

pub(super) struct Limiter {
    pub(super) program: Program,
    pub(super) address: SocketAddr,
}

impl Limiter {
    /// Starts one on a free port; the file is written to `buckets.yml` in a directory of its own.
    pub(super) fn start(buckets: &str) -> Limiter {
        let dir = tempfile::tempdir().unwrap().keep();
        Limiter::start_in(&dir, "buckets.yml", buckets, "127.0.0.1:0")
    }

    pub(super) fn start_in(dir: &Path, file: &str, buckets: &str, listen: &str) -> Limiter {
        write(&dir.join(file), buckets);
        let args = ["rate-limit", "-c", file, "--listen", listen];
        let program = sallyport().args(args).dir(dir).start();
        let pattern = r"rate limiter started address=(127\.0\.0\.1:\d+)";
        let found = program.wait_for_line(pattern, soon());
        let address = found.groups[0].parse().unwrap();
        Limiter { program, address }
    }

    pub(super) fn url(&self) -> String {
        format!("limitd://{}", self.address)
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.address)
    }
}

/// A connection that asks and waits.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let buffer = Vec::new();
        Client { stream, buffer }
    }

    /// Sends TAKEs of one token with the ids 0.. in one write.
    pub(super) fn try_send_takes(
        &mut self,
        bucket: &str,
        key: &str,
        many: i32,
    ) -> std::io::Result<()> {
        let mut out = Vec::new();
        for id in 0..many {
            take(bucket, key, id).encode(&mut out);
        }
        self.stream.write_all(&out)
    }

    /// The next answer: its id and what it says.
    pub(super) fn answer(&mut self) -> (i32, Body) {
        self.try_answer().unwrap()
    }

    pub(super) fn try_answer(&mut self) -> std::io::Result<(i32, Body)> {
        loop {
            if let Some(frame) = split(&self.buffer, RESPONSE_BYTES_MAX).unwrap() {
                let response = Response::decode(frame.body).unwrap();
                let Id::Number(id) = response.id else {
                    panic!("{:?}", response.id)
                };
                let (body, bytes) = (response.body, frame.bytes);
                self.buffer.drain(..bytes);
                return Ok((id, body));
            }
            let mut chunk = [0; 16 * 1024];
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&chunk[..read]);
        }
    }

    /// One TAKE: whether it was granted, and what remains.
    pub(super) fn take(&mut self, bucket: &str, key: &str) -> (bool, u32) {
        let mut out = Vec::new();
        take(bucket, key, 1).encode(&mut out);
        self.stream.write_all(&out).unwrap();
        match self.answer().1 {
            Body::Take(taken) => (taken.conformant, taken.level.remaining),
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn take<'a>(bucket: &'a str, key: &'a str, id: i32) -> Request<'a> {
    Request {
        id: Id::Number(id),
        bucket: bucket.as_bytes(),
        key: key.as_bytes(),
        method: Method::Take,
        count: None,
        all: false,
        skip_response: false,
        lease: 0,
    }
}
