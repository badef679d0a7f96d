//! A small HTTP/1.1 client: one request, one connection, everything visible.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use crate::message::{Framing, Timed, read_body, read_head};
use crate::{Deadline, Headers};

/// How long a request may take as a whole unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Starts a GET request.
pub fn get(url: impl Into<String>) -> Request {
    request("GET", url)
}

/// Starts a request with any method; `url` is `http://host:port/path?query`.
pub fn request(method: impl Into<String>, url: impl Into<String>) -> Request {
    Request {
        method: method.into(),
        url: url.into(),
        headers: Headers::default(),
        body: None,
        timeout: TIMEOUT,
        keep_alive: false,
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    url: String,
    headers: Headers,
    body: Option<Vec<u8>>,
    timeout: Duration,
    keep_alive: bool,
}

impl Request {
    /// Adds a header line. `Host`, `Connection` and `Content-Length` given here replace ours.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Request {
        self.headers.push(name, value);
        self
    }

    /// Sets the body, sent with its `Content-Length`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self
    }

    /// Sets a JSON body and its content type.
    #[must_use]
    pub fn json(self, body: &Value) -> Request {
        self.header("Content-Type", "application/json")
            .body(body.to_string())
    }

    /// Sets how long connecting, sending and reading may take together; 20 seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Request {
        self.timeout = timeout;
        self
    }

    /// Leaves out `Connection: close`, for several requests over one stream with [`send_over`].
    ///
    /// [`send_over`]: Request::send_over
    #[must_use]
    pub fn keep_alive(mut self) -> Request {
        self.keep_alive = true;
        self
    }

    /// Sends the request over a new connection and reads the whole answer.
    ///
    /// # Errors
    /// A bad URL, no connection, a torn or malformed answer, or no answer in time.
    pub fn send(&self) -> io::Result<Response> {
        let deadline = Deadline::after(self.timeout);
        let (authority, _) = self.split_url()?;
        self.send_over(&mut connect(authority, deadline)?)
    }

    /// Sends the request over a stream that is already open (TLS, or one kept alive).
    ///
    /// # Errors
    /// As [`Request::send`]; the stream itself decides how long it waits.
    pub fn send_over(&self, stream: &mut (impl Read + Write)) -> io::Result<Response> {
        stream.write_all(&self.bytes()?)?;
        stream.flush()?;
        read_response(stream, &self.method)
    }

    /// The request as it goes over the wire.
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let (authority, path) = self.split_url()?;
        let mut text = format!("{} {path} HTTP/1.1\r\n", self.method);
        let mut line = |name: &str, value: &str| text.push_str(&format!("{name}: {value}\r\n"));
        if self.headers.get("host").is_none() {
            line("Host", authority);
        }
        if !self.keep_alive && self.headers.get("connection").is_none() {
            line("Connection", "close");
        }
        if let Some(body) = &self.body
            && self.headers.get("content-length").is_none()
        {
            line("Content-Length", &body.len().to_string());
        }
        self.headers
            .iter()
            .for_each(|(name, value)| line(name, value));
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        Ok(bytes)
    }

    /// Host with port, and path with query.
    fn split_url(&self) -> io::Result<(&str, &str)> {
        let rest = self
            .url
            .split_once("://")
            .map(|(_, rest)| rest)
            .ok_or_else(|| {
                io::Error::new(
                    ErrorKind::InvalidInput,
                    format!("{:?} is not a URL", self.url),
                )
            })?;
        Ok(match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        })
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header lines as they came.
    pub headers: Headers,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first header line with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not; the message shows status and body.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in the body of a {}: {}", self.status, self.text()),
        }
    }
}

/// Sends raw bytes and returns everything the peer answers until it closes or falls silent.
///
/// For requests that no client would build. A peer that keeps the connection open is read until
/// `deadline`; what came until then is returned.
///
/// # Errors
/// No connection, or the peer reset it before it said anything.
pub fn exchange(addr: SocketAddr, bytes: &[u8], deadline: Deadline) -> io::Result<Vec<u8>> {
    let mut stream = connect(&addr.to_string(), deadline)?;
    // The peer may refuse and close before it has read everything: its answer still counts.
    let sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() && error.kind() != ErrorKind::TimedOut => Err(error),
        _ if answer.is_empty() => sent.map(|()| answer),
        _ => Ok(answer),
    }
}

fn connect(authority: &str, deadline: Deadline) -> io::Result<Timed> {
    let with_port = |a: &str| {
        if a.contains(':') {
            a.to_owned()
        } else {
            format!("{a}:80")
        }
    };
    let mut last = io::Error::new(ErrorKind::NotFound, format!("{authority} has no address"));
    for addr in with_port(authority).to_socket_addrs()? {
        let left = deadline.left().max(Duration::from_millis(1)); // zero is not allowed
        match TcpStream::connect_timeout(&addr, left) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(Timed { stream, deadline });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn read_response(stream: &mut impl Read, method: &str) -> io::Result<Response> {
    let mut stream = BufReader::new(stream);
    loop {
        let (line, headers) = read_head(&mut stream)?.ok_or_else(|| {
            io::Error::new(
                ErrorKind::UnexpectedEof,
                "the peer closed without an answer",
            )
        })?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status
            .filter(|_| line.starts_with("HTTP/1."))
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("answer {line:?}")))?;
        if (100..200).contains(&status) && status != 101 {
            continue; // an interim answer; the real one follows
        }
        let no_body = method == "HEAD" || matches!(status, 101 | 204 | 304);
        let framing = match no_body {
            true => Framing::Length(0),
            false => Framing::of(&headers, Framing::UntilClose)?,
        };
        let body = read_body(&mut stream, framing)?;
        return Ok(Response {
            status,
            headers,
            body,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Echo;

    #[track_caller]
    fn check(method: &str, bytes: &str, expected: Result<(u16, &str), ErrorKind>) {
        let got = read_response(&mut bytes.as_bytes(), method);
        let got = got.map(|r| (r.status, r.text())).map_err(|e| e.kind());
        assert_eq!(
            got,
            expected.map(|(status, body)| (status, body.to_owned()))
        );
    }

    #[test]
    fn answers_of_every_shape() {
        check(
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            Ok((200, "hi")),
        );
        check(
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 x\r\n\r\n",
            Ok((201, "")),
        );
        check(
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            Ok((200, "")),
        );
        check(
            "GET",
            "HTTP/1.1 304 x\r\nContent-Length: 2\r\n\r\n",
            Ok((304, "")),
        );
        check("GET", "", Err(ErrorKind::UnexpectedEof));
        check(
            "GET",
            "SSH-2.0-OpenSSH\r\n\r\n",
            Err(ErrorKind::InvalidData),
        );
    }

    #[test]
    fn sends_method_headers_and_body() {
        let echo = Echo::start();
        let url = format!("{}/a?b=c", echo.url());
        let answer = request("PATCH", url)
            .header("X-A", "1")
            .body("body")
            .send()
            .unwrap();
        let seen = answer.json();
        assert_eq!(seen["method"], "PATCH");
        assert_eq!(seen["path"], "/a?b=c");
        assert_eq!(seen["headers"]["x-a"][0], "1");
        assert_eq!(seen["headers"]["connection"][0], "close");
        assert_eq!(seen["body"], "body");
    }

    #[test]
    fn a_silent_peer_runs_into_the_timeout() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let error = get(url)
            .timeout(Duration::from_millis(30))
            .send()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn raw_bytes_get_a_raw_answer() {
        let echo = Echo::start();
        let bytes = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        let answer = exchange(echo.addr(), bytes, Deadline::secs(20)).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
    }
}
