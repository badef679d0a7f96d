//! The lines of one core on their way to a file.

use std::cell::RefCell;
use std::time::Duration;

use tokio::sync::Notify;

use super::access::{Access, Line};

/// A buffer that has this many bytes is handed in, bytes.
const BUFFER_BYTES: usize = 32 * 1024;
/// How long a line may wait for company.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Lines that are not handed in yet.
pub(crate) struct Lines {
    access: Access,
    buffer: RefCell<Vec<u8>>,
    first: Notify,
}

impl Lines {
    pub(crate) fn new(access: Access) -> Lines {
        Lines {
            access,
            buffer: RefCell::new(Vec::with_capacity(BUFFER_BYTES + 1024)),
            first: Notify::new(),
        }
    }

    /// Adds a line.
    pub(crate) fn add(&self, line: &Line<'_>) {
        self.append(|buffer| line.write(buffer, self.access.format));
    }

    /// Adds what `write` writes: a line with its line feed.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            self.first.notify_one();
        }
        write(&mut buffer);
        if buffer.len() >= BUFFER_BYTES {
            drop(buffer);
            self.hand_in();
        }
    }

    /// Hands in what is there.
    pub(crate) fn hand_in(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if !buffer.is_empty() {
            let room = Vec::with_capacity(BUFFER_BYTES + 1024);
            self.access.sink.write(std::mem::replace(&mut buffer, room));
        }
    }

    /// Waits for a line and then a little for more, and hands them in. May be dropped any time,
    /// if somebody else hands in now and then.
    pub(crate) async fn hand_in_soon(&self) {
        self.first.notified().await;
        tokio::time::sleep(WAIT_MAX).await;
        self.hand_in();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_in();
    }
}
