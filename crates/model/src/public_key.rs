//! Public keys of `jwt_secrets`: PEM with a SubjectPublicKeyInfo (RFC 5280) or an RSA key
//! (RFC 8017).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A public key, taken apart as far as who verifies with it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA: the `RSAPublicKey` in DER, of a modulus of 2048 to 8192 bits.
    Rsa(Vec<u8>),
    /// The point on NIST P-256, uncompressed: 65 bytes.
    P256(Vec<u8>),
    /// The point on NIST P-384, uncompressed: 97 bytes.
    P384(Vec<u8>),
    /// The point on NIST P-521, uncompressed: 133 bytes.
    P521(Vec<u8>),
    /// Ed25519: 32 bytes.
    Ed25519(Vec<u8>),
}

/// Why a text is no public key that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// No PEM block, or not one of a public key.
    #[error("expected a PEM block that begins with -----BEGIN PUBLIC KEY-----")]
    NotPem,
    /// The block does not hold what it says.
    #[error("the PEM block does not hold a public key")]
    Damaged,
    /// An RSA key of another size; bits.
    #[error("an RSA key of {0} bits is not supported, only 2048 to 8192 are")]
    RsaSize(usize),
    /// Another kind of key, or of curve.
    #[error("only RSA, Ed25519 and uncompressed P-256, P-384 and P-521 keys are supported")]
    Kind,
}

pub(crate) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
pub(crate) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

impl PublicKey {
    /// Reads the first PEM block of a text.
    ///
    /// # Errors
    /// See [`PublicKeyError`]; the text says the way out.
    pub fn from_pem(text: &str) -> Result<PublicKey, PublicKeyError> {
        let (_, rest) = text
            .split_once("-----BEGIN ")
            .ok_or(PublicKeyError::NotPem)?;
        let (label, rest) = rest.split_once("-----").ok_or(PublicKeyError::NotPem)?;
        let (body, _) = rest.split_once("-----END ").ok_or(PublicKeyError::NotPem)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| PublicKeyError::Damaged)?;
        match label {
            "PUBLIC KEY" => spki(&der),
            "RSA PUBLIC KEY" => rsa(&der),
            _ => Err(PublicKeyError::NotPem),
        }
    }
}

fn spki(der: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let mut outer = Der(der);
    let mut info = Der(outer.take(SEQUENCE)?);
    outer.end()?;
    let mut algorithm = Der(info.take(SEQUENCE)?);
    let key = info.take(BIT_STRING)?;
    info.end()?;
    // the first byte counts bits that are left over
    let Some((0, key)) = key.split_first() else {
        return Err(PublicKeyError::Damaged);
    };
    match algorithm.take(OID)? {
        RSA => rsa(key),
        ED25519 if key.len() == 32 => Ok(PublicKey::Ed25519(key.to_vec())),
        EC => {
            let (curve, length): (fn(Vec<u8>) -> PublicKey, usize) = match algorithm.take(OID)? {
                P256 => (PublicKey::P256, 65),
                P384 => (PublicKey::P384, 97),
                P521 => (PublicKey::P521, 133),
                _ => return Err(PublicKeyError::Kind),
            };
            match key.first() == Some(&4) && key.len() == length {
                true => Ok(curve(key.to_vec())),
                false => Err(PublicKeyError::Kind),
            }
        }
        _ => Err(PublicKeyError::Kind),
    }
}

fn rsa(der: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let mut outer = Der(der);
    let mut key = Der(outer.take(SEQUENCE)?);
    outer.end()?;
    let modulus = key.take(INTEGER)?;
    key.take(INTEGER)?;
    key.end()?;
    let digits: &[u8] = match modulus {
        [0, rest @ ..] => rest,
        all => all,
    };
    let unused = digits.first().map_or(0, |first| first.leading_zeros());
    let bits = (digits.len() * 8).saturating_sub(unused as usize);
    match bits {
        2048..=8192 => Ok(PublicKey::Rsa(der.to_vec())),
        _ => Err(PublicKeyError::RsaSize(bits)),
    }
}

/// What is left to read of an encoding (X.690).
pub(crate) struct Der<'a>(pub(crate) &'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next value, which must have this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Result<&'a [u8], PublicKeyError> {
        let (head, rest) = match *self.0 {
            [found, length @ 0..=0x7f, ref rest @ ..] if found == tag => (length.into(), rest),
            [found, 0x81, length, ref rest @ ..] if found == tag => (length.into(), rest),
            [found, 0x82, high, low, ref rest @ ..] if found == tag => {
                (usize::from(high) << 8 | usize::from(low), rest)
            }
            _ => return Err(PublicKeyError::Damaged),
        };
        let (content, rest) = rest.split_at_checked(head).ok_or(PublicKeyError::Damaged)?;
        self.0 = rest;
        Ok(content)
    }

    fn end(&self) -> Result<(), PublicKeyError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(PublicKeyError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests;
