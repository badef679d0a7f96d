//! How long an address takes to answer, as a moving average that fades: pure, packed in a number.
//!
//! Source: data-plane reference 5.1; Kong's `latency` algorithm decays over 10 s.

/// Over which time an old value fades to 1/e, seconds.
const DECAY_SECS: f32 = 10.0;
/// A step of the clock, milliseconds: with 32 bits it runs for two years and then starts over,
/// which makes one old value look young.
const STEP_MS: u64 = 16;

/// The average of an address, milliseconds, and when it was last touched.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Average {
    ms: f32,
    touched: u32,
}

impl Average {
    /// An average to start from, such as that of the others: a newcomer is not flooded.
    pub(crate) fn starting(ms: f32, now_ms: u64) -> Average {
        Average {
            ms,
            touched: step(now_ms),
        }
    }

    /// The average with one more value.
    pub(crate) fn with(self, took_ms: f32, now_ms: u64) -> Average {
        let weight = self.weight(now_ms);
        Average {
            ms: self.ms * weight + took_ms * (1.0 - weight),
            touched: step(now_ms),
        }
    }

    /// With a failure that took this long: it never makes an address look faster.
    pub(crate) fn with_failure(self, took_ms: f32, now_ms: u64) -> Average {
        self.with(took_ms.max(self.ms), now_ms)
    }

    /// The average as it counts now, milliseconds: it fades while nothing is heard, so that a
    /// slow address gets another chance.
    pub(crate) fn now(self, now_ms: u64) -> f32 {
        self.ms * self.weight(now_ms)
    }

    /// How much the value so far counts, 0..=1; not at all if there is none.
    fn weight(self, now_ms: u64) -> f32 {
        if self == Average::default() {
            return 0.0;
        }
        let steps = step(now_ms).wrapping_sub(self.touched);
        // clocks of two cores may differ by a moment
        let steps = if steps > u32::MAX / 2 { 0 } else { steps };
        (-(steps as f32 * STEP_MS as f32 / 1_000.0) / DECAY_SECS).exp()
    }

    /// As one number, to be kept in an atomic.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.ms.to_bits()) << 32 | u64::from(self.touched)
    }

    /// Back from [`pack`](Average::pack).
    pub(crate) fn unpack(packed: u64) -> Average {
        Average {
            ms: f32::from_bits((packed >> 32) as u32),
            touched: packed as u32,
        }
    }
}

fn step(now_ms: u64) -> u32 {
    (now_ms / STEP_MS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: f32, expected: f32) {
        assert!((found - expected).abs() < 0.2, "{found} is not {expected}");
    }

    #[test]
    fn values_count_more_the_longer_nothing_was_heard() {
        let average = Average::starting(100.0, 0);
        check(average.with(0.0, 0).now(0), 100.0);
        check(average.with(0.0, 10_000).now(10_000), 100.0 / 1f32.exp());
        check(average.with(200.0, 1_000_000).now(1_000_000), 200.0);
        let other = average.with(50.0, 5_000);
        check(
            other.now(5_000),
            100.0 * (-0.5f32).exp() + 50.0 * (1.0 - (-0.5f32).exp()),
        );
        assert_eq!(Average::unpack(other.pack()), other);
    }

    #[test]
    fn the_first_value_counts_in_full() {
        check(Average::default().with(80.0, 40).now(40), 80.0);
        check(Average::default().now(40), 0.0);
    }

    #[test]
    fn an_average_fades_and_a_failure_does_not_improve_it() {
        let average = Average::starting(100.0, 0);
        check(average.now(20_000), 100.0 * (-2f32).exp());
        check(average.with_failure(1.0, 10_000).now(10_000), 100.0);
        check(average.with_failure(900.0, 1_000_000).now(1_000_000), 900.0);
        check(average.now(0), 100.0);
    }

    #[test]
    fn a_clock_that_is_a_moment_behind_does_no_harm() {
        let average = Average::starting(100.0, 1_000);
        check(average.now(900), 100.0);
    }
}
