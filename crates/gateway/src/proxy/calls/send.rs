//! The client's side of a call on its way upstream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};

use crate::proxy::body::{BodySource, ClientGone};
use crate::proxy::http1::trailers;
use crate::proxy::upstream::SendError;

/// What is left to do for the request body of a call.
pub(super) struct Sending {
    stream: SendStream<Bytes>,
    /// What the client sent and the upstream has no room for yet.
    waiting: Bytes,
    /// Bytes that may still come.
    left: u64,
    over: bool,
    /// Bytes taken from the client.
    pub(super) taken: u64,
}

impl Sending {
    pub(super) fn new(stream: SendStream<Bytes>, bytes_max: u64, over: bool) -> Sending {
        Sending {
            stream,
            waiting: Bytes::new(),
            left: bytes_max,
            over,
            taken: 0,
        }
    }

    /// Whether everything is sent, or nobody wants the rest.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether it is the upstream that is waited for.
    pub(super) fn is_stuck(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends what comes; ready once all of it is sent. `moved` is told of every move.
    pub(super) fn poll(
        &mut self,
        source: &mut dyn BodySource,
        moved: &mut dyn FnMut(),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        while !self.over {
            if !self.waiting.is_empty() {
                self.stream.reserve_capacity(self.waiting.len());
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(room)) => {
                        let part = self.waiting.split_to(room.min(self.waiting.len()));
                        if !part.is_empty() {
                            moved();
                            // whoever refuses it says why in the response
                            self.over = self.stream.send_data(part, false).is_err();
                        }
                    }
                    Some(Err(_)) | None => self.over = true,
                }
                continue;
            }
            match source.poll_data(cx) {
                Poll::Pending => {
                    if self.stream.poll_reset(cx).is_ready() {
                        self.over = true;
                        break;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(data))) => {
                    moved();
                    self.taken += data.len() as u64;
                    match self.left.checked_sub(data.len() as u64) {
                        Some(left) => self.left = left,
                        None => return Poll::Ready(Err(self.give_up(SendError::TooLarge))),
                    }
                    self.waiting = data;
                }
                Poll::Ready(Some(Err(ClientGone))) => {
                    return Poll::Ready(Err(self.give_up(SendError::ClientGone)));
                }
                Poll::Ready(None) => {
                    moved();
                    self.over = true;
                    let trailers = source.take_trailers().map(|map| trailers::checked(*map));
                    // as above
                    _ = match trailers.filter(|map| !map.is_empty()) {
                        Some(map) => self.stream.send_trailers(map),
                        None => self.stream.send_data(Bytes::new(), true),
                    };
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn give_up(&mut self, error: SendError) -> SendError {
        self.over = true;
        self.stream.send_reset(Reason::CANCEL);
        error
    }
}
