//! Ids of new traces and spans: random, never zero.

use std::cell::Cell;

use ring::rand::{SecureRandom, SystemRandom};

thread_local! {
    /// Of this core; seeded by the system once.
    static STATE: Cell<Option<[u64; 2]>> = const { Cell::new(None) };
}

/// The id of a new span.
pub(crate) fn span_id() -> u64 {
    loop {
        let id = next();
        if id != 0 {
            return id;
        }
    }
}

/// The id of a new trace, with this many random bytes, 8 or 16.
pub(crate) fn trace_id(bytes: usize) -> u128 {
    let low = u128::from(span_id());
    match bytes {
        8 => low,
        _ => u128::from(next()) << 64 | low,
    }
}

fn next() -> u64 {
    STATE.with(|state| {
        let (number, after) = step(state.get().unwrap_or_else(seed));
        state.set(Some(after));
        number
    })
}

fn seed() -> [u64; 2] {
    let mut bytes = [0; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // ids must differ, not be secret
        bytes = uuid::Uuid::new_v4().into_bytes();
    }
    let both = u128::from_le_bytes(bytes) | 1;
    [both as u64, (both >> 64) as u64]
}

/// xoroshiro128+ (Blackman and Vigna).
fn step([a, b]: [u64; 2]) -> (u64, [u64; 2]) {
    let mixed = a ^ b;
    let after = [
        a.rotate_left(24) ^ mixed ^ (mixed << 16),
        mixed.rotate_left(37),
    ];
    (a.wrapping_add(b), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_have_their_size() {
        let many: std::collections::HashSet<u64> = (0..1000).map(|_| span_id()).collect();
        assert_eq!(many.len(), 1000);
        assert!(trace_id(8) >> 64 == 0);
        assert!((0..4).any(|_| trace_id(16) >> 64 != 0));
        assert_ne!(seed(), seed());
    }
}
