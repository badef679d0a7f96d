//! The server name in a TLS handshake that has only begun.
//!
//! Passed-through TLS must reach the upstream as the client sent it, so its first message is read
//! here and consumed nowhere. Source: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3.

/// Most bytes of a first message, with the records around it. Source: a ClientHello of this size
/// does not fit the buffers of nginx either.
pub(crate) const HELLO_BYTES_MAX: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const RECORD_HEAD_BYTES: usize = 5;
/// Longest content of a plaintext record, bytes.
const RECORD_BYTES_MAX: usize = 1 << 14;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The beginning of a handshake; more must come.
    Incomplete,
    /// A whole first message.
    Whole {
        /// The name asked for, in lower case and without the dot of the root.
        name: Option<String>,
    },
    /// Not TLS, or broken.
    Foreign,
}

/// Reads the first message of a client.
pub(crate) fn read(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        match whole(&message) {
            Some(Ok(body)) => {
                return match server_name(body) {
                    Some(name) => Hello::Whole { name },
                    None => Hello::Foreign,
                };
            }
            Some(Err(())) => return Hello::Foreign,
            None => {}
        }
        let known: [u8; 3] = std::array::from_fn(|at| rest.get(at).copied().unwrap_or(0));
        let fits = |at: usize, good: bool| rest.len() <= at || good;
        if !fits(0, known[0] == HANDSHAKE) || !fits(1, known[1] == 3) || !fits(2, known[2] <= 4) {
            return Hello::Foreign;
        }
        let Some((head, more)) = rest.split_at_checked(RECORD_HEAD_BYTES) else {
            return incomplete(bytes);
        };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length == 0 || length > RECORD_BYTES_MAX {
            return Hello::Foreign;
        }
        let here = more.len().min(length);
        message.extend_from_slice(&more[..here]);
        if here < length && whole(&message).is_none() {
            return incomplete(bytes);
        }
        rest = &more[here..];
    }
}

fn incomplete(bytes: &[u8]) -> Hello {
    match bytes.len() < HELLO_BYTES_MAX {
        true => Hello::Incomplete,
        false => Hello::Foreign,
    }
}

/// The body of the handshake message, once all of it is there.
fn whole(message: &[u8]) -> Option<Result<&[u8], ()>> {
    if *message.first()? != CLIENT_HELLO {
        return Some(Err(()));
    }
    let (head, body) = message.split_at_checked(4)?;
    let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
    match length > HELLO_BYTES_MAX {
        true => Some(Err(())),
        false => body.get(..length).map(Ok),
    }
}

/// What is left to read of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let taken = self.take(bytes)?.iter();
        Some(taken.fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// A vector whose length is a number of so many bytes.
    fn vector(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

/// The name in a ClientHello, if there is one; the outer `None` if it is broken.
fn server_name(body: &[u8]) -> Option<Option<String>> {
    let mut hello = Reader(body);
    hello.take(2 + 32)?; // version and random
    hello.vector(1)?; // session id
    hello.vector(2)?; // cipher suites
    hello.vector(1)?; // compression methods
    if hello.0.is_empty() {
        return Some(None); // older than extensions
    }
    let mut extensions = Reader(hello.vector(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut extension = Reader(extensions.vector(2)?);
        if kind != usize::from(SERVER_NAME) {
            continue;
        }
        let mut names = Reader(extension.vector(2)?);
        while !names.0.is_empty() {
            let kind = names.number(1)?;
            let name = names.vector(2)?;
            if kind == usize::from(HOST_NAME) {
                return Some(Some(host_name(name)?));
            }
        }
    }
    Some(None)
}

fn host_name(name: &[u8]) -> Option<String> {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if name.is_empty() || name.len() > 255 || !name.iter().all(good) {
        return None;
    }
    let text = std::str::from_utf8(name).ok()?;
    Some(text.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// What rustls sends first for this name.
    fn hello(name: &str) -> Vec<u8> {
        let trust = sallyport_runtime::tls::ServerTrust::Anybody;
        let config = sallyport_runtime::tls::client_config(trust, None).unwrap();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        sent
    }

    /// The same in records of at most so many bytes.
    fn cut(hello: &[u8], bytes: usize) -> Vec<u8> {
        let mut records = Vec::new();
        for part in hello[RECORD_HEAD_BYTES..].chunks(bytes) {
            records.extend_from_slice(&hello[..3]);
            records.extend_from_slice(&(part.len() as u16).to_be_bytes());
            records.extend_from_slice(part);
        }
        records
    }

    #[test]
    fn the_name_is_found_however_the_message_is_cut() {
        let named = hello("Api.Example");
        let expected = Hello::Whole {
            name: Some("api.example".to_owned()),
        };
        for bytes in [named.clone(), cut(&named, 1), cut(&named, 100)] {
            assert_eq!(read(&bytes), expected);
            let more = [&bytes[..], b"more"].concat();
            assert_eq!(read(&more), expected);
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Hello::Incomplete, "{end}");
            }
        }
        let nameless = Hello::Whole { name: None };
        assert_eq!(read(&hello("127.0.0.1")), nameless);
    }

    #[test]
    fn what_is_not_tls_is_seen_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"S",
            b"\x16\x02",
            b"\x16\x03\x05",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\xff\xff",
            b"\x16\x03\x01\x00\x05\x02",
            b"\x16\x03\x01\x00\x05\x01\xff\xff\xff",
        ] {
            assert_eq!(read(bytes), Hello::Foreign, "{bytes:?}");
        }
        let mut broken = hello("a.example");
        let at = broken
            .windows(9)
            .position(|part| part == b"a.example")
            .unwrap();
        broken[at] = b'\n';
        assert_eq!(read(&broken), Hello::Foreign);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(at in 0..200usize, byte: u8, end in 0..300usize) {
            let mut bytes = hello("a.example");
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            bytes.truncate(end);
            let _ = read(&bytes);
        }

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let bytes = [&b"\x16\x03\x01\x00\x20\x01"[..], &bytes].concat();
            let _ = read(&bytes);
        }
    }
}
