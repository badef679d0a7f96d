//! The ring of consistent hashing: a key stays with its address while others come and go.
//!
//! Each address has points on the ring in proportion to its weight; a key belongs to the first
//! point at or below its own. Points and hash are Kong's, so that a mixed fleet agrees.
//! Source: data-plane reference 5.1.

use super::xxh32::xxh32;

/// Places of a ring whose `slots` are fewer.
const PLACES_MIN: u32 = 1_000;
/// Points of an address if all weigh the same.
const POINTS: f64 = 160.0;
/// A place without a point.
const NOBODY: u32 = u32::MAX;

/// What an address needs to have points.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The target's host as configured, and its port: the order of nodes decides collisions.
    pub(crate) target: (Box<str>, u16),
    /// As text, IPv6 in brackets.
    pub(crate) ip: String,
    pub(crate) port: u16,
    pub(crate) weight: u32,
}

/// A ring of places, some of which are points of an address.
#[derive(Debug)]
pub(crate) struct Continuum {
    places: Vec<u32>,
}

impl Continuum {
    /// The ring of these nodes, which belong to so many targets.
    pub(crate) fn new(nodes: &[Node], targets: usize, slots: u32) -> Continuum {
        let size = match slots >= PLACES_MIN {
            true => slots as usize,
            false => PLACES_MIN as usize,
        };
        let mut places = vec![NOBODY; size];
        let total: f64 = nodes.iter().map(|node| f64::from(node.weight)).sum();
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        let key = |at: &usize| {
            let node = &nodes[*at];
            (&node.target, format!("{}:{}", node.ip, node.port))
        };
        order.sort_by(|a, b| key(a).cmp(&key(b)));
        for at in order {
            let node = &nodes[at];
            if node.weight == 0 {
                continue;
            }
            let share = f64::from(node.weight) / total * targets as f64 * POINTS;
            let mut points = (share as usize).max(1);
            let mut point = 1;
            while point <= points && point <= size {
                let text = format!("{}::{} {point}", node.ip, node.port);
                let place = xxh32(text.as_bytes()) as usize % size;
                match places[place] {
                    NOBODY => places[place] = at as u32,
                    _ => points += 1, // taken: one more try
                }
                point += 1;
            }
        }
        Continuum { places }
    }

    /// The node of a key: the first at or below it that will do; each is asked for at most once a
    /// round.
    pub(crate) fn find(&self, hash: u32, mut will_do: impl FnMut(usize) -> bool) -> Option<usize> {
        let size = self.places.len();
        let start = hash as usize % size;
        let mut refused = NOBODY;
        (0..size).find_map(|step| {
            let node = self.places[(start + size - step) % size];
            if node == NOBODY || node == refused {
                return None;
            }
            if will_do(node as usize) {
                return Some(node as usize);
            }
            refused = node;
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(weights: &[(u8, u32)]) -> Vec<Node> {
        let node = |(last, weight): &(u8, u32)| Node {
            target: (format!("10.0.0.{last}").into(), 8000),
            ip: format!("10.0.0.{last}"),
            port: 8000,
            weight: *weight,
        };
        weights.iter().map(node).collect()
    }

    /// Which node's last number each of many keys belongs to.
    fn owners(nodes: &[Node], keys: u32) -> Vec<String> {
        let ring = Continuum::new(nodes, nodes.len(), 10_000);
        (0..keys)
            .map(|key| {
                let hash = xxh32(format!("key {key}").as_bytes());
                nodes[ring.find(hash, |_| true).unwrap()].ip.clone()
            })
            .collect()
    }

    fn share_of(owners: &[String], ip: &str) -> f64 {
        owners.iter().filter(|owner| *owner == ip).count() as f64 / owners.len() as f64
    }

    #[test]
    fn shares_follow_the_weights() {
        let owners = owners(&nodes(&[(1, 100), (2, 100), (3, 200)]), 40_000);
        for (ip, expected) in [("10.0.0.1", 0.25), ("10.0.0.2", 0.25), ("10.0.0.3", 0.5)] {
            let share = share_of(&owners, ip);
            assert!((share - expected).abs() < 0.06, "{ip} has {share}");
        }
    }

    #[test]
    fn a_node_that_comes_takes_its_share_and_moves_little_else() {
        let before = nodes(&[(1, 100), (2, 100), (3, 100), (4, 100)]);
        let mut after = before.clone();
        after.extend(nodes(&[(5, 100)]));
        let (before, after) = (owners(&before, 40_000), owners(&after, 40_000));
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        let moved = moved as f64 / before.len() as f64;
        assert!((0.14..0.26).contains(&moved), "{moved} of the keys moved");
        let astray = before
            .iter()
            .zip(&after)
            .filter(|(a, b)| a != b && *b != "10.0.0.5")
            .count();
        let astray = astray as f64 / before.len() as f64;
        assert!(astray < 0.02, "{astray} moved between old nodes");
    }

    #[test]
    fn the_ring_does_not_depend_on_the_order_of_targets() {
        let mut mixed = nodes(&[(1, 10), (2, 20), (3, 30), (4, 5)]);
        let sorted = owners(&mixed, 5_000);
        mixed.reverse();
        assert_eq!(owners(&mixed, 5_000), sorted);
    }

    #[test]
    fn keys_of_a_node_that_will_not_do_go_to_others_and_the_rest_stays() {
        let nodes = nodes(&[(1, 100), (2, 100), (3, 100)]);
        let ring = Continuum::new(&nodes, 3, 10_000);
        for key in 0..5_000u32 {
            let hash = xxh32(&key.to_le_bytes());
            let first = ring.find(hash, |_| true).unwrap();
            let second = ring.find(hash, |node| node != 0).unwrap();
            assert_eq!(second == first, first != 0);
        }
        assert_eq!(ring.find(7, |_| false), None);
    }

    #[test]
    fn odd_rings_are_survived() {
        assert_eq!(Continuum::new(&[], 0, 10).find(1, |_| true), None);
        let zero = nodes(&[(1, 0)]);
        assert_eq!(Continuum::new(&zero, 1, 10).find(1, |_| true), None);
        let tiny = nodes(&[(1, 1), (2, 65_535)]);
        let ring = Continuum::new(&tiny, 2, 10);
        assert_eq!(ring.places.len(), 1_000);
        assert!((0..1_000).any(|hash| ring.find(hash, |_| true) == Some(0)));
        let many: Vec<_> = (0..2_000u32)
            .map(|n| Node {
                target: (format!("t{n}").into(), 1),
                ip: format!("10.0.{}.{}", n / 256, n % 256),
                port: 1,
                weight: 1,
            })
            .collect();
        assert!(
            Continuum::new(&many, 2_000, 1_000)
                .find(0, |_| true)
                .is_some()
        );
    }
}
