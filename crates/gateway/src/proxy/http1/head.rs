//! Heads of requests and responses, out of bytes.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, Method, StatusCode, Uri, Version};
use sallyport_plugins::{Fields, Request};

use super::framing::Length;
use super::h2c;

/// Largest head, bytes: four buffers of 8 KiB, as Kong's nginx has.
pub(crate) const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most header lines of a message.
const HEADERS_MAX: usize = 128;

/// A request head.
pub(crate) struct RequestHead {
    pub(crate) request: Request,
    pub(crate) length: Length,
    /// Whether the client keeps the connection open for another request.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// A response head, without what concerns only the upstream connection.
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: Fields,
    /// As the head says; the method of the request may overrule it.
    pub(crate) length: Length,
    /// Whether the upstream keeps the connection open for another request, once the body is over.
    pub(crate) keep_alive: bool,
}

/// Why bytes are not a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// Not HTTP, or HTTP that could be read in two ways.
    Bad,
    /// The head, or one of its parts, is too large.
    TooLarge,
    /// The request line is too large.
    UriTooLong,
    /// A transfer coding other than `chunked`.
    UnknownCoding,
    /// An expectation other than `100-continue`.
    UnknownExpectation,
}

/// Takes a request head from the front of `buffer`; `None` if it is not complete yet.
///
/// # Errors
/// See [`HeadError`]; the connection cannot be used any more then.
pub(crate) fn take_request(buffer: &mut BytesMut) -> Result<Option<RequestHead>, HeadError> {
    skip_blank_lines(buffer);
    // left as they are: clearing room for every line costs more than parsing a usual head
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let status = request
        .parse_with_uninit_headers(buffer, &mut lines)
        .map_err(refusal)?;
    let httparse::Status::Complete(head_bytes) = status else {
        return incomplete(buffer);
    };
    if has_bare_line_feed(&buffer[..head_bytes]) {
        return Err(HeadError::Bad);
    }
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes())
        .map_err(|_| HeadError::Bad)?;
    let version = version(request.version);
    let uri = uri(&method, request.path.unwrap_or_default())?;
    let mut facts = Facts::default();
    let mut headers = Fields::of_head(&buffer[..head_bytes], request.headers.len(), 8);
    let mut hosts = 0;
    let mut expects_continue = false;
    for line in request.headers.iter() {
        let (name, value) = (line.name.as_bytes(), line.value);
        // the body is framed anew for the upstream, but that it has a length matters even if that
        // is 0
        if facts.note(name, value)? == Note::Coding {
            continue;
        }
        if is(name, b"host") {
            if !is_host(value) {
                return Err(HeadError::Bad);
            }
            hosts += 1;
        } else if is(name, b"expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(HeadError::UnknownExpectation);
            }
            expects_continue = true;
            continue;
        }
        note(&mut headers, buffer, line);
    }
    if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) {
        return Err(HeadError::Bad);
    }
    if version == Version::HTTP_10 && facts.chunked {
        return Err(HeadError::Bad);
    }
    if uri.authority().is_some() && method != Method::CONNECT && !agrees(&uri, headers.get(&HOST)) {
        return Err(HeadError::Bad);
    }
    if !h2c::is_well_offered(&headers) {
        return Err(HeadError::Bad);
    }
    let length = match (facts.chunked, facts.length) {
        (true, Some(_)) => return Err(HeadError::Bad),
        (true, None) => Length::Chunked,
        (false, length) => Length::Exact(length.unwrap_or(0)),
    };
    buffer.advance(head_bytes);
    let keep_alive = facts.keeps_alive(version);
    let expects_continue = expects_continue && version == Version::HTTP_11;
    let request = Request {
        method,
        uri,
        version,
        headers,
    };
    Ok(Some(RequestHead {
        request,
        length,
        keep_alive,
        expects_continue,
    }))
}

