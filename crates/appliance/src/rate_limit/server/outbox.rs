//! Answers that come from elsewhere, on their way to a connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sallyport_wire::rate_limit::Body;
use tokio::sync::Notify;

use super::owned::OwnedRequest;
use crate::rate_limit::cluster::Why;

/// Encoded answers for one connection, and how many are still to come.
#[derive(Default)]
pub(in crate::rate_limit) struct Outbox {
    bytes: Mutex<Vec<u8>>,
    back: Mutex<Vec<(OwnedRequest, Why)>>,
    /// WAITs whose tokens are taken elsewhere, milliseconds until they are there, their answers.
    later: Mutex<Vec<(OwnedRequest, u64, Body)>>,
    owed: AtomicUsize,
    ready: Notify,
}

impl Outbox {
    /// One answer more is to come.
    pub(in crate::rate_limit) fn owe(&self) {
        self.owed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many answers are to come.
    pub(super) fn owed(&self) -> usize {
        self.owed.load(Ordering::Relaxed)
    }

    /// An answer has come; `write` appends it, or nothing if none was wanted.
    pub(in crate::rate_limit) fn pay(&self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes());
        self.owed.fetch_sub(1, Ordering::Relaxed);
        self.ready.notify_one();
    }

    /// A request comes back without an answer.
    pub(in crate::rate_limit) fn give_back(&self, request: OwnedRequest, why: Why) {
        let back = self.back.lock();
        back.unwrap_or_else(PoisonError::into_inner)
            .push((request, why));
        self.owed.fetch_sub(1, Ordering::Relaxed);
        self.ready.notify_one();
    }

    /// A WAIT's tokens are taken; it is to be answered so in `ms`.
    pub(in crate::rate_limit) fn later(&self, request: OwnedRequest, ms: u64, body: Body) {
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        later.push((request, ms, body));
        self.owed.fetch_sub(1, Ordering::Relaxed);
        self.ready.notify_one();
    }

    /// The WAITs whose tokens are taken.
    pub(super) fn waits(&self) -> Vec<(OwnedRequest, u64, Body)> {
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut later)
    }

    /// The requests that have come back.
    pub(super) fn back(&self) -> Vec<(OwnedRequest, Why)> {
        let mut back = self.back.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut back)
    }

    /// Moves what has come to the end of `out`.
    pub(super) fn drain(&self, out: &mut Vec<u8>) {
        out.append(&mut self.bytes());
    }

    /// Waits until something has come since the last wait. May be dropped while waiting.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        // Answers are appended whole or by a panicking encoder, which would end this anyway.
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
