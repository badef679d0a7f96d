//! What the fuzz targets see of the private parsers. Not an interface: it changes with them.

use bytes::{Buf, Bytes, BytesMut};

use sallyport_model::entities::PathHandling;

use crate::last_known_good::{FormatError, Saved, format};
use crate::proxy::http1::framing::{Body, Length, Step};
use crate::proxy::http1::head::{take_request, take_response};
use crate::proxy::http1::trailers;
use crate::router;

/// A request head as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The request target as sent, without a fragment.
    pub target: String,
    /// 0 or 1: the second part of the version.
    pub minor: u8,
    /// The header lines that are kept, in the order of their map.
    pub headers: Vec<(String, Bytes)>,
    /// Bytes of body; `None` for chunks.
    pub length: Option<u64>,
    /// Whether the connection is kept.
    pub keep_alive: bool,
    /// Whether `100 Continue` is waited for.
    pub expects_continue: bool,
    /// Bytes that follow the head.
    pub left: Vec<u8>,
}

/// A request head at the front of `bytes`; `None` if more is needed.
///
/// # Errors
/// What is wrong with it, as text.
pub fn request_head(bytes: &[u8]) -> Result<Option<Request>, String> {
    let mut buffer = BytesMut::from(bytes);
    let head = take_request(&mut buffer).map_err(|error| format!("{error:?}"))?;
    Ok(head.map(|head| Request {
        method: head.request.method.to_string(),
        target: head.request.uri.to_string(),
        minor: u8::from(head.request.version == http::Version::HTTP_11),
        headers: lines(&head.request.headers),
        length: exact(head.length),
        keep_alive: head.keep_alive,
        expects_continue: head.expects_continue,
        left: buffer.to_vec(),
    }))
}

/// A response head as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The header lines that are kept, in order.
    pub headers: Vec<(String, Bytes)>,
    /// Bytes of body; `None` for anything but a known number.
    pub length: Option<u64>,
    /// Whether the body ends with the connection.
    pub until_close: bool,
    /// Whether the connection is kept.
    pub keep_alive: bool,
    /// Bytes that follow the head.
    pub left: Vec<u8>,
}

/// A response head at the front of `bytes`; `None` if more is needed.
///
/// # Errors
/// What is wrong with it, as text.
pub fn response_head(bytes: &[u8]) -> Result<Option<Response>, String> {
    let mut buffer = BytesMut::from(bytes);
    let head = take_response(&mut buffer).map_err(|error| format!("{error:?}"))?;
    Ok(head.map(|head| Response {
        status: head.status.as_u16(),
        headers: lines(&head.headers),
        length: exact(head.length),
        until_close: head.length == Length::UntilClose,
        keep_alive: head.keep_alive,
        left: buffer.to_vec(),
    }))
}

fn lines(lines: &sallyport_plugins::Fields) -> Vec<(String, Bytes)> {
    lines
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), Bytes::copy_from_slice(value)))
        .collect()
}

fn exact(length: Length) -> Option<u64> {
    match length {
        Length::Exact(bytes) => Some(bytes),
        Length::Chunked | Length::UntilClose => None,
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At its end.
    Over,
    /// Bytes are missing.
    More,
    /// It is not a body.
    Bad,
}

/// Reads a chunked body that arrives in pieces: its data with its trailers behind it, how it ended,
/// and what follows it.
pub fn chunked<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, End, Vec<u8>) {
    let mut pieces = pieces.into_iter();
    let (mut body, mut buffer) = (Body::new(Length::Chunked), BytesMut::new());
    let mut data = Vec::new();
    let end = loop {
        match body.step(&mut buffer) {
            Step::Data(bytes) => {
                data.extend_from_slice(&buffer.split_to(bytes));
                body.consumed(bytes);
            }
            Step::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => break End::More,
            },
            Step::End => break End::Over,
            Step::Bad => break End::Bad,
        }
    };
    pieces.for_each(|piece| buffer.extend_from_slice(piece));
    if let Some(trailers) = body.take_trailers() {
        let mut written = BytesMut::new();
        trailers::write(&mut written, Some(&trailers));
        data.extend_from_slice(&written);
    }
    (data, end, buffer.to_vec())
}

/// The end of a chunked body as it goes on, with its trailers; `None` if the body is not whole.
pub fn trailers(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut body, mut buffer) = (Body::new(Length::Chunked), BytesMut::from(bytes));
    loop {
        match body.step(&mut buffer) {
            Step::Data(bytes) => {
                buffer.advance(bytes);
                body.consumed(bytes);
            }
            Step::More | Step::Bad => return None,
            Step::End => break,
        }
    }
    let mut written = BytesMut::new();
    trailers::write(&mut written, body.take_trailers().as_deref());
    Some(written.to_vec())
}

/// The normal form of a request path.
pub fn normalise(path: &str) -> String {
    router::normalise(path).into_owned()
}

/// The path to send upstream.
pub fn upstream_path(base: &str, path: &str, matched: usize, strip: bool) -> String {
    router::upstream_path(PathHandling::V0, base, path, matched, strip)
}

/// The bytes of a last-known-good file.
pub fn encode_last_known_good(saved: &Saved) -> Vec<u8> {
    format::encode(saved)
}

/// What a last-known-good file holds.
///
/// # Errors
/// See [`FormatError`].
pub fn decode_last_known_good(bytes: &[u8]) -> Result<Saved, FormatError> {
    format::decode(bytes)
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// More must come.
    Incomplete,
    /// A whole first message of TLS, with the name asked for.
    Whole(Option<String>),
    /// Anything else.
    Foreign,
}

/// Reads the first message of a TLS client.
pub fn tls_hello(bytes: &[u8]) -> Hello {
    use crate::proxy::stream::hello;
    match hello::read(bytes) {
        hello::Hello::Incomplete => Hello::Incomplete,
        hello::Hello::Whole { name } => Hello::Whole(name),
        hello::Hello::Foreign => Hello::Foreign,
    }
}