/// Takes a response head from the front of `buffer`; `None` if it is not complete yet.
///
/// Headers that concern only the connection are left out: those of RFC 9110 section 7.6.1 and
/// those that `Connection` lists.
///
/// # Errors
/// See [`HeadError`]; the connection cannot be used any more then.
pub(crate) fn take_response(buffer: &mut BytesMut) -> Result<Option<ResponseHead>, HeadError> {
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, buffer, &mut lines)
        .map_err(refusal)?;
    let httparse::Status::Complete(head_bytes) = status else {
        return incomplete(buffer);
    };
    let code = response.code.unwrap_or_default();
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Bad)?;
    let version = version(response.version);
    let mut facts = Facts::default();
    let mut headers = Fields::of_head(&buffer[..head_bytes], response.headers.len(), 16);
    for line in response.headers.iter() {
        let name = line.name.as_bytes();
        match facts.note(name, line.value)? {
            Note::Coding | Note::Connection => {}
            Note::Other if is(name, b"upgrade") => {}
            Note::Length | Note::Other => note(&mut headers, buffer, line),
        }
    }
    buffer.advance(head_bytes);
    for name in facts.listed.iter().flatten() {
        headers.remove(name);
    }
    let length = if facts.chunked {
        // RFC 9112 section 6.3: the coding overrules a length, which is not passed on
        headers.remove(&CONTENT_LENGTH);
        Length::Chunked
    } else {
        facts.length.map_or(Length::UntilClose, Length::Exact)
    };
    // RFC 9112 section 6.1: HTTP/1.0 knows no coding, so its end may be somewhere else
    let keep_alive = facts.keeps_alive(version) && !(facts.chunked && version == Version::HTTP_10);
    Ok(Some(ResponseHead {
        status,
        headers,
        length,
        keep_alive,
    }))
}

/// What a head says about its connection and its body.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    /// Headers that `Connection` lists.
    listed: Option<Vec<HeaderName>>,
}

#[derive(PartialEq, Eq)]
enum Note {
    Length,
    Coding,
    Connection,
    Other,
}

impl Facts {
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<Note, HeadError> {
        if !matches!(name.len(), 10 | 14 | 16 | 17) {
            return Ok(Note::Other); // none of those below
        }
        if is(name, b"content-length") {
            let length = decimal(value).ok_or(HeadError::Bad)?;
            if self.length.replace(length).is_some() {
                return Err(HeadError::Bad);
            }
            return Ok(Note::Length);
        }
        // what upstreams behind CGI or WSGI take for the same, and nobody sends in good faith
        if is(name, b"content_length") || is(name, b"transfer_encoding") {
            return Err(HeadError::Bad);
        }
        if is(name, b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadError::UnknownCoding);
            }
            if std::mem::replace(&mut self.chunked, true) {
                return Err(HeadError::Bad);
            }
            return Ok(Note::Coding);
        }
        if is(name, b"connection") {
            self.connection(value);
            return Ok(Note::Connection);
        }
        if is(name, b"keep-alive") || is(name, b"proxy-connection") {
            return Ok(Note::Connection);
        }
        Ok(Note::Other)
    }

    fn connection(&mut self, value: &[u8]) {
        for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if let Ok(name) = HeaderName::from_bytes(token)
                // what the message cannot do without is not its sender's to take away
                && ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name)
            {
                self.listed.get_or_insert_default().push(name);
            }
        }
    }

    fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

/// Digits and nothing else, as RFC 9110 section 8.6 wants a length; `None` if it is none, or one
/// that nobody can count to.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a name is this one, which is in lower case.
fn is(name: &[u8], lower: &[u8]) -> bool {
    name.eq_ignore_ascii_case(lower)
}

/// Makes a line that was parsed out of `buffer` one of `headers`, which has the same text.
fn note(headers: &mut Fields, buffer: &[u8], line: &httparse::Header<'_>) {
    let at = |part: &[u8]| (part.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize);
    let name = at(line.name.as_bytes())..at(line.name.as_bytes()) + line.name.len();
    let value = match line.value {
        [] => name.end..name.end, // an empty part may point anywhere
        value => at(value)..at(value) + value.len(),
    };
    headers.note(name, value);
}

fn refusal(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        _ => HeadError::Bad,
    }
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

