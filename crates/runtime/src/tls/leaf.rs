//! What a certificate says.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

/// SHA-256 of a certificate's DER form; prints as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertDigest(pub [u8; 32]);

impl fmt::Display for CertDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CertDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate digest has 64 hexadecimal digits (SHA-256)")]
pub struct CertDigestError;

impl FromStr for CertDigest {
    type Err = CertDigestError;

    /// Colons between the digits are allowed, as `openssl x509 -fingerprint` prints them.
    fn from_str(text: &str) -> Result<CertDigest, CertDigestError> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits
            .filter(|digits| digits.len() == 64)
            .ok_or(CertDigestError)?;
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(CertDigest(digest))
    }
}

/// SHA-256 of a certificate: what a pinned certificate is known by.
pub fn leaf_digest(certificate: &CertificateDer<'_>) -> CertDigest {
    CertDigest(Sha256::digest(certificate).into())
}

/// SHA-256 of a certificate's key (its SubjectPublicKeyInfo): who holds it, whatever certificate it
/// was given.
///
/// # Errors
/// Not an X.509 certificate.
pub fn key_digest(certificate: &CertificateDer<'_>) -> Result<[u8; 32], LeafError> {
    let parsed = X509Certificate::from_der(certificate);
    let (_, parsed) = parsed.map_err(|error| LeafError(error.to_string()))?;
    Ok(Sha256::digest(parsed.public_key().raw).into())
}

/// The bytes are not an X.509 certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate: {0}")]
pub struct LeafError(String);

/// The facts of one certificate that people and policies ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// SHA-256 of the DER form.
    pub digest: CertDigest,
    /// Unix seconds from which it is valid.
    pub not_before: i64,
    /// Unix seconds up to which it is valid.
    pub not_after: i64,
    /// Common name of the subject.
    pub common_name: Option<String>,
    /// Common name of the issuer.
    pub issuer: Option<String>,
    /// DNS names and addresses it stands for.
    pub names: Vec<String>,
}

impl Leaf {
    /// Reads a certificate.
    ///
    /// # Errors
    /// Not DER, or not a certificate.
    pub fn parse(certificate: &CertificateDer<'_>) -> Result<Leaf, LeafError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| LeafError(error.to_string()))?;
        let text = |name: &x509_parser::x509::X509Name<'_>| {
            name.iter_common_name()
                .next()?
                .as_str()
                .ok()
                .map(str::to_owned)
        };
        let names = match parsed.subject_alternative_name() {
            Ok(Some(extension)) => extension
                .value
                .general_names
                .iter()
                .filter_map(name_text)
                .collect(),
            _ => Vec::new(),
        };
        Ok(Leaf {
            digest: leaf_digest(certificate),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            common_name: text(parsed.subject()),
            issuer: text(parsed.issuer()),
            names,
        })
    }
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|ip| std::net::Ipv4Addr::from(ip).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|ip| std::net::Ipv6Addr::from(ip).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Unix seconds up to which a certificate is valid.
///
/// # Errors
/// Not an X.509 certificate.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<i64, LeafError> {
    Leaf::parse(certificate).map(|leaf| leaf.not_after)
}

/// A point in time for people, in UTC.
pub(super) fn date(unix_secs: i64) -> String {
    match ASN1Time::from_timestamp(unix_secs) {
        Ok(time) => time.to_string().trim_end_matches(" +00:00").to_owned() + " UTC",
        Err(_) => format!("Unix second {unix_secs}"),
    }
}
