//! Where a message body ends (RFC 9112 sections 6 and 7.1).

use bytes::{Buf, BytesMut};
use http::HeaderMap;

use super::trailers;

/// How long a body is, as its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// This many bytes; 0 for none.
    Exact(u64),
    /// Until the last chunk.
    Chunked,
    /// Until the connection closes; only responses.
    UntilClose,
}

/// A line of a chunked body that is longer than this is refused, bytes.
const LINE_MAX: usize = 256;
/// All trailer lines together, bytes.
const TRAILERS_MAX: usize = 8 * 1024;

/// What stands at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This many bytes of body, at least 1; call [`Body::consumed`] when they are used.
    Data(usize),
    /// Nothing complete; more bytes are needed.
    More,
    /// The body is over; what follows belongs to the next message.
    End,
    /// Not a body.
    Bad,
}

/// A body that is being read.
#[derive(Debug)]
pub(crate) struct Body {
    state: State,
    /// Fields behind the last chunk that may go on.
    trailers: Option<Box<HeaderMap>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Exact(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers(usize),
    Done,
    Bad,
}

impl Body {
    /// A body of this length, of which nothing is read yet.
    pub(crate) fn new(length: Length) -> Body {
        let state = match length {
            Length::Exact(bytes) => State::Exact(bytes),
            Length::Chunked => State::ChunkSize,
            Length::UntilClose => State::UntilClose,
        };
        Body {
            state,
            trailers: None,
        }
    }

    /// The trailer fields, once, after the end.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.trailers.take()
    }

    /// Whether the end has been reached.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Exact(0))
    }

    /// Looks at the front of `buffer`; takes framing bytes away, leaves data.
    pub(crate) fn step(&mut self, buffer: &mut BytesMut) -> Step {
        loop {
            match self.state {
                State::Exact(0) | State::Done => return Step::End,
                State::Bad => return Step::Bad,
                State::Exact(left) | State::ChunkData(left) if !buffer.is_empty() => {
                    let left = usize::try_from(left).unwrap_or(usize::MAX);
                    return Step::Data(left.min(buffer.len()));
                }
                State::UntilClose if !buffer.is_empty() => return Step::Data(buffer.len()),
                State::Exact(_) | State::ChunkData(_) | State::UntilClose => return Step::More,
                State::ChunkSize => match line(buffer, LINE_MAX) {
                    Line::Whole(size) => {
                        self.state = match chunk_size(&buffer[..size]) {
                            Some(0) => State::Trailers(0),
                            Some(bytes) => State::ChunkData(bytes),
                            None => State::Bad,
                        };
                        buffer.advance(size + 2);
                    }
                    Line::More => return Step::More,
                    Line::Bad => self.state = State::Bad,
                },
                State::ChunkEnd => match (buffer.first(), buffer.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        buffer.advance(2);
                        self.state = State::ChunkSize;
                    }
                    (None, _) | (Some(b'\r'), None) => return Step::More,
                    _ => self.state = State::Bad,
                },
                State::Trailers(seen) => match line(buffer, TRAILERS_MAX - seen) {
                    Line::Whole(0) => {
                        buffer.advance(2);
                        self.state = State::Done;
                    }
                    Line::Whole(length) => {
                        let seen = seen + length + 2;
                        let kept = trailers::note(&buffer[..length], &mut self.trailers);
                        buffer.advance(length + 2);
                        self.state = match kept && seen < TRAILERS_MAX {
                            true => State::Trailers(seen),
                            false => State::Bad,
                        };
                    }
                    Line::More => return Step::More,
                    Line::Bad => self.state = State::Bad,
                },
            }
        }
    }

    /// Says that `bytes` of the data at the front have been used and taken out of the buffer.
    pub(crate) fn consumed(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.state = match self.state {
            State::Exact(left) => State::Exact(left - bytes),
            State::ChunkData(left) if left == bytes => State::ChunkEnd,
            State::ChunkData(left) => State::ChunkData(left - bytes),
            other => other,
        };
    }

    /// Whether a body may end because the connection did.
    pub(crate) fn ends_at_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }
}

enum Line {
    /// A line of this length, its CRLF not counted.
    Whole(usize),
    More,
    Bad,
}