fn uri(method: &Method, target: &str) -> Result<Uri, HeadError> {
    let target = Bytes::copy_from_slice(target.as_bytes());
    if target.first() == Some(&b'/') {
        return PathAndQuery::from_maybe_shared(target)
            .map(Uri::from)
            .map_err(|_| HeadError::Bad);
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_| HeadError::Bad)?;
    let allowed = uri.scheme().is_some()
        || (uri.path() == "*" && *method == Method::OPTIONS)
        || *method == Method::CONNECT;
    if allowed {
        Ok(uri)
    } else {
        Err(HeadError::Bad)
    }
}

/// Whether the authority of a target names what `Host` names, if there is one. Two receivers that
/// believe different ones would take the request for two different sites.
pub(crate) fn agrees(uri: &Uri, host: Option<&[u8]>) -> bool {
    let Some(authority) = uri.authority().map(Authority::as_str) else {
        return true;
    };
    let usual = match uri.scheme_str() {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => return false,
    };
    if authority.contains('@') || !is_host(authority.as_bytes()) {
        return false;
    }
    let plain = |host: &'_ [u8]| {
        let host = host.strip_suffix(usual.as_bytes()).unwrap_or(host);
        host.to_ascii_lowercase()
    };
    host.is_none_or(|host| plain(host) == plain(authority.as_bytes()))
}

/// Bytes that a host and its port may have.
const HOST_BYTES: [bool; 256] = {
    let mut allowed = [true; 256];
    let mut byte = 0;
    while byte < 256 {
        allowed[byte] = byte > b' ' as usize && byte < 0x7f;
        byte += 1;
    }
    let others = b"/\\?#@\"<>,";
    let mut at = 0;
    while at < others.len() {
        allowed[others[at] as usize] = false;
        at += 1;
    }
    allowed
};

/// Whether no part of a `Host` could be taken for something else than a host and a port.
pub(crate) fn is_host(value: &[u8]) -> bool {
    !matches!(value, [] | [b':', ..]) && value.iter().all(|&byte| HOST_BYTES[usize::from(byte)])
}

/// Empty lines before a request are ignored (RFC 9112 section 2.2).
fn skip_blank_lines(buffer: &mut BytesMut) {
    while buffer.starts_with(b"\r\n") {
        _ = buffer.split_to(2);
    }
}

/// Whether a line ends without the carriage return that other parsers may insist on.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

