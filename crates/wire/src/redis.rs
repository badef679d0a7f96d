//! RESP2, as a gateway speaks it to Redis and Valkey: commands out, answers in.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

/// An answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A null, as a string or as an array.
    Nil,
    /// A whole number.
    Integer(i64),
    /// A simple string or a string of bytes.
    Bytes(Vec<u8>),
    /// An array.
    List(Vec<Reply>),
    /// The server refuses the command, and says why.
    Error(String),
}

/// What came is not RESP2, or more than a gateway ever asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A value starts with a byte that no type has, or a number is none.
    #[error("not RESP2")]
    Malformed,
    /// A value is longer than [`BYTES_MAX`], or lists are nested deeper than [`DEPTH_MAX`].
    #[error("an answer is larger than any that was asked for")]
    TooLarge,
}

/// Longest string and most elements of an array.
pub const BYTES_MAX: usize = 1 << 20;
/// Arrays within arrays.
pub const DEPTH_MAX: usize = 8;
/// Longest line: a type with its length, or an error's text.
const LINE_MAX: usize = 64 << 10;

/// Appends a command to what is to be sent.
pub fn encode<P: AsRef<[u8]>>(command: &[P], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for part in command {
        let part = part.as_ref();
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first answer in `bytes` and how many bytes it took; `None` if it is not all there yet.
///
/// # Errors
/// See [`DecodeError`]; the connection is of no use then.
pub fn decode(bytes: &[u8]) -> Result<Option<(Reply, usize)>, DecodeError> {
    let mut rest = bytes;
    Ok(value(&mut rest, 0)?.map(|reply| (reply, bytes.len() - rest.len())))
}

fn value(rest: &mut &[u8], depth: usize) -> Result<Option<Reply>, DecodeError> {
    let Some(line) = line(rest)? else {
        return Ok(None);
    };
    let (kind, text) = line.split_first().ok_or(DecodeError::Malformed)?;
    Ok(Some(match kind {
        b'+' => Reply::Bytes(text.to_vec()),
        b'-' => Reply::Error(String::from_utf8_lossy(text).into_owned()),
        b':' => Reply::Integer(number(text)?),
        b'$' => {
            let Some(length) = length(text)? else {
                return Ok(Some(Reply::Nil));
            };
            if rest.len() < length + 2 {
                return Ok(None);
            }
            let (bytes, behind) = rest.split_at(length);
            *rest = behind.strip_prefix(b"\r\n").ok_or(DecodeError::Malformed)?;
            Reply::Bytes(bytes.to_vec())
        }
        b'*' => {
            let Some(length) = length(text)? else {
                return Ok(Some(Reply::Nil));
            };
            if depth == DEPTH_MAX {
                return Err(DecodeError::TooLarge);
            }
            let mut list = Vec::new();
            for _ in 0..length {
                match value(rest, depth + 1)? {
                    Some(element) => list.push(element),
                    None => return Ok(None),
                }
            }
            Reply::List(list)
        }
        _ => return Err(DecodeError::Malformed),
    }))
}

/// Takes a line without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, DecodeError> {
    let bytes = *rest;
    match bytes.iter().position(|byte| *byte == b'\r') {
        Some(end) if bytes.get(end + 1) == Some(&b'\n') => {
            *rest = &bytes[end + 2..];
            Ok(Some(&bytes[..end]))
        }
        Some(end) if end + 1 < bytes.len() => Err(DecodeError::Malformed),
        _ if bytes.len() > LINE_MAX => Err(DecodeError::TooLarge),
        _ => Ok(None),
    }
}

fn number(text: &[u8]) -> Result<i64, DecodeError> {
    let text = std::str::from_utf8(text).map_err(|_| DecodeError::Malformed)?;
    text.parse().map_err(|_| DecodeError::Malformed)
}

/// A length; `None` for the -1 of a null.
fn length(text: &[u8]) -> Result<Option<usize>, DecodeError> {
    match number(text)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= BYTES_MAX => Ok(Some(length)),
            Ok(_) => Err(DecodeError::TooLarge),
            Err(_) => Err(DecodeError::Malformed),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(bytes: &str, expected: Result<Option<Reply>, DecodeError>) {
        let found = decode(bytes.as_bytes());
        if let Ok(Some((_, taken))) = &found {
            assert_eq!(*taken, bytes.len());
        }
        assert_eq!(
            found.map(|found| found.map(|(reply, _)| reply)),
            expected,
            "{bytes:?}"
        );
    }

    fn bytes(text: &str) -> Reply {
        Reply::Bytes(text.into())
    }

    #[test]
    fn answers_are_read() {
        check("+OK\r\n", Ok(Some(bytes("OK"))));
        check("-NOAUTH no\r\n", Ok(Some(Reply::Error("NOAUTH no".into()))));
        check(":-7\r\n", Ok(Some(Reply::Integer(-7))));
        check("$3\r\na\r\n\r\n", Ok(Some(bytes("a\r\n"))));
        check("$0\r\n\r\n", Ok(Some(bytes(""))));
        check("$-1\r\n", Ok(Some(Reply::Nil)));
        check("*-1\r\n", Ok(Some(Reply::Nil)));
        let list = vec![Reply::Integer(1), Reply::List(vec![]), Reply::Nil];
        check("*3\r\n:1\r\n*0\r\n$-1\r\n", Ok(Some(Reply::List(list))));
    }

    #[test]
    fn what_is_not_all_there_is_waited_for() {
        let whole = "*2\r\n$2\r\nab\r\n:12\r\n";
        for end in 0..whole.len() {
            check(&whole[..end], Ok(None));
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bad in [
            "\r\n",
            "x\r\n",
            ":x\r\n",
            "$-2\r\n",
            "+a\rb",
            "$1\r\nabc",
            "HTTP/1.1 400 no\r\n",
        ] {
            check(bad, Err(DecodeError::Malformed));
        }
        check("$99999999\r\n", Err(DecodeError::TooLarge));
        check("*99999999\r\n", Err(DecodeError::TooLarge));
        check(&"*1\r\n".repeat(DEPTH_MAX + 1), Err(DecodeError::TooLarge));
        check(&"+".repeat(LINE_MAX + 1), Err(DecodeError::TooLarge));
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut out = Vec::new();
        encode(&["INCR", "a\r\n"], &mut out);
        assert_eq!(out, b"*2\r\n$4\r\nINCR\r\n$3\r\na\r\n\r\n");
    }

    proptest! {
        #[test]
        fn a_command_reads_as_a_list(parts in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let mut out = Vec::new();
            encode(&parts, &mut out);
            let list = parts.into_iter().map(Reply::Bytes).collect();
            prop_assert_eq!(decode(&out), Ok(Some((Reply::List(list), out.len()))));
        }

        #[test]
        fn hostile_bytes_are_read_or_refused(
            bytes in "(\\*|\\$|:|\\+|-|[0-9]{1,9}|\r\n|\r|a){0,24}",
        ) {
            if let Ok(Some((_, taken))) = decode(bytes.as_bytes()) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
