//! At most ten calls a second of each endpoint.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const CALLS_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Calls in the current second, by endpoint. Endpoints are few and known.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<&'static str, (Instant, u32)>);

impl Calls {
    /// Counts a call; `false` if there were too many.
    pub(super) fn admit(&mut self, endpoint: &'static str, now: Instant) -> bool {
        let (began, count) = self.0.entry(endpoint).or_insert((now, 0));
        if now.duration_since(*began) >= WINDOW {
            (*began, *count) = (now, 0);
        }
        *count += 1;
        *count <= CALLS_MAX
    }
}

#[test]
fn the_eleventh_call_of_a_second_is_refused_for_that_endpoint_only() {
    let (mut calls, now) = (Calls::default(), Instant::now());
    for _ in 0..10 {
        assert!(calls.admit("cpu", now));
    }
    assert!(!calls.admit("cpu", now + Duration::from_millis(999)));
    assert!(calls.admit("disk", now));
    assert!(calls.admit("cpu", now + Duration::from_secs(1)));
}
