//! Ids of requests.

use std::cell::Cell;

use http::HeaderValue;

/// Ids of one worker's requests: 32 lower-case hexadecimal digits, the first half the worker's own.
pub(super) struct RequestIds {
    prefix: [u8; 16],
    state: Cell<u64>,
}

impl RequestIds {
    /// Ids that follow from random numbers.
    pub(super) fn new(seed: [u64; 2]) -> RequestIds {
        RequestIds {
            prefix: hex(seed[1]),
            state: Cell::new(seed[0]),
        }
    }

    /// The next one. Source of the mixing: splitmix64.
    pub(super) fn next(&self) -> HeaderValue {
        let next = self.state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let mut text = [0; 32];
        text[..16].copy_from_slice(&self.prefix);
        text[16..].copy_from_slice(&hex(mixed ^ (mixed >> 31)));
        HeaderValue::from_bytes(&text).expect("hex digits are a header value")
    }
}

fn hex(number: u64) -> [u8; 16] {
    // all sixteen digits at once: one in each byte, then from its value to its letter
    let spread = |half: u32| {
        let bits = u64::from(half);
        let bits = (bits | (bits << 16)) & 0x0000_FFFF_0000_FFFF;
        let bits = (bits | (bits << 8)) & 0x00FF_00FF_00FF_00FF;
        let digits = (bits | (bits << 4)) & 0x0F0F_0F0F_0F0F_0F0F;
        let letters = ((digits + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
        (digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
    };
    let mut text = [0; 16];
    text[..8].copy_from_slice(&spread((number >> 32) as u32));
    text[8..].copy_from_slice(&spread(number as u32));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_begin_alike_and_differ() {
        let ids = RequestIds::new([1, 0xfe]);
        let (one, two) = (ids.next(), ids.next());
        assert_ne!(one, two);
        for id in [one, two] {
            let text = id.to_str().unwrap();
            assert_eq!(text.len(), 32);
            assert!(text.starts_with("00000000000000fe"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn digits_are_those_of_the_formatter(number: u64) {
            let text = hex(number);
            prop_assert_eq!(std::str::from_utf8(&text).unwrap(), format!("{number:016x}"));
        }
    }
}