fn line(buffer: &[u8], max: usize) -> Line {
    let seen = &buffer[..buffer.len().min(max + 2)];
    match memchr::memchr(b'\n', seen) {
        Some(at) if at > 0 && seen[at - 1] == b'\r' => Line::Whole(at - 1),
        Some(_) => Line::Bad,
        None if buffer.len() >= max + 2 => Line::Bad,
        None => Line::More,
    }
}

/// The size in front of a chunk; extensions are ignored.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let rest = &line[digits..];
    let rest_is_extension = rest.is_empty()
        || (rest.trim_ascii_start().first() == Some(&b';')
            && rest
                .iter()
                .all(|&byte| byte == b'\t' || (b' '..=b'~').contains(&byte)));
    if digits == 0 || digits > 15 || !rest_is_extension {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a body that arrives in pieces: its data, how it ended, and what was left over.
    fn read(length: Length, pieces: &[&[u8]]) -> (Vec<u8>, Step, Vec<u8>) {
        let (mut body, mut buffer, mut data) = (Body::new(length), BytesMut::new(), Vec::new());
        let mut pieces = pieces.iter();
        loop {
            match body.step(&mut buffer) {
                Step::Data(bytes) => {
                    data.extend_from_slice(&buffer.split_to(bytes));
                    body.consumed(bytes);
                }
                Step::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return (data, Step::More, buffer.to_vec()),
                },
                end => return (data, end, buffer.to_vec()),
            }
        }
    }

    #[track_caller]
    fn check(length: Length, bytes: &str, data: &str, end: Step, left: &str) {
        let whole = read(length, &[bytes.as_bytes()]);
        let expected = (data.as_bytes().to_vec(), end, left.as_bytes().to_vec());
        assert_eq!(whole, expected);
        if end == Step::End {
            let single: Vec<&[u8]> = bytes.as_bytes().chunks(1).collect();
            let (split, split_end, _) = read(length, &single);
            assert_eq!((split, split_end), (expected.0, end), "byte by byte");
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        check(Length::Exact(0), "", "", Step::End, "");
        check(Length::Exact(3), "abcnext", "abc", Step::End, "next");
        check(Length::Exact(5), "abc", "abc", Step::More, "");
        check(Length::UntilClose, "abc", "abc", Step::More, "");
        check(
            Length::Chunked,
            "3\r\nabc\r\n0\r\n\r\nnext",
            "abc",
            Step::End,
            "next",
        );
        check(
            Length::Chunked,
            "A;x=1\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
            "0123456789",
            Step::End,
            "",
        );
        check(
            Length::Chunked,
            "1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
            "ab",
            Step::End,
            "",
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bytes in [
            "3\nabc\n0\n\n",
            "3\r\nabcd\r\n",
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "+1\r\na",
            "1 x\r\na",
            "0x3\r\nabc",
            "3 ;\u{1}\r\nabc",
            "1111111111111111\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nA : 1\r\n\r\n",
            "0\r\n folded: 1\r\n\r\n",
            "0\r\nA: \0\r\n\r\n",
            "3;\nabc\r\n0\r\n\r\n",
        ] {
            assert_eq!(
                read(Length::Chunked, &[bytes.as_bytes()]).1,
                Step::Bad,
                "{bytes:?}"
            );
        }
        let long = "1".repeat(400);
        assert_eq!(read(Length::Chunked, &[long.as_bytes()]).1, Step::Bad);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(Length::Chunked, &[&bytes]);
        }

        #[test]
        fn chunks_come_back_however_they_are_cut(
            data in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            cut in 1usize..20,
        ) {
            let mut encoded = Vec::new();
            for chunk in &data {
                encoded.extend(format!("{:x}\r\n", chunk.len()).bytes());
                encoded.extend(chunk);
                encoded.extend(b"\r\n");
            }
            encoded.extend(b"0\r\n\r\n");
            let pieces: Vec<&[u8]> = encoded.chunks(cut).collect();
            let (read, end, _) = read(Length::Chunked, &pieces);
            prop_assert_eq!(end, Step::End);
            prop_assert_eq!(read, data.concat());
        }
    }
}
