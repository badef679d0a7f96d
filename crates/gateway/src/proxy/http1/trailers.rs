//! Fields behind a chunked body (RFC 9112 section 7.1.2), and which of them may go on.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Most trailer fields of a message.
const FIELDS_MAX: usize = 64;

/// Notes one line of a trailer section, without its CRLF; whether it is a field at all.
///
/// Fields that must not stand there are left out, see [`may_trail`].
pub(crate) fn note(line: &[u8], trailers: &mut Option<Box<HeaderMap>>) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else {
        return false;
    };
    let name = HeaderName::from_bytes(&line[..colon]);
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
    let (Ok(name), Ok(value)) = (name, value) else {
        return false;
    };
    if may_trail(&name) {
        let map = trailers.get_or_insert_default();
        if map.len() >= FIELDS_MAX {
            return false;
        }
        map.append(name, value);
    }
    true
}

/// Trailers that came over HTTP/2, without those that must not stand there.
pub(crate) fn checked(mut map: HeaderMap) -> HeaderMap {
    let bad: Vec<HeaderName> = map
        .keys()
        .filter(|name| !may_trail(name))
        .cloned()
        .collect();
    for name in bad {
        map.remove(name);
    }
    map
}

/// Whether a field may stand behind a body: none that frames, routes, authenticates or decides how
/// a message is handled (RFC 9110 section 6.5.1), and none by which the gateway tells who calls,
/// as some receivers merge trailers into the headers.
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    const NEVER: [&str; 41] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "proxy",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "referer",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-real-ip",
    ];
    const NEVER_BEGIN: [&str; 7] = [
        "x-forwarded-",
        "x-consumer-",
        "x-credential-",
        "x-authenticated-",
        "x-anonymous-consumer",
        "x-kong-",
        "sec-",
    ];
    let name = name.as_str();
    !NEVER.contains(&name) && !NEVER_BEGIN.iter().any(|start| name.starts_with(start))
}

/// The end of a chunked body with these trailers.
pub(crate) fn write(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        super::write::line(out, name.as_str(), &[value.as_bytes()]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kept_unless_they_must_not_trail() {
        let mut trailers = None;
        for (line, is_field) in [
            ("X-Sum: abc ", true),
            ("x-sum:2", true),
            ("Content-Length: 5", true),
            ("X-Consumer-Username: root", true),
            ("X-Forwarded-For: 1.2.3.4", true),
            ("no colon", false),
            (": no name", false),
            ("a b: 1", false),
            ("A : 1", false),
            ("A: \u{7f}", false),
        ] {
            assert_eq!(note(line.as_bytes(), &mut trailers), is_field, "{line:?}");
        }
        let kept = trailers.unwrap();
        assert_eq!(kept.len(), 2);
        let mut out = BytesMut::new();
        write(&mut out, Some(&kept));
        assert_eq!(&out[..], b"0\r\nx-sum: abc\r\nx-sum: 2\r\n\r\n");
        let mut out = BytesMut::new();
        write(&mut out, None);
        assert_eq!(&out[..], b"0\r\n\r\n");
    }

    #[test]
    fn there_are_only_so_many() {
        let mut trailers = None;
        let taken = (0..1000)
            .take_while(|_| note(b"A: 1", &mut trailers))
            .count();
        assert_eq!(taken, FIELDS_MAX);
    }
}
