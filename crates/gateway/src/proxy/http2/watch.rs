//! What can be seen of an HTTP/2 connection from outside of hyper, and what follows from it.
//!
//! hyper bounds what a client sends; that a client says nothing, or takes nothing, it leaves to us.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::answer::Reading;
use crate::conf::ClientLimits;
use crate::proxy::clock::{now, recent};

/// The preface with the head of the SETTINGS frame that belongs to it, bytes.
const PREFACE_BYTES: u64 = 24 + 9;

/// So many bodies are kept in sight before those that are over are sorted out; more than there can
/// be at once.
const READINGS_MAX: usize = 2 * super::STREAMS_MAX as usize;

/// What is seen of one connection.
pub(super) struct Watch {
    began: Instant,
    /// Bytes that came.
    read: Cell<u64>,
    /// Requests under way.
    active: Cell<usize>,
    /// When the latest of them ended.
    idle_since: Cell<Instant>,
    readings: RefCell<Vec<Weak<Reading>>>,
}

/// What has to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// It never became HTTP/2.
    Silent,
    /// Nobody asked for anything for a long time.
    Idle,
}

impl Watch {
    pub(super) fn new() -> Rc<Watch> {
        let now = now();
        Rc::new(Watch {
            began: now,
            read: Cell::new(0),
            active: Cell::new(0),
            idle_since: Cell::new(now),
            readings: RefCell::default(),
        })
    }

    /// How often to look: often enough for limits as short as these.
    pub(super) fn interval(limits: &ClientLimits) -> Duration {
        let shortest = limits.head.min(limits.idle).min(limits.send);
        (shortest / 4).clamp(Duration::from_millis(50), Duration::from_secs(10))
    }

    /// Looks at everything; bodies that the client does not take are let go.
    pub(super) fn look(&self, limits: &ClientLimits) -> Verdict {
        let now = now();
        self.readings.borrow_mut().retain(|reading| {
            let reading = reading.upgrade();
            if let Some(reading) = &reading {
                reading.give_up_after(limits.send, now);
            }
            reading.is_some()
        });
        if self.read.get() < PREFACE_BYTES && now - self.began >= limits.head {
            Verdict::Silent
        } else if self.active.get() == 0 && now - self.idle_since.get() >= limits.idle {
            Verdict::Idle
        } else {
            Verdict::Fine
        }
    }

    /// Watches a body too.
    pub(super) fn reads(&self, reading: &Rc<Reading>) {
        let mut readings = self.readings.borrow_mut();
        // between two looks many may come and go
        if readings.len() >= READINGS_MAX {
            readings.retain(|reading| reading.strong_count() > 0);
        }
        readings.push(Rc::downgrade(reading));
    }
}

/// A request under way, until this is dropped.
pub(super) struct Active(Rc<Watch>);

impl Active {
    pub(super) fn new(watch: &Rc<Watch>) -> Active {
        watch.active.set(watch.active.get() + 1);
        Active(watch.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.idle_since.set(recent());
    }
}

/// A stream whose bytes are counted.
pub(super) struct Counted<S> {
    pub(super) stream: S,
    pub(super) watch: Rc<Watch>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        self.watch.read.set(self.watch.read.get() + read);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ClientLimits {
        ClientLimits {
            head: Duration::from_secs(60),
            body: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            send: Duration::from_secs(60),
            requests: 10_000,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_idleness_are_told_apart() {
        let watch = Watch::new();
        let pass = |secs| tokio::time::advance(Duration::from_secs(secs));
        assert_eq!(watch.look(&limits()), Verdict::Fine);
        pass(61).await;
        assert_eq!(watch.look(&limits()), Verdict::Silent);
        watch.read.set(100);
        assert_eq!(watch.look(&limits()), Verdict::Fine);
        let active = Active::new(&watch);
        pass(1000).await;
        assert_eq!(watch.look(&limits()), Verdict::Fine);
        drop(active);
        pass(74).await;
        assert_eq!(watch.look(&limits()), Verdict::Fine);
        pass(2).await;
        assert_eq!(watch.look(&limits()), Verdict::Idle);
    }

    #[test]
    fn looks_are_as_frequent_as_limits_are_short() {
        assert_eq!(Watch::interval(&limits()), Duration::from_secs(10));
        let short = ClientLimits {
            send: Duration::from_millis(400),
            ..limits()
        };
        assert_eq!(Watch::interval(&short), Duration::from_millis(100));
    }
}
