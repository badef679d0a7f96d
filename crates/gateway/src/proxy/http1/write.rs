//! Heads as bytes.

use bytes::BytesMut;
use http::{StatusCode, Version};

use sallyport_plugins::{Fields, decimal};

use crate::proxy::headers::UPGRADE;

/// How the body behind a response head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body follows; `Content-Length` stays what the headers say.
    None,
    /// This many bytes.
    Exact(u64),
    /// Chunks.
    Chunked,
    /// Everything until the connection closes.
    Close,
    /// Not HTTP any more.
    Tunnel,
}

/// A header line whose value comes in parts.
pub(crate) fn line(out: &mut BytesMut, name: &str, parts: &[&[u8]]) {
    let value: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(name.len() + value + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal.
pub(crate) fn number(out: &mut BytesMut, number: u64) {
    out.extend_from_slice(decimal(number, &mut [0; 20]));
}

/// A whole response head.
pub(crate) fn response(
    out: &mut BytesMut,
    version: Version,
    status: StatusCode,
    headers: &Fields,
    framing: Framing,
    keep_alive: bool,
) {
    out.reserve(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    headers.write(out, |name, _| {
        matches!(framing, Framing::None) || !name.eq_ignore_ascii_case(b"content-length")
    });
    match framing {
        Framing::None | Framing::Close => {}
        Framing::Tunnel => out.extend_from_slice(UPGRADE),
        Framing::Exact(bytes) => {
            out.extend_from_slice(b"content-length: ");
            number(out, bytes);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    match (keep_alive, version) {
        (false, _) => out.extend_from_slice(b"connection: close\r\n"),
        (true, Version::HTTP_10) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (true, _) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// One chunk of a chunked body.
pub(crate) fn chunk(out: &mut BytesMut, data: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(version: Version, framing: Framing, keep_alive: bool, expected: &str) {
        let mut headers = Fields::new();
        headers.set_number(&http::HeaderName::from_static("a"), 1);
        headers.set_number(&http::header::CONTENT_LENGTH, 9);
        let mut out = BytesMut::new();
        response(
            &mut out,
            version,
            StatusCode::OK,
            &headers,
            framing,
            keep_alive,
        );
        let expected = format!("HTTP/1.1 200 OK\r\na: 1\r\n{expected}\r\n");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn response_heads_say_how_their_body_ends() {
        let (v1, v0) = (Version::HTTP_11, Version::HTTP_10);
        check(v1, Framing::Exact(10), true, "content-length: 10\r\n");
        check(v1, Framing::None, true, "content-length: 9\r\n");
        check(v1, Framing::Chunked, true, "transfer-encoding: chunked\r\n");
        check(
            v1,
            Framing::Exact(0),
            false,
            "content-length: 0\r\nconnection: close\r\n",
        );
        check(v0, Framing::Close, false, "connection: close\r\n");
        check(
            v0,
            Framing::Exact(1),
            true,
            "content-length: 1\r\nconnection: keep-alive\r\n",
        );
    }
}
