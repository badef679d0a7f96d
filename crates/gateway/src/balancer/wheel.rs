//! Weighted round-robin: exactly proportional over one turn, spread evenly within it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Places on a wheel; weights whose turn would be longer are scaled down to fit.
const PLACES_MAX: u64 = 100_000;

/// Items that come round as often as their weights say.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    items: Vec<T>,
    places: Vec<u32>,
    at: AtomicUsize,
}

impl<T> Wheel<T> {
    /// A wheel of the items whose weight is above 0.
    pub(crate) fn new(weighted: Vec<(T, u16)>) -> Wheel<T> {
        let weighted: Vec<_> = weighted
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .collect();
        let weights: Vec<_> = weighted
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .collect();
        Wheel {
            places: places(&weights),
            items: weighted.into_iter().map(|(item, _)| item).collect(),
            at: AtomicUsize::new(0),
        }
    }

    /// The next item; `None` if the wheel is empty.
    pub(crate) fn next(&self) -> Option<&T> {
        if self.places.is_empty() {
            return None;
        }
        let at = self.at.fetch_add(1, Ordering::Relaxed) % self.places.len();
        Some(&self.items[self.places[at] as usize])
    }
}

/// One turn: each item as often as its share, its occurrences evenly spaced.
fn places(weights: &[u64]) -> Vec<u32> {
    let gcd = weights.iter().copied().fold(0, gcd).max(1);
    let total: u64 = weights.iter().map(|weight| weight / gcd).sum();
    let scale = total.div_ceil(PLACES_MAX).max(1);
    let counts = weights.iter().map(|weight| (weight / gcd / scale).max(1));
    let mut spots: Vec<(f64, u32)> = Vec::new();
    for (item, count) in counts.enumerate() {
        let step = 1.0 / count as f64;
        spots.extend((0..count).map(|n| ((n as f64 + 0.5) * step, item as u32)));
    }
    spots.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    spots.into_iter().map(|(_, item)| item).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weights: &[u16], turn: &str) {
        let names = "abcdef".chars();
        let wheel = Wheel::new(names.zip(weights.iter().copied()).collect());
        let one: String = (0..turn.len()).filter_map(|_| wheel.next()).collect();
        assert_eq!(one, turn);
    }

    #[test]
    fn a_turn_is_proportional_and_spread() {
        check(&[100, 100, 100], "abcabc");
        check(&[200, 100], "abaaba");
        check(&[50, 10], "aaabaa");
        check(&[0, 7], "bbb");
        check(&[0, 0], "");
        check(&[], "");
    }

    #[test]
    fn awkward_weights_stay_bounded() {
        let wheel = Wheel::new((0..1_000u32).map(|n| (n, 65_535 - n as u16)).collect());
        assert!(wheel.places.len() as u64 <= PLACES_MAX + 1_000);
    }
}
