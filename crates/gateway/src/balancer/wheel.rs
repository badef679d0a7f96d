//! Weighted round-robin: exactly proportional over one turn, spread evenly within it.

/// Places on a wheel; weights whose turn would be longer are scaled down to fit.
const PLACES_MAX: u64 = 100_000;

/// Numbers from 0 that come round as often as their weights say.
#[derive(Debug)]
pub(crate) struct Wheel {
    places: Vec<u32>,
}

impl Wheel {
    /// A wheel of as many items as there are weights; a weight of 0 has no place.
    pub(crate) fn new(weights: impl Iterator<Item = u32>) -> Wheel {
        let weights: Vec<_> = weights.map(u64::from).collect();
        Wheel {
            places: places(&weights),
        }
    }

    /// The item of a turn, or the next one within `steps` that will do.
    pub(crate) fn find(
        &self,
        turn: u32,
        steps: usize,
        will_do: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let size = self.places.len();
        let start = (turn as usize).checked_rem(size)?;
        (0..size.min(steps))
            .map(|step| {
                let at = start + step;
                self.places[if at < size { at } else { at - size }] as usize
            })
            .find(|item| will_do(*item))
    }
}

/// One turn: each item as often as its share, its occurrences evenly spaced.
fn places(weights: &[u64]) -> Vec<u32> {
    let gcd = weights.iter().copied().fold(0, gcd).max(1);
    let total: u64 = weights.iter().map(|weight| weight / gcd).sum();
    let scale = total.div_ceil(PLACES_MAX).max(1);
    let mut spots: Vec<(f64, u32)> = Vec::new();
    for (item, weight) in weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
    {
        let count = (weight / gcd / scale).max(1);
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
    fn check(weights: &[u32], without: &str, turn: &str) {
        let wheel = Wheel::new(weights.iter().copied());
        let name = |item: usize| b"abcdef"[item] as char;
        let one: String = (0..turn.len() as u32)
            .filter_map(|n| wheel.find(n, 100, |item| !without.contains(name(item))))
            .map(name)
            .collect();
        assert_eq!(one, turn);
    }

    #[test]
    fn a_turn_is_proportional_and_spread() {
        check(&[100, 100, 100], "", "abcabc");
        check(&[200, 100], "", "abaaba");
        check(&[50, 10], "", "aaabaa");
        check(&[0, 7], "", "bbb");
        check(&[0, 0], "", "");
        check(&[], "", "");
    }

    #[test]
    fn items_that_will_not_do_are_passed_over() {
        check(&[100, 100, 100], "b", "accacc");
        check(&[100, 100], "ab", "");
    }

    #[test]
    fn awkward_weights_stay_bounded() {
        let wheel = Wheel::new((0..1_000).map(|n| 65_535 - n));
        assert!(wheel.places.len() as u64 <= PLACES_MAX + 1_000);
    }

    proptest::proptest! {
        #[test]
        fn every_turn_gives_each_its_share(weights in proptest::collection::vec(0u32..20, 0..8)) {
            let wheel = Wheel::new(weights.iter().copied());
            let mut counts = vec![0u64; weights.len()];
            for turn in 0..wheel.places.len() {
                counts[wheel.find(turn as u32, 1, |_| true).unwrap()] += 1;
            }
            let gcd = weights.iter().map(|w| u64::from(*w)).fold(0, gcd).max(1);
            for (count, weight) in counts.iter().zip(&weights) {
                proptest::prop_assert_eq!(count * gcd, u64::from(*weight));
            }
        }
    }
}
