//! Certificates and private keys as entities hold them: PEM text.
//!
//! Read as far as it takes to see at once that they can be used and belong together. Signing and
//! verifying is for whoever holds a cryptography provider.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::public_key::{BIT_STRING, Der, EC, ED25519, INTEGER, OID, RSA, SEQUENCE};

const OCTET_STRING: u8 = 0x04;
/// The public key in an `ECPrivateKey` (RFC 5915).
const EC_PUBLIC: u8 = 0xa1;
/// The curve in an `ECPrivateKey`.
const EC_PARAMETERS: u8 = 0xa0;

/// The kind of a key, where it decides who can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA.
    Rsa,
    /// On a NIST curve.
    Ec,
    /// Ed25519.
    Ed25519,
}

/// The leaf of a certificate chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the DER form, in lower-case hexadecimal digits.
    pub digest: String,
    /// Whether its basic constraints say that it may issue others.
    pub is_authority: bool,
    /// Certificates in the text.
    pub chain: usize,
    /// What its key is; `None` for a kind that nothing here can use.
    pub key: Option<KeyKind>,
    /// What identifies the key: modulus or point.
    public: Vec<u8>,
}

/// A private key.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey {
    /// What it is.
    pub kind: KeyKind,
    /// The public part, where the text has it.
    public: Option<Vec<u8>>,
}

/// Why a text is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No such PEM block.
    #[error("expected PEM text that begins with -----BEGIN CERTIFICATE-----")]
    NotPem,
    /// The block does not hold what it says.
    #[error("PEM block {0} does not hold a certificate")]
    Damaged(usize),
}

/// Why a text is no private key. No message has a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// No such PEM block.
    #[error("expected PEM text that begins with -----BEGIN PRIVATE KEY-----")]
    NotPem,
    /// It needs a pass phrase.
    #[error("the private key is encrypted; give it unencrypted (openssl pkey -in … -out …)")]
    Encrypted,
    /// The block does not hold what it says.
    #[error("the PEM block does not hold a private key")]
    Damaged,
    /// Another kind of key.
    #[error("only RSA, ECDSA and Ed25519 keys are supported")]
    Kind,
}

impl Certificate {
    /// Reads the certificates of a text; the first one is the leaf.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn from_pem(text: &str) -> Result<Certificate, CertificateError> {
        let mut leaf = None;
        let mut chain = 0;
        for (label, body) in blocks(text) {
            if label != "CERTIFICATE" {
                continue;
            }
            chain += 1;
            let damaged = CertificateError::Damaged(chain);
            let der = body.ok_or(damaged.clone())?;
            let (rest, parsed) = X509Certificate::from_der(&der).map_err(|_| damaged.clone())?;
            if !rest.is_empty() {
                return Err(damaged);
            }
            if leaf.is_none() {
                let spki = parsed.public_key();
                let bits = &spki.subject_public_key.data;
                let kind = kind_of(spki.algorithm.algorithm.as_bytes());
                let public = match kind {
                    Some(KeyKind::Rsa) => modulus(bits).ok_or(damaged)?,
                    _ => bits.to_vec(),
                };
                let authority = parsed.basic_constraints();
                leaf = Some(Certificate {
                    digest: hex(&Sha256::digest(&der)),
                    is_authority: matches!(authority, Ok(Some(it)) if it.value.ca),
                    chain: 0,
                    key: kind,
                    public,
                });
            }
        }
        let leaf = leaf.ok_or(CertificateError::NotPem)?;
        Ok(Certificate { chain, ..leaf })
    }

    /// Whether a private key can be the one of this certificate. A text without the public part
    /// of an elliptic key leaves that open, and counts as one that can.
    pub fn may_belong_to(&self, key: &PrivateKey) -> bool {
        let same = |public: &Vec<u8>| *public == self.public;
        self.key == Some(key.kind) && key.public.as_ref().is_none_or(same)
    }
}

impl PrivateKey {
    /// Reads the first private key of a text: PKCS#8, PKCS#1 or SEC 1.
    ///
    /// # Errors
    /// See [`PrivateKeyError`].
    pub fn from_pem(text: &str) -> Result<PrivateKey, PrivateKeyError> {
        for (label, body) in blocks(text) {
            let read = match label {
                "PRIVATE KEY" => pkcs8,
                "RSA PRIVATE KEY" => pkcs1,
                "EC PRIVATE KEY" => sec1,
                "ENCRYPTED PRIVATE KEY" => return Err(PrivateKeyError::Encrypted),
                _ => continue,
            };
            let der = match body {
                Some(der) => der,
                // the header lines of an encrypted block of the older kind are no base64
                None if text.contains("ENCRYPTED") => return Err(PrivateKeyError::Encrypted),
                None => return Err(PrivateKeyError::Damaged),
            };
            return read(&der);
        }
        Err(PrivateKeyError::NotPem)
    }
}

fn pkcs8(der: &[u8]) -> Result<PrivateKey, PrivateKeyError> {
    let damaged = |_| PrivateKeyError::Damaged;
    let mut outer = Der(Der(der).take(SEQUENCE).map_err(damaged)?);
    outer.take(INTEGER).map_err(damaged)?;
    let mut algorithm = Der(outer.take(SEQUENCE).map_err(damaged)?);
    let kind = kind_of(algorithm.take(OID).map_err(damaged)?);
    let key = outer.take(OCTET_STRING).map_err(damaged)?;
    match kind.ok_or(PrivateKeyError::Kind)? {
        KeyKind::Rsa => pkcs1(key),
        KeyKind::Ec => sec1(key),
        kind => Ok(PrivateKey { kind, public: None }),
    }
}

