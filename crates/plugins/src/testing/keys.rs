//! Keys that sign tokens in tests, written by `openssl genpkey`.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use p521::ecdsa::signature::Signer as _;
use p521::ecdsa::{Signature, SigningKey};

/// A private key in PKCS #8 and its public key, both in PEM.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    private: &'static str,
    public: &'static str,
}

pub(crate) const RSA: Pair = Pair {
    private: include_str!("keys/rsa.pem"),
    public: include_str!("keys/rsa.pub.pem"),
};
pub(crate) const P256: Pair = Pair {
    private: include_str!("keys/p256.pem"),
    public: include_str!("keys/p256.pub.pem"),
};
pub(crate) const P384: Pair = Pair {
    private: include_str!("keys/p384.pem"),
    public: include_str!("keys/p384.pub.pem"),
};
pub(crate) const ED25519: Pair = Pair {
    private: include_str!("keys/ed25519.pem"),
    public: include_str!("keys/ed25519.pub.pem"),
};
pub(crate) const P521_PUBLIC: &str = include_str!("keys/p521.pub.pem");
/// The scalar of [`P521_PUBLIC`].
const P521_SCALAR: &str = "00191c4f8c752056471f8aa572d599c4710a9c474e039612155414a1083261258efab9e24122c1fef99bc740b80cd0df007463abacde665b87c22828900a8f369c6e";

/// The private key in DER.
pub(crate) fn der(pair: Pair) -> Vec<u8> {
    let lines = pair.private.lines().filter(|line| !line.starts_with('-'));
    let text: String = lines.collect();
    BASE64_STANDARD.decode(text).unwrap()
}

pub(crate) fn public_pem(pair: Pair) -> &'static str {
    pair.public
}

/// An `ES512` signature.
pub(crate) fn sign_p521(message: &[u8]) -> Vec<u8> {
    let scalar: Vec<u8> = (0..P521_SCALAR.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&P521_SCALAR[at..at + 2], 16).unwrap())
        .collect();
    let key = SigningKey::from_slice(&scalar).unwrap();
    let signature: Signature = key.sign(message);
    signature.to_bytes().to_vec()
}
