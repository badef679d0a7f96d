//! HTTP/1.1 messages on blocking streams: heads, bodies, and a stream that ends at a deadline.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::Deadline;

/// Longest head or chunk line that is read, in bytes.
const LINE_MAX: u64 = 256 * 1024;
/// Most header lines of one head.
const LINES_MAX: usize = 1_000;
/// Longest body that is read, in bytes.
const BODY_MAX: u64 = 256 * 1024 * 1024;

/// Header lines in the order in which they came; names compare without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of the first line with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The values of all lines with this name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All lines as name and value, spelled as they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds a line at the end.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Whether one of the comma-separated words of this header is `word`.
    pub(crate) fn has_word(&self, name: &str, word: &str) -> bool {
        self.all(name)
            .flat_map(|v| v.split(','))
            .any(|w| w.trim().eq_ignore_ascii_case(word))
    }
}

/// Where a body ends.
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    /// The framing that the headers state; `otherwise` if they state none.
    pub(crate) fn of(headers: &Headers, otherwise: Framing) -> io::Result<Framing> {
        if headers.has_word("transfer-encoding", "chunked") {
            return Ok(Framing::Chunked);
        }
        match headers.get("content-length") {
            Some(text) => match text.parse() {
                Ok(length) => Ok(Framing::Length(length)),
                Err(_) => Err(bad(format!("content-length is {text:?}"))),
            },
            None => Ok(otherwise),
        }
    }
}

/// Reads a start line and headers; `None` if the peer closed before the first byte.
pub(crate) fn read_head(stream: &mut impl BufRead) -> io::Result<Option<(String, Headers)>> {
    let Some(first) = read_line(stream)? else {
        return Ok(None);
    };
    let mut headers = Headers::default();
    for _ in 0..LINES_MAX {
        let line = read_line(stream)?.ok_or_else(|| closed("in the headers"))?;
        if line.is_empty() {
            return Ok(Some((first, headers)));
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| bad(format!("header {line:?}")))?;
        headers.push(name, value.trim());
    }
    Err(bad(format!("more than {LINES_MAX} header lines")))
}

/// Reads a whole body.
pub(crate) fn read_body(stream: &mut impl BufRead, framing: Framing) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match framing {
        Framing::Length(length) => read_exactly(stream, length, &mut body)?,
        Framing::UntilClose => {
            stream.take(BODY_MAX).read_to_end(&mut body)?;
        }
        Framing::Chunked => loop {
            let line = read_line(stream)?.ok_or_else(|| closed("before a chunk"))?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| bad(format!("chunk {line:?}")))?;
            if size == 0 {
                while !read_line(stream)?
                    .ok_or_else(|| closed("in the trailers"))?
                    .is_empty()
                {}
                break;
            }
            read_exactly(stream, size, &mut body)?;
            if read_line(stream)?.as_deref() != Some("") {
                return Err(bad("a chunk is longer than it says".into()));
            }
        },
    }
    Ok(body)
}

fn read_exactly(stream: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if body.len() as u64 + length > BODY_MAX {
        return Err(bad(format!("a body above {BODY_MAX} bytes")));
    }
    let got = stream.take(length).read_to_end(body)? as u64;
    if got < length {
        Err(closed(&format!("after {got} of {length} bytes")))
    } else {
        Ok(())
    }
}

/// Reads up to a line feed and returns the text before it; `None` at the end of the stream.
fn read_line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    stream.take(LINE_MAX).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(closed("within a line, or the line is too long")),
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn bad(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn closed(place: &str) -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, format!("the peer closed {place}"))
}

/// A TCP stream whose reads and writes fail once the deadline has passed.
pub(crate) struct Timed {
    pub(crate) stream: TcpStream,
    pub(crate) deadline: Deadline,
}

impl Timed {
    fn left(&self) -> io::Result<Option<std::time::Duration>> {
        let left = self.deadline.left();
        if left.is_zero() {
            let text = format!("no complete answer within {:?}", self.deadline.whole());
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        Ok(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(self.left()?)?;
            match self.stream.read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {} // `left` now fails
                other => return other,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        loop {
            self.stream.set_write_timeout(self.left()?)?;
            match self.stream.write(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &str, otherwise: Framing, expected: Result<&str, ErrorKind>) {
        let mut stream = bytes.as_bytes();
        let (_, headers) = read_head(&mut stream).unwrap().unwrap();
        let body = Framing::of(&headers, otherwise).and_then(|f| read_body(&mut stream, f));
        let body = body
            .map(|b| String::from_utf8(b).unwrap())
            .map_err(|e| e.kind());
        assert_eq!(body.as_deref(), expected.as_ref().map(|b| *b));
    }

    #[test]
    fn bodies_end_where_the_headers_say() {
        use Framing::{Length, UntilClose};
        check(
            "A\r\nContent-Length: 3\r\n\r\nabcdef",
            UntilClose,
            Ok("abc"),
        );
        check("A\r\n\r\nabcdef", UntilClose, Ok("abcdef"));
        check("A\r\n\r\nabcdef", Length(0), Ok(""));
        let chunked = "A\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
        let body = "3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\nnext";
        check(&format!("{chunked}{body}"), UntilClose, Ok("abc0123456789"));
    }

    #[test]
    fn torn_bodies_are_errors() {
        use ErrorKind::{InvalidData, UnexpectedEof};
        let none = || Framing::Length(0);
        check(
            "A\r\nContent-Length: 3\r\n\r\nab",
            none(),
            Err(UnexpectedEof),
        );
        check("A\r\nContent-Length: x\r\n\r\nab", none(), Err(InvalidData));
        check(
            "A\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            none(),
            Err(UnexpectedEof),
        );
        check(
            "A\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
            none(),
            Err(InvalidData),
        );
        check(
            "A\r\nTransfer-Encoding: chunked\r\n\r\nxy\r\n",
            none(),
            Err(InvalidData),
        );
    }

    #[test]
    fn header_names_have_no_case() {
        let mut stream = "A\r\nX-A: 1\r\nx-a:2\r\n\r\n".as_bytes();
        let (_, headers) = read_head(&mut stream).unwrap().unwrap();
        assert_eq!(headers.all("X-a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(headers.get("y"), None);
    }
}
