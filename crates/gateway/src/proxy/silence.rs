//! Noticing that a connection has been silent for too long, without a timer per message.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::clock::{now, recent};

/// One timer of one connection. It is moved only when it fires too early, or when a shorter limit
/// comes up; that messages come and go costs it nothing.
pub(super) struct Silence {
    timer: Pin<Box<Sleep>>,
    /// When the present silence began, unless bytes moved since.
    moved: Instant,
    /// Whether bytes moved since: then a silence begins with the next look, and until then nobody
    /// asks for the time.
    is_broken: bool,
}

impl Silence {
    pub(super) fn new() -> Silence {
        let now = Instant::now();
        Silence {
            timer: Box::pin(tokio::time::sleep_until(now + Duration::from_secs(60))),
            moved: now,
            is_broken: false,
        }
    }

    /// Bytes moved, or a wait starts.
    pub(super) fn broken(&mut self) {
        self.is_broken = true;
    }

    /// Ready when nothing has moved for `limit`.
    pub(super) fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.is_broken) {
            self.moved = recent();
        }
        let deadline = self.moved + limit;
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
