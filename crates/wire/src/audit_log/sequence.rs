//! Sequence numbers of datagrams: which are missing.
//!
//! RFC 5424 section 7.3.1: `sequenceId` in the element `meta` starts at 1, grows by one with each
//! message of a sender and goes from 2147483647 back to 1.

use std::collections::HashMap;
use std::hash::Hash;

/// The largest sequence number; 1 follows.
pub const SEQUENCE_MAX: u32 = 2_147_483_647;

/// What a sequence number says about those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first of this sender.
    First,
    /// The one after the last.
    Next,
    /// Numbers `from..=to` did not come before it.
    Gap {
        /// The first missing number.
        from: u32,
        /// The last missing number.
        to: u32,
    },
    /// A number at or before the last one: late, or sent twice.
    Late,
    /// The sender began again at 1.
    Restart,
}

/// The last sequence number of each sender, of a bounded number of senders.
#[derive(Debug)]
pub struct Sequences<K> {
    last: HashMap<K, (u32, u64)>,
    senders_max: usize,
    clock: u64,
}

impl<K: Clone + Eq + Hash> Sequences<K> {
    /// Remembers at most `senders_max` senders; the one unheard for longest is forgotten.
    pub fn new(senders_max: usize) -> Sequences<K> {
        Sequences {
            last: HashMap::new(),
            senders_max: senders_max.max(1),
            clock: 0,
        }
    }

    /// Takes note of a sender's number (1..=[`SEQUENCE_MAX`]).
    pub fn step(&mut self, sender: &K, number: u32) -> Step {
        self.clock += 1;
        let clock = self.clock;
        let Some((last, heard)) = self.last.get_mut(sender) else {
            if self.last.len() >= self.senders_max {
                let oldest = self.last.iter().min_by_key(|(_, (_, heard))| *heard);
                if let Some(oldest) = oldest.map(|(sender, _)| sender.clone()) {
                    self.last.remove(&oldest);
                }
            }
            self.last.insert(sender.clone(), (number, clock));
            return Step::First;
        };
        *heard = clock;
        let next = if *last >= SEQUENCE_MAX { 1 } else { *last + 1 };
        let step = match number {
            number if number == next => Step::Next,
            1 => Step::Restart,
            number if number <= *last => return Step::Late,
            number => Step::Gap {
                from: next,
                to: number - 1,
            },
        };
        *last = number;
        step
    }
}
