//! Response bodies as hyper takes them.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tracing::{error, info};

use super::watch::Active;
use crate::logs::CLIENT_FAULTS;
use crate::proxy::calls::Call;
use crate::proxy::clock::now;
use crate::proxy::http1::framing::Length;
use crate::proxy::later::Later;
use crate::proxy::pool::Pool;
use crate::proxy::upstream::{SendError, Upstream};

/// Where the parts of a body come from.
pub(super) enum Source {
    /// Made by the gateway, or nothing.
    Full(Option<Bytes>),
    /// From an upstream, over HTTP/1.
    Upstream {
        /// `None` once it is back in the pool.
        upstream: Option<Box<Upstream>>,
        length: Length,
        trailers: Option<HeaderMap>,
        pool: Rc<Pool>,
        later: Option<Box<Later>>,
    },
    /// From an upstream, over HTTP/2.
    Call {
        call: Box<Call>,
        length: Length,
        later: Option<Box<Later>>,
    },
    /// Let go, because the client took nothing for this long.
    GivenUp(Duration),
}

/// A body that is sent, as its connection sees it too.
pub(super) struct Reading {
    peer: IpAddr,
    source: RefCell<Source>,
    /// When its latest part was offered; `None` while there is none. HTTP/2 asks for the next
    /// part only when the client has taken the one before.
    offered: Cell<Option<Instant>>,
}

impl Reading {
    pub(super) fn new(source: Source, peer: IpAddr) -> Rc<Reading> {
        let offered = match source {
            Source::Full(_) => None, // costs nobody anything
            _ => Some(now()),
        };
        Rc::new(Reading {
            peer,
            source: RefCell::new(source),
            offered: Cell::new(offered),
        })
    }

    /// Lets the upstream go if the client has taken nothing for `limit`.
    pub(super) fn give_up_after(&self, limit: Duration, now: Instant) {
        let stuck = self
            .offered
            .get()
            .is_some_and(|offered| now.saturating_duration_since(offered) >= limit);
        if stuck {
            self.offered.set(None);
            self.source.replace(Source::GivenUp(limit));
            let (fault, peer, reason) = ("client", self.peer, SendError::ClientStuck(limit));
            info!(target: CLIENT_FAULTS, fault, %peer, %reason, "a response is given up");
        }
    }
}

/// The body of one response.
pub(super) struct AnswerStream {
    reading: Rc<Reading>,
    _active: Active,
}

impl AnswerStream {
    pub(super) fn new(reading: Rc<Reading>, active: Active) -> AnswerStream {
        AnswerStream {
            reading,
            _active: active,
        }
    }
}

impl Body for AnswerStream {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let polled = self.reading.source.borrow_mut().poll_frame(cx);
        self.reading.offered.set(polled.is_ready().then(now));
        match &polled {
            Poll::Ready(Some(Err(SendError::ClientStuck(_)))) => {} // told when it was given up
            Poll::Ready(Some(Err(reason))) => {
                let peer = self.reading.peer;
                error!(fault = "upstream", %reason, %peer, "a response broke off");
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &*self.reading.source.borrow() {
            Source::Full(bytes) => bytes.is_none(),
            Source::Upstream {
                upstream, trailers, ..
            } => trailers.is_none() && upstream.as_ref().is_none_or(|upstream| upstream.is_over()),
            Source::Call { call, .. } => call.is_over(),
            Source::GivenUp(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.reading.source.borrow() {
            Source::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Upstream {
                length: Length::Exact(bytes),
                ..
            }
            | Source::Call {
                length: Length::Exact(bytes),
                ..
            } => SizeHint::with_exact(*bytes),
            _ => SizeHint::default(),
        }
    }
}

impl Source {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        match self {
            Source::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::GivenUp(limit) => Poll::Ready(Some(Err(SendError::ClientStuck(*limit)))),
            Source::Call { call, later, .. } => {
                let polled = call.poll_frame(cx);
                if let (Poll::Ready(Some(Ok(frame))), Some(later)) = (&polled, &mut *later)
                    && let Some(data) = frame.data_ref()
                {
                    later.sent_more(data.len());
                    later.data(data);
                }
                polled
            }
            Source::Upstream {
                upstream,
                trailers,
                pool,
                later,
                ..
            } => {
                let Some(reading) = upstream else {
                    return Poll::Ready(trailers.take().map(|map| Ok(Frame::trailers(map))));
                };
                let polled = reading.poll_data(cx);
                if let (Poll::Ready(Some(Ok(data))), Some(later)) = (&polled, &mut *later) {
                    later.sent_more(data.len());
                    later.data(data);
                }
                if reading.is_over() {
                    if let Some(mut later) = later.take() {
                        later.whole();
                    }
                    let mut over = upstream.take().expect("it was there a line ago");
                    *trailers = over.take_trailers();
                    pool.put(over);
                    if let (Poll::Ready(None), Some(map)) = (&polled, trailers.take()) {
                        return Poll::Ready(Some(Ok(Frame::trailers(map))));
                    }
                }
                polled.map(|data| data.map(|data| data.map(Frame::data)))
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        match self {
            Source::Full(_) | Source::GivenUp(_) => {}
            Source::Call { call, later, .. } => {
                if let Some(mut later) = later.take() {
                    later.uploaded(call.taken());
                    if call.is_over() {
                        later.whole();
                    }
                }
            }
            // hyper does not ask for more of a body that says it is over
            Source::Upstream {
                upstream,
                pool,
                later,
                ..
            } => {
                if let Some(upstream) = upstream.take() {
                    if upstream.is_over()
                        && let Some(mut later) = later.take()
                    {
                        later.whole();
                    }
                    pool.put(upstream);
                }
            }
        }
    }
}
