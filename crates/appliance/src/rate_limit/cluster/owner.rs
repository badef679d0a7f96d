//! Which node a key belongs to: rendezvous hashing, the same on all nodes.
//!
//! Each node gets a score for the key and the highest one owns it. A node that goes away gives up
//! its own keys only; nobody else's key moves.

/// FNV-1a, with a round of mixing at the end: stable between builds and machines.
fn hash(parts: [&[u8]; 2]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // a name's end is not the next one's beginning
        hash = (hash ^ 0x1ff).wrapping_mul(0x0100_0000_01b3);
    }
    mix(hash)
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What a node is known by in scores.
pub(super) fn seed(node: &str) -> u64 {
    hash([b"node", node.as_bytes()])
}

/// What a bucket is known by in scores.
pub(super) fn of_key(bucket: &[u8], key: &[u8]) -> u64 {
    hash([bucket, key])
}

/// The position of the owner among the seeds of living nodes; `None` if there are none.
pub(super) fn owner(seeds: impl Iterator<Item = (usize, u64)>, key: u64) -> Option<usize> {
    seeds
        .max_by_key(|(at, seed)| (mix(seed ^ key), *at))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [&str; 3] = ["a", "b", "c"];

    fn of(key: &str, alive: &[usize]) -> usize {
        let seeds = alive.iter().map(|at| (*at, seed(NODES[*at])));
        owner(seeds, of_key(b"ip", key.as_bytes())).unwrap()
    }

    #[test]
    fn only_the_keys_of_who_goes_move() {
        let mut owned = [0; 3];
        for n in 0..3_000 {
            let key = format!("10.0.0.{n}");
            let all = of(&key, &[0, 1, 2]);
            owned[all] += 1;
            for gone in 0..3 {
                let left: Vec<_> = (0..3).filter(|at| *at != gone).collect();
                let then = of(&key, &left);
                assert!(then == all || all == gone, "{key}");
            }
        }
        assert!(
            owned.iter().all(|keys| (800..1_200).contains(keys)),
            "{owned:?}"
        );
    }

    #[test]
    fn every_build_says_the_same() {
        let found: Vec<_> = ["alice", "bob", "carol", ""]
            .map(|key| of(key, &[0, 1, 2]))
            .into();
        assert_eq!(found, EVERY_BUILD);
        assert_ne!(of_key(b"ab", b"c"), of_key(b"a", b"bc"));
    }

    /// Nodes of different builds count together, so these never change.
    const EVERY_BUILD: [usize; 4] = [0, 1, 1, 0];
}
