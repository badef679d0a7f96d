//! Memory that goes back to the system once a large piece of work is over.
//!
//! Reading a configuration takes several times the memory of what is kept of it, and an allocator
//! holds on to what a thread has freed until that thread allocates again, which may be never.
//! The executable chooses the allocator, so it also says how to ask it ([`on_idle`]).

use std::sync::OnceLock;

/// Work on less than this leaves little behind, bytes.
const LARGE_BYTES: usize = 256 * 1024;

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Sets how the calling thread's free memory is given back. Only the first call counts; without
/// one, nothing is.
pub fn on_idle(give_back: fn()) {
    _ = GIVE_BACK.set(give_back);
}

/// Gives free memory of this thread back when it is dropped. Made before what the work needs, it
/// is dropped after that.
#[derive(Debug)]
#[must_use = "it acts when it is dropped"]
pub struct Tidy {
    large: bool,
}

impl Tidy {
    /// For work on a text of so many bytes.
    pub fn after(bytes: usize) -> Tidy {
        Tidy {
            large: bytes >= LARGE_BYTES,
        }
    }
}

impl Drop for Tidy {
    fn drop(&mut self) {
        if self.large
            && let Some(give_back) = GIVE_BACK.get()
        {
            give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn only_large_work_is_followed_by_it() {
        static TIMES: AtomicU32 = AtomicU32::new(0);
        on_idle(|| _ = TIMES.fetch_add(1, Ordering::Relaxed));
        drop(Tidy::after(LARGE_BYTES - 1));
        assert_eq!(TIMES.load(Ordering::Relaxed), 0);
        drop(Tidy::after(LARGE_BYTES));
        assert_eq!(TIMES.load(Ordering::Relaxed), 1);
    }
}
