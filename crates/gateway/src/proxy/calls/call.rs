//! One call: its request, and the response while it is read.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body::Frame;
use sallyport_plugins::Fields;
use tokio::task::JoinSet;
use tracing::debug;

use super::Chosen;
use super::connections::Seat;
use super::send::Sending;
use crate::balancer::Lease;
use crate::proxy::body::{BodySource, HeldBody};
use crate::proxy::http1::framing::Length;
use crate::proxy::http1::head::HeadError;
use crate::proxy::http1::trailers;
use crate::proxy::silence::Silence;
use crate::proxy::upstream::{INTERIM_MAX, Limits, SendError};

/// The request of a call.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) scheme: &'a Scheme,
    /// Host, with a port where it is not the usual one.
    pub(crate) authority: &'a [u8],
    /// Path and query.
    pub(crate) target: &'a str,
    /// Header lines, each as `name: value\r\n`.
    pub(crate) lines: &'a [u8],
}

impl Asked<'_> {
    fn request(&self) -> Option<Request<()>> {
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority)
            .path_and_query(PathAndQuery::try_from(self.target).ok()?)
            .build()
            .ok()?;
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = headers(self.lines)?;
        Some(request)
    }
}

/// Header lines without those that only HTTP/1 has.
fn headers(lines: &[u8]) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(24);
    for line in lines.split(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\r") else {
            continue;
        };
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        if ![HOST, CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(&name) {
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            map.append(name, value);
        }
    }
    Some(map)
}

/// The response of a call while it is read.
pub(crate) struct Call {
    response: RecvStream,
    /// All data has come; trailers may follow.
    data_over: bool,
    over: bool,
    /// Sends what the client still says; ends with the call.
    rest: Option<Rest>,
    silence: Silence,
    silence_max: Duration,
    _seat: Seat,
    /// Held until the response is over, where that counts.
    pub(crate) lease: Option<Lease>,
}

/// The rest of a request that is still sent while its response comes.
struct Rest {
    _task: JoinSet<()>,
    /// Whether something moved since somebody looked.
    moved: Rc<Cell<bool>>,
    /// Bytes that it took from the client.
    taken: Rc<Cell<u64>>,
}

/// Head of a response, and the rest of it.
pub(crate) struct Started {
    pub(crate) status: StatusCode,
    pub(crate) headers: Fields,
    pub(crate) length: Length,
    pub(crate) call: Box<Call>,
}

/// Sends a request, as far as the head of its response needs it; the rest goes on beside it.
///
/// `taken` becomes true when a part of the body is taken: then it may not be sent again.
pub(crate) async fn start(
    Chosen {
        mut sender, seat, ..
    }: Chosen,
    asked: &Asked<'_>,
    source: &mut HeldBody<'_>,
    taken: &mut bool,
    limits: Limits,
) -> Result<Started, SendError> {
    let request = asked.request().ok_or(SendError::Untellable)?;
    let nothing_follows = source.length() == Length::Exact(0);
    let (mut response, stream) = sender
        .send_request(request, nothing_follows)
        .map_err(SendError::Http2)?;
    let mut sending = Sending::new(stream, limits.body_bytes_max, nothing_follows);
    let mut silence = Silence::new();
    let mut interim = 0;
    let head = poll_fn(|cx| {
        if !sending.is_over()
            && let Poll::Ready(Err(error)) = sending.poll(source, &mut || silence.broken(), cx)
        {
            return Poll::Ready(Err(error));
        }
        *taken |= sending.taken > 0;
        if let Poll::Ready(head) = Pin::new(&mut response).poll(cx) {
            return Poll::Ready(head.map_err(SendError::Http2));
        }
        // they only show that somebody is there
        while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
            silence.broken();
            interim += 1;
            if interim > INTERIM_MAX {
                return Poll::Ready(Err(SendError::NotHttp(HeadError::TooLarge)));
            }
        }
        if sending.is_over() && source.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(SendError::ClientLeft));
        }
        let limit = match sending.is_stuck() {
            true => limits.write,
            false => limits.read,
        };
        silence.poll(limit, cx).map(|()| Err(SendError::Timeout))
    })
    .await?;
    let (mut head, response) = head.into_parts();
    for name in ["keep-alive", "proxy-connection"] {
        head.headers.remove(name); // h2 refuses the others
    }
    let length = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let length = match response.is_end_stream() {
        true => Length::Exact(0),
        false => length.map_or(Length::Chunked, Length::Exact),
    };
    let mut rest = None;
    if !sending.is_over() && !response.is_end_stream() {
        match source.detach() {
            Some(body) => rest = Some(Rest::new(sending, body, limits.write)),
            // an HTTP/1 client speaks first
            None => poll_fn(|cx| sending.poll(source, &mut || {}, cx)).await?,
        }
    }
    let over = response.is_end_stream();
    Ok(Started {
        status: head.status,
        headers: Fields::from(&head.headers),
        length,
        call: Box::new(Call {
            response,
            data_over: over,
            over,
            rest,
            silence,
            silence_max: limits.read,
            _seat: seat,
            lease: None,
        }),
    })
}

