//! The head of an HTTP/1 response.

/// Longest head that is read, in bytes.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Status line and the headers that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status, 100..=999.
    pub status: u16,
    /// The reason in the status line, printable part.
    pub reason: String,
    /// Unix seconds of `Date`.
    pub date: Option<i64>,
    /// squid's own word for what went wrong, such as `ERR_ACCESS_DENIED 0`.
    pub squid_error: Option<String>,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// `ETag`, as sent.
    pub etag: Option<String>,
    /// Whether the body comes in chunks.
    pub chunked: bool,
    /// Bytes of the head with its empty line.
    pub bytes: usize,
}

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole head.
    Head(Head),
    /// Perhaps the beginning of one.
    Partial,
    /// Not HTTP.
    NotHttp,
}

/// Reads the head at the beginning of `bytes`.
pub fn head(bytes: &[u8]) -> Parsed {
    let sign = b"HTTP/1.";
    let common = bytes.len().min(sign.len());
    if bytes[..common] != sign[..common] {
        return Parsed::NotHttp;
    }
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n");
    let Some(end) = end.filter(|end| *end <= HEAD_BYTES_MAX) else {
        return if bytes.len() > HEAD_BYTES_MAX {
            Parsed::NotHttp
        } else {
            Parsed::Partial
        };
    };
    let text = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ').skip(1);
    let status = words
        .next()
        .and_then(|it| it.parse().ok())
        .filter(|it| (100..=999).contains(it));
    let Some(status) = status else {
        return Parsed::NotHttp;
    };
    let reason = super::printable(words.next().unwrap_or_default().as_bytes());
    let mut head = Head {
        status,
        reason,
        bytes: end + 4,
        ..Head::default()
    };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "date" => {
                let date = jiff::fmt::rfc2822::parse(value);
                head.date = date.ok().map(|date| date.timestamp().as_second());
            }
            "x-squid-error" => head.squid_error = Some(super::printable(value.as_bytes())),
            "content-length" => head.content_length = value.parse().ok(),
            "etag" => head.etag = Some(value.to_owned()),
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    Parsed::Head(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_head() {
        let text = b"HTTP/1.1 403 Forbidden\r\nDate: Sun, 22 Nov 2026 11:00:00 GMT\r\n\
                     X-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 3\r\n\r\nabc";
        let Parsed::Head(head) = head(text) else {
            panic!("whole")
        };
        assert_eq!((head.status, head.reason.as_str()), (403, "Forbidden"));
        assert_eq!(head.date, Some(1_795_345_200));
        assert_eq!(head.squid_error.as_deref(), Some("ERR_ACCESS_DENIED 0"));
        assert_eq!(
            (head.content_length, &text[head.bytes..]),
            (Some(3), &b"abc"[..])
        );
    }

    #[test]
    fn tells_partial_from_foreign() {
        assert_eq!(head(b""), Parsed::Partial);
        assert_eq!(head(b"HTT"), Parsed::Partial);
        assert_eq!(head(b"HTTP/1.1 200 OK\r\n"), Parsed::Partial);
        assert_eq!(head(b"SSH-2.0"), Parsed::NotHttp);
        assert_eq!(head(b"HTTP/1.1 abc\r\n\r\n"), Parsed::NotHttp);
        let endless = [&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'a'; HEAD_BYTES_MAX + 10]].concat();
        assert_eq!(head(&endless), Parsed::NotHttp);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn hostile_bytes_never_panic(tail: Vec<u8>, text in "(HTTP/1.1 [0-9]{1,5} )?\\PC{0,80}") {
            let bytes = [text.as_bytes(), &tail, b"\r\n\r\n"].concat();
            let _ = head(&bytes);
            let _ = head(&tail);
        }
    }
}