fn incomplete<T>(buffer: &[u8]) -> Result<Option<T>, HeadError> {
    if buffer.len() < HEAD_BYTES_MAX {
        Ok(None)
    } else if memchr::memchr(b'\n', &buffer[..HEAD_BYTES_MAX]).is_none() {
        Err(HeadError::UriTooLong)
    } else {
        Err(HeadError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(text: &str) -> Result<Option<RequestHead>, HeadError> {
        take_request(&mut BytesMut::from(text))
    }

    #[track_caller]
    fn refused(text: &str, expected: HeadError) {
        assert_eq!(
            request(text).map(|_| ()).unwrap_err(),
            expected,
            "{text:.80?}"
        );
    }

    #[test]
    fn a_request_is_taken_and_the_rest_stays() {
        let mut buffer = BytesMut::from(
            "\r\nPOST /a?b=1 HTTP/1.1\r\nHost: x\r\nA: 1\r\nA: 2\r\nContent-Length: 3\r\n\r\nabcGET",
        );
        let head = take_request(&mut buffer).unwrap().unwrap();
        assert_eq!(head.request.method, Method::POST);
        assert_eq!(head.request.uri, "/a?b=1");
        assert_eq!(
            head.request
                .headers
                .get_all(&HeaderName::from_static("a"))
                .count(),
            2
        );
        assert_eq!((head.length, head.keep_alive), (Length::Exact(3), true));
        assert_eq!(&buffer[..], b"abcGET");
        assert!(request("GET / HTTP/1.1\r\nHost: x\r\n").unwrap().is_none());
        assert!(request("").unwrap().is_none());
    }

    #[test]
    fn connections_are_kept_as_the_version_says() {
        let keeps = |text: &str| request(text).unwrap().unwrap().keep_alive;
        assert!(keeps("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(!keeps(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n"
        ));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let host = "Host: x\r\n";
        for bad in [
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            format!("GET / HTTP/1.1\r\n{host}{host}\r\n"),
            format!("GET / HTTP/1.1\n{host}\r\n"),
            format!("GET / HTTP/1.1\r\n{host}A: 1\n\r\n"),
            format!("GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 1\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{host}Content-Length: 1, 1\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{host}Content-Length: \r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{host}Content-Length: 99999999999999999999\r\n\r\n"),
            format!(
                "GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            format!(
                "GET / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            format!("GET / HTTP/1.1\r\n{host}A : 1\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{host}A: 1\r\n folded\r\n\r\n"),
            format!("GET / HTTP/2.0\r\n{host}\r\n"),
            format!("GET x HTTP/1.1\r\n{host}\r\n"),
            format!("GET  / HTTP/1.1\r\n{host}\r\n"),
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: :80\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: \u{e4}.test\r\n\r\n".to_owned(),
            format!("GET http://y/ HTTP/1.1\r\n{host}\r\n"),
            format!("GET http://x:81/ HTTP/1.1\r\n{host}\r\n"),
            format!("GET http://u@x/ HTTP/1.1\r\n{host}\r\n"),
            format!("GET ftp://x/ HTTP/1.1\r\n{host}\r\n"),
            format!("GET / HTTP/1.1\r\n{host}Content_Length: 1\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{host}Transfer_Encoding: chunked\r\n\r\n"),
        ] {
            refused(&bad, HeadError::Bad);
        }
        let coding =
            |coding: &str| format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: {coding}\r\n\r\n");
        let expects = format!("GET / HTTP/1.1\r\n{host}Expect: the-best\r\n\r\n");
        refused(&expects, HeadError::UnknownExpectation);
        for good in ["http://x/", "http://X:80/a?b", "https://x:443/"] {
            let text = format!("GET {good} HTTP/1.1\r\n{host}\r\n");
            assert!(request(&text).unwrap().is_some(), "{good}");
        }
        refused(&coding("gzip, chunked"), HeadError::UnknownCoding);
        refused(&coding("chunked\u{b}"), HeadError::Bad);
        refused(
            &format!("GET /{} HTTP/1.1\r\n", "a".repeat(40_000)),
            HeadError::UriTooLong,
        );
        refused(
            &format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(40_000)),
            HeadError::TooLarge,
        );
        let many: String = (0..200).map(|n| format!("a{n}: 1\r\n")).collect();
        refused(
            &format!("GET / HTTP/1.1\r\n{host}{many}\r\n"),
            HeadError::TooLarge,
        );
    }

    #[test]
    fn a_response_loses_what_concerns_the_connection() {
        let mut buffer = BytesMut::from(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
             Transfer-Encoding: chunked\r\nContent-Length: 7\r\nA: 1\r\n\r\n0",
        );
        let head = take_response(&mut buffer).unwrap().unwrap();
        let names: Vec<_> = head.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["A"]);
        assert_eq!((head.length, head.keep_alive), (Length::Chunked, true));
        let close = |text: &str| take_response(&mut BytesMut::from(text)).unwrap().unwrap();
        let until_close = close("HTTP/1.1 200 OK\r\nUpgrade: T\r\n\r\n");
        assert_eq!(until_close.length, Length::UntilClose);
        assert!(until_close.headers.iter().next().is_none());
        let old = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(!close(old).keep_alive);
        assert!(!close("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").keep_alive);
        assert!(take_response(&mut BytesMut::from("SSH-2.0-x\r\n")).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            _ = take_request(&mut BytesMut::from(&bytes[..]));
            _ = take_response(&mut BytesMut::from(&bytes[..]));
            let mut head = BytesMut::from("GET / HTTP/1.1\r\nHost: x\r\n");
            head.extend_from_slice(&bytes);
            head.extend_from_slice(b"\r\n\r\n");
            if let Ok(Some(head)) = take_request(&mut head) {
                // what was parsed is what the rest of the gateway takes for checked
                prop_assert_eq!(head.request.headers.to_map().len(), head.request.headers.len());
            }
        }
    }
}
