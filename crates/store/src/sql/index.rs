//! What stands in an index for a value that is too long for one.

use std::borrow::Cow;
use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Longest value that is indexed as it is, in bytes. PostgreSQL's indexes end at about 2,700.
pub(crate) const PLAIN_BYTES_MAX: usize = 512;
const HASHED: &str = "sha256:";

/// The value itself, or a digest in its place when it is long or looks like such a digest.
///
/// Equal keys mean equal values, so uniqueness and look-ups hold for values of any length.
pub(crate) fn index_key(value: &str) -> Cow<'_, str> {
    if value.len() <= PLAIN_BYTES_MAX && !value.starts_with(HASHED) {
        return Cow::Borrowed(value);
    }
    let mut key = HASHED.to_owned();
    for byte in Sha256::digest(value.as_bytes()) {
        write!(key, "{byte:02x}").expect("writing into a string never fails");
    }
    Cow::Owned(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_and_look_alikes_are_hashed() {
        assert_eq!(index_key("orders"), "orders");
        let longest = "x".repeat(PLAIN_BYTES_MAX);
        assert_eq!(index_key(&longest), longest);
        let long = index_key(&"x".repeat(PLAIN_BYTES_MAX + 1)).into_owned();
        assert_eq!(long.len(), HASHED.len() + 64);
        // Whoever sends the digest of another's value as a value gets a digest of that.
        assert_ne!(index_key(&long), long);
    }
}
