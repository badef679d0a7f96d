//! The token by which a machine joins: where to go, whom to believe there, and what to show.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Text of every token's beginning, so that scanners for lost secrets know it.
const PREFIX: &str = "spjoin_";
const CHECK_LEN: usize = 4;
const ADDRESS_LEN_MAX: usize = 200;

/// A join token. It is a secret: [`JoinToken::text`] is for the operator's eyes only.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the certificate of the cluster's authority.
    pub authority: [u8; 32],
    /// What the cluster knows the token by, as a digest.
    pub secret: [u8; 16],
    /// Where a node listens, `address:port`.
    pub address: String,
}

/// A text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is something else.
    #[error("a join token begins with {PREFIX:?}; `sallyport node token` on a node makes one")]
    NotOne,
    /// It was cut or changed on its way.
    #[error("the join token is damaged; copy all of it")]
    Damaged,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl JoinToken {
    /// The text that people carry.
    pub fn text(&self) -> String {
        let body = [&self.authority[..], &self.secret, self.address.as_bytes()].concat();
        let check = Sha256::digest(&body);
        let bytes = [&body[..], &check[..CHECK_LEN]].concat();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads it back.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn parse(text: &str) -> Result<JoinToken, TokenError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(TokenError::NotOne)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(rest)
            .map_err(|_| TokenError::Damaged)?;
        let (body, check) = bytes
            .split_last_chunk::<CHECK_LEN>()
            .ok_or(TokenError::Damaged)?;
        if Sha256::digest(body)[..CHECK_LEN] != *check {
            return Err(TokenError::Damaged);
        }
        let (authority, rest) = body.split_first_chunk().ok_or(TokenError::Damaged)?;
        let (secret, address) = rest.split_first_chunk().ok_or(TokenError::Damaged)?;
        let address = std::str::from_utf8(address).map_err(|_| TokenError::Damaged)?;
        if address.is_empty() || address.len() > ADDRESS_LEN_MAX {
            return Err(TokenError::Damaged);
        }
        Ok(JoinToken {
            authority: *authority,
            secret: *secret,
            address: address.to_owned(),
        })
    }

    /// SHA-256 of the secret: what the cluster stores.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_damaged_token_is_told_from_something_else() {
        let token = JoinToken {
            authority: [1; 32],
            secret: [2; 16],
            address: "192.0.2.1:7777".to_owned(),
        };
        let text = token.text();
        assert_eq!(JoinToken::parse(&format!(" {text}\n")), Ok(token));
        assert_eq!(JoinToken::parse("hello"), Err(TokenError::NotOne));
        assert_eq!(
            JoinToken::parse(&text[..text.len() - 1]),
            Err(TokenError::Damaged)
        );
        assert_eq!(JoinToken::parse(PREFIX), Err(TokenError::Damaged));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn hostile_text_never_panics(text in ".*", start: bool) {
            let text = if start { format!("{PREFIX}{text}") } else { text };
            if let Ok(token) = JoinToken::parse(&text) {
                let again = token.text();
                prop_assert_eq!(again.as_str(), text.trim());
            }
        }
    }
}
