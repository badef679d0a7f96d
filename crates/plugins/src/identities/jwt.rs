//! What verifies tokens: one credential of `jwt_secrets`, its key read once.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use p521::ecdsa::signature::Verifier as _;
use ring::hmac;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sallyport_model::entities::{Jwt, JwtAlgorithm};
use sallyport_model::public_key::PublicKey;

use super::Owner;

/// Secrets come from many encoders: with padding or without, with spare bits or without.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

/// What verifies the tokens that name one key, and whose they are.
///
/// The algorithm is the credential's: what a token says about itself never chooses how it is
/// verified.
#[derive(Clone)]
pub(crate) struct TokenKey {
    pub(crate) owner: Owner,
    algorithm: JwtAlgorithm,
    verifier: Arc<Verifier>,
}

enum Verifier {
    /// The secret as it is, and what it is when it is base64.
    Shared {
        algorithm: hmac::Algorithm,
        plain: Box<[u8]>,
        decoded: Option<Box<[u8]>>,
    },
    Public(UnparsedPublicKey<Box<[u8]>>),
    P521(Box<p521::ecdsa::VerifyingKey>),
    /// Nothing to verify with: no secret, no key, or a key of another kind.
    Missing,
}

/// What a token has said and signed.
pub(crate) struct Signed<'a> {
    pub(crate) algorithm: JwtAlgorithm,
    pub(crate) message: &'a [u8],
    pub(crate) signature: &'a [u8],
}

/// Why a token is not from whom it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Algorithm,
    Key,
    Signature,
}

impl TokenKey {
    pub(super) fn new(jwt: &Jwt, owner: Owner) -> TokenKey {
        TokenKey {
            owner,
            algorithm: jwt.algorithm,
            verifier: Arc::new(Verifier::new(jwt).unwrap_or(Verifier::Missing)),
        }
    }

    /// Checks a token; `base64` says that the shared secret is to be decoded first.
    pub(crate) fn verify(&self, token: &Signed<'_>, base64: bool) -> Result<(), Failure> {
        if token.algorithm != self.algorithm {
            return Err(Failure::Algorithm);
        }
        let is_good = match &*self.verifier {
            Verifier::Shared {
                algorithm,
                plain,
                decoded,
            } => {
                let secret = match base64 {
                    true => decoded.as_ref().ok_or(Failure::Key)?,
                    false => plain,
                };
                // compares in constant time
                hmac::verify(
                    &hmac::Key::new(*algorithm, secret),
                    token.message,
                    token.signature,
                )
                .is_ok()
            }
            Verifier::Public(key) => key.verify(token.message, token.signature).is_ok(),
            Verifier::P521(key) => p521::ecdsa::Signature::from_slice(token.signature)
                .is_ok_and(|signature| key.verify(token.message, &signature).is_ok()),
            Verifier::Missing => return Err(Failure::Key),
        };
        match is_good {
            true => Ok(()),
            false => Err(Failure::Signature),
        }
    }
}

impl Verifier {
    fn new(jwt: &Jwt) -> Option<Verifier> {
        use JwtAlgorithm as A;
        let shared = |algorithm| {
            let secret = jwt.secret.as_deref().filter(|secret| !secret.is_empty())?;
            Some(Verifier::Shared {
                algorithm,
                plain: secret.as_bytes().into(),
                decoded: decode_secret(secret).map(Vec::into_boxed_slice),
            })
        };
        match jwt.algorithm {
            A::HS256 => return shared(hmac::HMAC_SHA256),
            A::HS384 => return shared(hmac::HMAC_SHA384),
            A::HS512 => return shared(hmac::HMAC_SHA512),
            _ => {}
        }
        let key = PublicKey::from_pem(jwt.rsa_public_key.as_deref()?).ok()?;
        let (algorithm, key): (&'static dyn VerificationAlgorithm, Vec<u8>) =
            match (jwt.algorithm, key) {
                (A::RS256, PublicKey::Rsa(key)) => (&signature::RSA_PKCS1_2048_8192_SHA256, key),
                (A::RS384, PublicKey::Rsa(key)) => (&signature::RSA_PKCS1_2048_8192_SHA384, key),
                (A::RS512, PublicKey::Rsa(key)) => (&signature::RSA_PKCS1_2048_8192_SHA512, key),
                (A::PS256, PublicKey::Rsa(key)) => (&signature::RSA_PSS_2048_8192_SHA256, key),
                (A::PS384, PublicKey::Rsa(key)) => (&signature::RSA_PSS_2048_8192_SHA384, key),
                (A::PS512, PublicKey::Rsa(key)) => (&signature::RSA_PSS_2048_8192_SHA512, key),
                (A::ES256, PublicKey::P256(key)) => (&signature::ECDSA_P256_SHA256_FIXED, key),
                (A::ES384, PublicKey::P384(key)) => (&signature::ECDSA_P384_SHA384_FIXED, key),
                (A::EdDSA, PublicKey::Ed25519(key)) => (&signature::ED25519, key),
                (A::ES512, PublicKey::P521(key)) => {
                    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(&key).ok()?;
                    return Some(Verifier::P521(Box::new(key)));
                }
                _ => return None,
            };
        Some(Verifier::Public(UnparsedPublicKey::new(
            algorithm,
            key.into_boxed_slice(),
        )))
    }
}

/// A secret out of its base64 form, in either alphabet.
fn decode_secret(text: &str) -> Option<Vec<u8>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    ENGINE.decode(text.replace('-', "+").replace('_', "/")).ok()
}
