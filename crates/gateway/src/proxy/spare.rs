//! Buffers that no connection needs at the moment.
//!
//! A connection that waits for its next request holds none: thousands of them would be memory
//! for nothing. What is used again at once is also still in the core's cache.

use std::cell::RefCell;

use bytes::BytesMut;

/// How many are kept; those of more connections at once go back to the allocator.
const KEPT_MAX: usize = 64;
/// A buffer that has grown beyond this is not kept, bytes.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// The spare buffers of one worker.
#[derive(Default)]
pub(super) struct Spare(RefCell<Vec<BytesMut>>);

impl Spare {
    /// Puts a buffer in the place of one without memory.
    pub(super) fn lend(&self, buffer: &mut BytesMut) {
        if buffer.capacity() == 0
            && let Some(spare) = self.0.borrow_mut().pop()
        {
            *buffer = spare;
        }
    }

    /// Takes a buffer that holds nothing back, and leaves one without memory.
    pub(super) fn take_back(&self, buffer: &mut BytesMut) {
        debug_assert!(buffer.is_empty(), "nothing is thrown away here");
        if buffer.capacity() == 0 {
            return;
        }
        let buffer = std::mem::take(buffer);
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX && buffer.capacity() <= KEPT_BYTES_MAX {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_round_and_few_are_kept() {
        let spare = Spare::default();
        let mut buffer = BytesMut::new();
        spare.lend(&mut buffer);
        assert_eq!(buffer.capacity(), 0, "there is none yet");
        buffer.reserve(1_000);
        let memory = buffer.as_ptr();
        spare.take_back(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        spare.lend(&mut buffer);
        assert_eq!(buffer.as_ptr(), memory);
        let mut large = BytesMut::with_capacity(KEPT_BYTES_MAX + 1);
        spare.take_back(&mut large);
        for _ in 0..KEPT_MAX + 9 {
            spare.take_back(&mut BytesMut::with_capacity(10));
        }
        assert_eq!(spare.0.borrow().len(), KEPT_MAX);
        assert!(spare.0.borrow().iter().all(|b| b.capacity() < 1_000));
    }
}
