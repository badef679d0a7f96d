//! Whose turn it is: each worker counts for itself, so that turns cost no shared write.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers that are in use, so that the counts of a worker stay in one small array.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots(Arc<Mutex<Free>>);

#[derive(Debug, Default)]
struct Free {
    given_back: Vec<u32>,
    next: u32,
}

/// The number of one thing that takes turns, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u32,
    slots: Slots,
}

impl Slots {
    /// A number that nobody else has now.
    pub(crate) fn take(&self) -> Slot {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = free.given_back.pop().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        });
        Slot {
            number,
            slots: self.clone(),
        }
    }
}

impl Slot {
    /// Unlike that of any other slot that lives.
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut free = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.given_back.push(self.number);
    }
}

/// The counts of one worker.
#[derive(Debug)]
pub(crate) struct Cursors {
    counts: RefCell<Vec<u32>>,
    random: Cell<u64>,
}

impl Cursors {
    /// Counts that start anywhere: workers must not begin with the same target.
    pub(crate) fn new(seed: u64) -> Cursors {
        Cursors {
            counts: RefCell::default(),
            random: Cell::new(seed),
        }
    }

    /// The next count of a slot.
    pub(crate) fn next(&self, slot: &Slot) -> u32 {
        let at = slot.number as usize;
        let mut counts = self.counts.borrow_mut();
        if at >= counts.len() {
            let more = at + 1 - counts.len();
            counts.extend((0..more).map(|_| self.random() as u32));
        }
        counts[at] = counts[at].wrapping_add(1);
        counts[at]
    }

    /// A number nobody can foresee without knowing the seed; not for secrets.
    pub(crate) fn random(&self) -> u64 {
        let mut state = self.random.get();
        let random = random(&mut state);
        self.random.set(state);
        random
    }
}

/// The next number of splitmix64.
pub(super) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_up_by_one_and_numbers_come_back() {
        let slots = Slots::default();
        let (a, b) = (slots.take(), slots.take());
        let cursors = Cursors::new(1);
        let first = cursors.next(&b);
        assert_eq!(cursors.next(&b), first.wrapping_add(1));
        assert_ne!(cursors.next(&a), first.wrapping_add(2));
        assert_eq!((a.number, b.number), (0, 1));
        drop(a);
        assert_eq!(slots.take().number, 0);
    }
}