impl Rest {
    fn new(mut sending: Sending, mut body: Box<dyn BodySource>, write_max: Duration) -> Rest {
        let moved = Rc::new(Cell::new(false));
        let taken = Rc::new(Cell::new(0));
        let (seen, counted) = (moved.clone(), taken.clone());
        let before = sending.taken;
        let mut task = JoinSet::new();
        task.spawn_local(async move {
            let mut silence = Silence::new();
            let sent = poll_fn(|cx| {
                let mut notes = || {
                    seen.set(true);
                    silence.broken();
                };
                let polled = sending.poll(&mut *body, &mut notes, cx);
                counted.set(sending.taken - before);
                match polled {
                    Poll::Pending if sending.is_stuck() => silence
                        .poll(write_max, cx)
                        .map(|()| Err(SendError::Timeout)),
                    polled => polled,
                }
            })
            .await;
            if let Err(reason) = sent {
                debug!(%reason, "the rest of a call was not sent");
            }
        });
        Rest {
            _task: task,
            moved,
            taken,
        }
    }
}

impl Call {
    /// Whether nothing follows.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes that came from the client after the head of the response.
    pub(crate) fn taken(&self) -> u64 {
        self.rest.as_ref().map_or(0, |rest| rest.taken.get())
    }

    /// The next part of the response, the trailers last; `None` at the end.
    ///
    /// Nothing for as long as the service's `read_timeout`, from either side, is an error.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        while !self.over {
            if !self.data_over {
                match self.response.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        self.silence.broken();
                        _ = self.response.flow_control().release_capacity(data.len());
                        self.data_over = self.response.is_end_stream();
                        self.over = self.data_over;
                        if data.is_empty() {
                            continue;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Poll::Ready(Some(Err(error))) => {
                        self.over = true;
                        return Poll::Ready(Some(Err(SendError::Http2(error))));
                    }
                    Poll::Ready(None) => self.data_over = true,
                    Poll::Pending => return self.poll_silence(cx),
                }
                continue;
            }
            match self.response.poll_trailers(cx) {
                Poll::Pending => return self.poll_silence(cx),
                Poll::Ready(trailers) => {
                    self.over = true;
                    match trailers {
                        Ok(None) => {}
                        Ok(Some(map)) => {
                            let map = trailers::checked(map);
                            return Poll::Ready(Some(Ok(Frame::trailers(map))));
                        }
                        Err(error) => return Poll::Ready(Some(Err(SendError::Http2(error)))),
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    fn poll_silence<T>(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, SendError>>> {
        loop {
            if let Some(rest) = &self.rest
                && rest.moved.take()
            {
                self.silence.broken();
            }
            std::task::ready!(self.silence.poll(self.silence_max, cx));
            // what the client says is no silence
            if self.rest.as_ref().is_none_or(|rest| !rest.moved.get()) {
                self.over = true;
                return Poll::Ready(Some(Err(SendError::Timeout)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_become_fields() {
        let lines = b"host: a\r\ncontent-type: application/grpc\r\nTE: trailers\r\n\
                      connection: keep-alive\r\ntransfer-encoding: chunked\r\nx: 1\r\nx: 2\r\n";
        let map = headers(lines).unwrap();
        let names: Vec<_> = map
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(map["te"], "trailers");
        assert!(headers(b"\r\n").is_none());
        let asked = |authority, target| Asked {
            method: &Method::POST,
            scheme: &Scheme::HTTP,
            authority,
            target,
            lines: b"",
        };
        let request = asked(b"[::1]:50051", "/a.B/C").request().unwrap();
        assert_eq!(request.uri(), "http://[::1]:50051/a.B/C");
        assert!(asked(b"a b", "/").request().is_none());
    }
}
