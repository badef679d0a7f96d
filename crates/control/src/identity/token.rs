//! Tokens: random text, of which only the SHA-256 is kept.

use sha2::{Digest, Sha256};

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// What the store knows of a token.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A fresh personal access token: `kpat_` and 50 random letters and digits.
pub(crate) fn new_token() -> Result<String, getrandom::Error> {
    Ok(format!("kpat_{}", random_text(50)?))
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
        let (a, b) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), 55);
        assert!(
            a.strip_prefix("kpat_")
                .unwrap()
                .bytes()
                .all(|byte| LETTERS.contains(&byte))
        );
        assert_eq!(random_text(200).unwrap().len(), 200);
    }

    #[test]
    fn the_digest_is_sha256() {
        assert_eq!(digest("")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
