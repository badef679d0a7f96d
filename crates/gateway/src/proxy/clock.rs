//! The time, asked for once for everything that happens at about the same moment.

use std::cell::Cell;

use tokio::time::Instant;

thread_local! {
    static LATEST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time.
pub(super) fn now() -> Instant {
    let now = Instant::now();
    LATEST.set(Some(now));
    now
}

/// The time when this worker last asked for it: at the head of a request, at that of a response,
/// on each tick. Good enough for limits of many seconds.
pub(super) fn recent() -> Instant {
    LATEST.get().unwrap_or_else(now)
}
