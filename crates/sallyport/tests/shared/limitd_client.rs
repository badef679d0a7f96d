//! A plain client of limitd's protocol, for tests that count what it is granted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sallyport_wire::rate_limit::frame::RESPONSE_BYTES_MAX;
use sallyport_wire::rate_limit::{Body, Id, Method, Request, Response, split};

/// A connection that asks and waits.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let buffer = Vec::new();
        Client { stream, buffer }
    }

    /// Sends TAKEs of one token with the ids 0.. in one write.
    pub(crate) fn try_send_takes(
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
    pub(crate) fn answer(&mut self) -> (i32, Body) {
        self.try_answer().unwrap()
    }

    pub(crate) fn try_answer(&mut self) -> std::io::Result<(i32, Body)> {
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
    pub(crate) fn take(&mut self, bucket: &str, key: &str) -> (bool, u32) {
        let mut out = Vec::new();
        take(bucket, key, 1).encode(&mut out);
        self.stream.write_all(&out).unwrap();
        match self.answer().1 {
            Body::Take(taken) => (taken.conformant, taken.level.remaining),
            other => panic!("{other:?}"),
        }
    }

    /// Takes from `hot`, `window` at a time, until `stop` or the end of the connection.
    pub(crate) fn load(mut self, key: &str, window: i32, stop: &AtomicBool, admitted: &AtomicU64) {
        while !stop.load(Ordering::Relaxed) {
            if self.try_send_takes("hot", key, window).is_err() {
                return;
            }
            for _ in 0..window {
                match self.try_answer() {
                    Ok((_, Body::Take(taken))) if taken.conformant => {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok((_, Body::Take(_))) => {}
                    Ok((_, other)) => panic!("{other:?}"),
                    Err(_) => return,
                }
            }
        }
    }
}

pub(crate) fn take<'a>(bucket: &'a str, key: &'a str, id: i32) -> Request<'a> {
    Request {
        id: Id::Number(id),
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
