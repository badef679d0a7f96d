//! Tokens: random text, of which only the SHA-256 is kept.

use sha2::{Digest, Sha256};

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// What the store knows of a token.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Whose a token is, which the start of its text tells: scanners for leaked secrets look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// `kpat_`
    Person,
    /// `spat_`
    SystemAccount,
}

/// A fresh access token: its prefix and 50 random letters and digits.
pub(crate) fn new_token(prefix: Prefix) -> Result<String, getrandom::Error> {
    let prefix = match prefix {
        Prefix::Person => "kpat_",
        Prefix::SystemAccount => "spat_",
    };
    Ok(format!("{prefix}{}", random_text(50)?))
}

/// Random letters and digits.
pub(crate) fn random_text(length: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes)?;
        // Bytes from 248 on would favour the first letters.
        let fair = bytes
            .iter()
            .filter(|byte| **byte < 248)
            .take(length - text.len());
        text.extend(fair.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_plain_and_different() {
        let fresh = || new_token(Prefix::Person).unwrap();
        let (a, b) = (fresh(), fresh());
        assert_ne!(a, b);
        assert_eq!(a.len(), 55);
        assert!(
            a.strip_prefix("kpat_")
                .unwrap()
                .bytes()
                .all(|byte| LETTERS.contains(&byte))
        );
        let other = new_token(Prefix::SystemAccount).unwrap();
        assert!(other.starts_with("spat_") && other.len() == 55);
        assert_eq!(random_text(200).unwrap().len(), 200);
    }

    #[test]
    fn the_digest_is_sha256() {
        assert_eq!(digest("")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
