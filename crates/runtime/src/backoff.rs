//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// The first pause after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The pause after so many failures: its bound begins with a second and doubles up to `max`; the
/// pause lies between half of the bound and the bound, by `dice`, so that many do not come back at
/// once.
pub fn pause(failures: u32, dice: u16, max: Duration) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let bound = doubled.min(max);
    bound / 2 + bound / 2 * u32::from(dice) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_differ() {
        let max = Duration::from_secs(300);
        let secs = |failures, dice| pause(failures, dice, max).as_secs_f64();
        assert_eq!((secs(1, 0), secs(1, u16::MAX)), (0.5, 1.0));
        assert_eq!((secs(4, 0), secs(4, u16::MAX)), (4.0, 8.0));
        assert_eq!((secs(40, 0), secs(u32::MAX, u16::MAX)), (150.0, 300.0));
    }
}
