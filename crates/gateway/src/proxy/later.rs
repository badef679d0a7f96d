//! What plugins do with the body of a response: before its head is sent, and once it went through.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use sallyport_plugins::{BodyUse, Fields, ResponseHead};

use super::flight::Flight;
use super::serve::{Answer, AnswerBody};
use super::upstream::SendError;
use super::worker::Worker;

/// What plugins still do while a response goes to the client.
pub(crate) struct Later {
    /// Its log phase comes last.
    flight: Flight,
    /// Handlers that get a copy of the body, and the most bytes that they take.
    copies: Vec<(u32, u64)>,
    /// The body so far; `None` once it is larger than any of them takes.
    copy: Option<BytesMut>,
}

impl Later {
    /// Nothing but the log phase.
    pub(super) fn of(flight: Flight) -> Later {
        Later {
            flight,
            copies: Vec::new(),
            copy: None,
        }
    }

    /// The head is about to be sent; it has this many bytes.
    pub(super) fn head(&mut self, headers: Fields, bytes: usize) {
        self.flight.head(headers, bytes);
    }

    /// So many bytes went to the client, head and body.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.flight.sent(bytes);
    }

    /// So many more bytes went to the client.
    pub(super) fn sent_more(&mut self, bytes: usize) {
        self.flight.sent_more(bytes);
    }

    /// So many more bytes of the request came after the head of its response.
    pub(super) fn uploaded(&mut self, bytes: u64) {
        let body_bytes = &self.flight.tally.body_bytes;
        body_bytes.set(body_bytes.get() + bytes);
    }

    /// A part of the body went to the client.
    pub(crate) fn data(&mut self, part: &[u8]) {
        if self.copy.is_none() {
            return;
        }
        let most = self.copies.iter().map(|copy| copy.1).max().unwrap_or(0);
        if let Some(copy) = &mut self.copy {
            if (copy.len() + part.len()) as u64 <= most {
                copy.extend_from_slice(part);
            } else {
                self.copy = None;
            }
        }
    }

    /// All of the body is here. Told before its last part goes out, so that whoever has the whole
    /// response can rely on it.
    pub(crate) fn whole(&mut self) {
        let Some(copy) = self.copy.take().map(BytesMut::freeze) else {
            return;
        };
        for &(handler, bytes_max) in &self.copies {
            if copy.len() as u64 <= bytes_max {
                let Flight {
                    configuration,
                    exchange,
                    ..
                } = &mut self.flight;
                let handler = configuration.handlers.get(handler);
                handler.body_copied(exchange, copy.clone());
            }
        }
    }
}

/// A response that a plugin waited for and that did not come whole.
pub(super) struct Broken {
    pub(super) error: SendError,
    pub(super) flight: Box<Flight>,
}

/// Lets the chosen handlers have the body of a response, once all headers are filtered.
///
/// # Errors
/// The upstream broke off while the body was read.
pub(super) async fn filter_body(
    worker: &Worker,
    mut flight: Flight,
    answer: &mut Answer,
) -> Result<(), Broken> {
    let no_body = flight.exchange.request.method == Method::HEAD
        || matches!(
            answer.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let mut copies = Vec::new();
    for at in 0..flight.chosen.len() {
        let Flight {
            exchange,
            configuration,
            chosen,
            ..
        } = &mut flight;
        let index = chosen[at];
        let handler = configuration.handlers.get(index);
        if !handler.filters_bodies() {
            continue;
        }
        let mut head = ResponseHead {
            status: &mut answer.status,
            headers: &mut answer.headers,
        };
        match handler.body_use(exchange, &head) {
            BodyUse::Pass => {}
            BodyUse::Copy(bytes_max) => copies.push((index, bytes_max)),
            BodyUse::Drop => {
                head.headers.remove(&http::header::CONTENT_LENGTH);
                answer.body = AnswerBody::Full(Bytes::new());
            }
            BodyUse::Replace(_) if no_body => {}
            BodyUse::Replace(bytes_max) => {
                let held = hold(worker, &mut answer.body, bytes_max).await;
                let held = match held {
                    Ok(held) => held,
                    Err(error) => {
                        return Err(Broken {
                            error,
                            flight: Box::new(flight),
                        });
                    }
                };
                if let Some(body) = held {
                    let body = handler.replace_body(exchange, &mut head, body);
                    head.headers.remove(&http::header::CONTENT_LENGTH);
                    answer.body = AnswerBody::Full(body);
                }
            }
        }
    }
    let copied = !copies.is_empty();
    if copied || flight.is_logged() {
        answer.later = Some(Box::new(Later {
            flight,
            copies,
            copy: copied.then(BytesMut::new),
        }));
    }
    Ok(())
}

/// The whole body, unless it has more than these bytes; then it stays where it is.
async fn hold(
    worker: &Worker,
    body: &mut AnswerBody,
    bytes_max: u64,
) -> Result<Option<Bytes>, SendError> {
    let upstream = match body {
        AnswerBody::Full(bytes) => {
            return Ok((bytes.len() as u64 <= bytes_max).then(|| bytes.clone()));
        }
        AnswerBody::Upstream(upstream, _) => upstream,
        // a stream may never end
        AnswerBody::Tunnel(_) | AnswerBody::Call(..) => return Ok(None),
    };
    let mut held = BytesMut::new();
    loop {
        let read = |cx: &mut std::task::Context<'_>| {
            upstream.poll_body(cx).map_ok(|data| {
                held.extend_from_slice(data);
                data.len()
            })
        };
        let bytes = poll_fn(read).await?;
        upstream.consumed(bytes);
        if held.len() as u64 > bytes_max {
            upstream.give_back(held.freeze());
            return Ok(None);
        }
        if bytes == 0 || upstream.is_over() {
            break;
        }
    }
    let held = held.freeze();
    let read = std::mem::replace(body, AnswerBody::Full(held.clone()));
    if let AnswerBody::Upstream(upstream, _) = read {
        worker.pool.put(upstream);
    }
    Ok(Some(held))
}