fn pkcs1(der: &[u8]) -> Result<PrivateKey, PrivateKeyError> {
    let damaged = |_| PrivateKeyError::Damaged;
    let mut outer = Der(Der(der).take(SEQUENCE).map_err(damaged)?);
    outer.take(INTEGER).map_err(damaged)?;
    let modulus = outer.take(INTEGER).map_err(damaged)?;
    Ok(PrivateKey {
        kind: KeyKind::Rsa,
        public: Some(modulus.to_vec()),
    })
}

fn sec1(der: &[u8]) -> Result<PrivateKey, PrivateKeyError> {
    let damaged = |_| PrivateKeyError::Damaged;
    let mut outer = Der(Der(der).take(SEQUENCE).map_err(damaged)?);
    outer.take(INTEGER).map_err(damaged)?;
    outer.take(OCTET_STRING).map_err(damaged)?;
    let _ = outer.take(EC_PARAMETERS);
    let public = outer.take(EC_PUBLIC).ok();
    let bits = public.and_then(|it| Der(it).take(BIT_STRING).ok());
    Ok(PrivateKey {
        kind: KeyKind::Ec,
        // the first byte counts bits that are left over
        public: bits.and_then(|bits| Some(bits.get(1..)?.to_vec())),
    })
}

fn kind_of(algorithm: &[u8]) -> Option<KeyKind> {
    match algorithm {
        RSA => Some(KeyKind::Rsa),
        EC => Some(KeyKind::Ec),
        ED25519 => Some(KeyKind::Ed25519),
        _ => None,
    }
}

/// The modulus of an `RSAPublicKey` (RFC 8017).
fn modulus(der: &[u8]) -> Option<Vec<u8>> {
    let mut key = Der(Der(der).take(SEQUENCE).ok()?);
    key.take(INTEGER).ok().map(<[u8]>::to_vec)
}

/// The PEM blocks of a text: label, and content if it is base64 (RFC 7468).
fn blocks(text: &str) -> impl Iterator<Item = (&str, Option<Vec<u8>>)> {
    let parts = text.split("-----BEGIN ").skip(1);
    parts.filter_map(|part| {
        let (label, rest) = part.split_once("-----")?;
        let (body, _) = rest.split_once("-----END ")?;
        let body: String = body.split_ascii_whitespace().collect();
        Some((label, STANDARD.decode(body).ok()))
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    // Made by openssl for these tests; their keys protect nothing.
    pub(crate) const EC_CERT: &str = include_str!("test_pem/ec.crt");
    pub(crate) const EC_KEY: &str = include_str!("test_pem/ec.key");
    const EC_KEY_PKCS8: &str = include_str!("test_pem/ec8.key");
    pub(crate) const EC_OTHER_KEY: &str = include_str!("test_pem/ec2.key");
    pub(crate) const RSA_CERT: &str = include_str!("test_pem/rsa.crt");
    pub(crate) const RSA_KEY: &str = include_str!("test_pem/rsa.key");
    pub(crate) const CA_CERT: &str = include_str!("test_pem/ca.crt");

    #[test]
    fn a_key_belongs_to_its_certificate_and_to_no_other() {
        for (certificate, key, expected) in [
            (EC_CERT, EC_KEY, true),
            (EC_CERT, EC_KEY_PKCS8, true),
            (EC_CERT, EC_OTHER_KEY, false),
            (EC_CERT, RSA_KEY, false),
            (RSA_CERT, RSA_KEY, true),
            (RSA_CERT, EC_KEY, false),
        ] {
            let certificate = Certificate::from_pem(certificate).unwrap();
            let key = PrivateKey::from_pem(key).unwrap();
            assert_eq!(certificate.may_belong_to(&key), expected);
        }
    }

    #[test]
    fn facts_of_a_certificate() {
        let two = format!("text before\n{EC_CERT}{CA_CERT}");
        let leaf = Certificate::from_pem(&two).unwrap();
        assert_eq!((leaf.chain, leaf.is_authority), (2, false));
        assert_eq!(leaf.key, Some(KeyKind::Ec));
        assert_eq!(leaf.digest, include_str!("test_pem/ec.sha256").trim());
        assert!(Certificate::from_pem(CA_CERT).unwrap().is_authority);
    }

    #[test]
    fn what_is_none_is_said_to_be_none() {
        let certificate = |text: &str| Certificate::from_pem(text).unwrap_err();
        assert_eq!(certificate("x"), CertificateError::NotPem);
        assert_eq!(certificate(EC_KEY), CertificateError::NotPem);
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(certificate(junk), CertificateError::Damaged(1));
        let second = format!("{EC_CERT}{junk}");
        assert_eq!(certificate(&second), CertificateError::Damaged(2));
        let key = |text: &str| PrivateKey::from_pem(text).err();
        assert_eq!(key(EC_CERT), Some(PrivateKeyError::NotPem));
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nAAAA\n\
                   -----END RSA PRIVATE KEY-----\n";
        assert_eq!(key(old), Some(PrivateKeyError::Encrypted));
        let new =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
        assert_eq!(key(new), Some(PrivateKeyError::Encrypted));
        let junk = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
        assert_eq!(key(junk), Some(PrivateKeyError::Damaged));
    }

    proptest! {
        #[test]
        fn damaged_texts_never_panic(at in 0..RSA_KEY.len(), byte in any::<u8>()) {
            for text in [EC_CERT, EC_KEY, EC_KEY_PKCS8, RSA_CERT, RSA_KEY] {
                let mut bytes = text.as_bytes().to_vec();
                let at = at % bytes.len();
                bytes[at] = byte;
                let text = String::from_utf8_lossy(&bytes);
                let _ = Certificate::from_pem(&text);
                let _ = PrivateKey::from_pem(&text);
            }
        }
    }
}
