//! How many requests a token may send: a bucket for each token, filled by time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// Buckets held at once; beyond, those that are full again are forgotten.
const BUCKETS_MAX: usize = 10_000;

/// The buckets of all tokens.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Requests a second; 0 is no limit.
    per_second: u32,
    buckets: Mutex<HashMap<Uuid, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a request.
    left: i64,
    at_ms: i64,
}

impl Limits {
    /// `per_second` requests a second, twice as many at once; 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Limits {
        Limits {
            per_second,
            buckets: Mutex::default(),
        }
    }

    /// Takes one request out of a token's bucket; if it is empty, how many seconds to wait.
    pub(crate) fn admit(&self, token: Uuid, now_ms: i64) -> Result<(), u64> {
        let rate = i64::from(self.per_second);
        if rate == 0 {
            return Ok(());
        }
        let full = rate * 2_000;
        let now_in = |bucket: &Bucket| {
            let passed = now_ms.saturating_sub(bucket.at_ms).max(0);
            bucket
                .left
                .saturating_add(passed.saturating_mul(rate))
                .min(full)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&token) {
            buckets.retain(|_, bucket| now_in(bucket) < full);
        }
        let before = buckets.get(&token).map_or(full, now_in);
        let admitted = before >= 1_000;
        let left = if admitted { before - 1_000 } else { before };
        let at_ms = now_ms;
        buckets.insert(token, Bucket { left, at_ms });
        if admitted { Ok(()) } else { Err(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let limits = Limits::new(2);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for _ in 0..4 {
            assert_eq!(limits.admit(one, 1_000), Ok(()));
        }
        assert_eq!(limits.admit(one, 1_000), Err(1));
        assert_eq!(limits.admit(other, 1_000), Ok(()));
        assert_eq!(limits.admit(one, 1_500), Ok(()));
        assert_eq!(limits.admit(one, 1_500), Err(1));
        assert_eq!(
            limits.admit(one, 0),
            Err(1),
            "a clock that goes back gives nothing"
        );
        for _ in 0..4 {
            assert_eq!(limits.admit(one, i64::MAX), Ok(()));
        }
        assert_eq!(Limits::new(0).admit(one, 0), Ok(()));
    }
}
