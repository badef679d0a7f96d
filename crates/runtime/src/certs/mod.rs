//! Certificates this product makes itself: a local authority, server certificates, the pair a
//! data plane shows, and a fallback for `localhost`.

mod request;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

pub use request::{NewKey, Request};

/// How far a certificate reaches back, for machines whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A certificate (leaf first if it is a chain) and its private key, both as PEM text.
///
/// Prints without the key.
#[derive(Clone, PartialEq, Eq)]
pub struct PemPair {
    /// `CERTIFICATE` sections.
    pub cert: String,
    /// One `PRIVATE KEY` section (PKCS#8).
    pub key: String,
}

impl fmt::Debug for PemPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemPair")
            .field("cert", &self.cert)
            .field("key", &"***")
            .finish()
    }
}

/// The elliptic curve of a new key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384, which Kong's own tool uses.
    #[default]
    P384,
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A name that cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The validity is not in 1..=36500 days.
    #[error("a validity of {days} days is not in 1..=36500")]
    Validity {
        /// What was asked for.
        days: u32,
    },
    /// The stored authority cannot be read.
    #[error("the certificate authority cannot be read: {0}")]
    Authority(String),
    /// Making or signing failed.
    #[error("the certificate could not be made: {0}")]
    Make(String),
}

impl From<rcgen::Error> for CertsError {
    fn from(error: rcgen::Error) -> CertsError {
        CertsError::Make(error.to_string())
    }
}

/// An authority of this installation. Its key never leaves the machine that made it.
pub struct LocalCa {
    pair: PemPair,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCa")
            .field("cert", &self.pair.cert)
            .finish_non_exhaustive()
    }
}

impl LocalCa {
    /// Makes an authority with the given common name, EC P-256.
    ///
    /// # Errors
    /// See [`CertsError`].
    pub fn create(common_name: &str, days: u32) -> Result<LocalCa, CertsError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(common_name, &[] as &[&str], days)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key)?;
        let pair = PemPair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        };
        Ok(LocalCa {
            pair,
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads an authority back.
    ///
    /// # Errors
    /// Broken PEM, or a certificate that is none.
    pub fn load(pair: PemPair) -> Result<LocalCa, CertsError> {
        let broken = |error: rcgen::Error| CertsError::Authority(error.to_string());
        let key = KeyPair::from_pem(&pair.key).map_err(broken)?;
        let issuer = Issuer::from_ca_cert_pem(&pair.cert, key).map_err(broken)?;
        Ok(LocalCa { pair, issuer })
    }

    /// Certificate and key, to be stored (the key readable by its owner only).
    pub fn pem(&self) -> &PemPair {
        &self.pair
    }

    /// Issues a server certificate for DNS names (also `*.x`) and addresses, EC P-256.
    ///
    /// # Errors
    /// See [`CertsError`]; at least one name is needed.
    pub fn issue_server<S: AsRef<str>>(
        &self,
        names: &[S],
        days: u32,
    ) -> Result<PemPair, CertsError> {
        self.issue(names, days, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a client certificate, EC P-256, with the common name as its only name.
    ///
    /// # Errors
    /// See [`CertsError`].
    pub fn issue_client(&self, common_name: &str, days: u32) -> Result<PemPair, CertsError> {
        self.issue(&[common_name], days, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue<S: AsRef<str>>(
        &self,
        names: &[S],
        days: u32,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<PemPair, CertsError> {
        let first = names
            .first()
            .map(AsRef::as_ref)
            .ok_or_else(|| CertsError::Name {
                name: String::new(),
                reason: "a server certificate needs at least one name".to_owned(),
            })?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = match usage {
            ExtendedKeyUsagePurpose::ServerAuth => params(first, names, days)?,
            _ => params(first, &[] as &[&str], days)?,
        };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(PemPair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The pair a data plane is known by: self-signed, a common name and no other name, as
/// `kong hybrid gen_cert` makes it. In Kong's shared mode the control plane shows it too; the
/// common name then has to be `kong_clustering`.
///
/// # Errors
/// See [`CertsError`].
pub fn data_plane_pair(common_name: &str, curve: Curve, days: u32) -> Result<PemPair, CertsError> {
    let algorithm = match curve {
        Curve::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Curve::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
    };
    let key = KeyPair::generate_for(algorithm)?;
    let mut params = params(common_name, &[] as &[&str], days)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let cert = params.self_signed(&key)?;
    Ok(PemPair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    })
}

/// A self-signed certificate for `localhost`, `127.0.0.1` and `::1`: what a TLS listener shows
/// when no certificate was set.
///
/// # Errors
/// Making or signing failed.
pub fn self_signed_localhost(days: u32) -> Result<PemPair, CertsError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = params("localhost", &["localhost", "127.0.0.1", "::1"], days)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cert = params.self_signed(&key)?;
    Ok(PemPair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    })
}

fn params<S: AsRef<str>>(
    common_name: &str,
    names: &[S],
    days: u32,
) -> Result<CertificateParams, CertsError> {
    if !(1..=36_500).contains(&days) {
        return Err(CertsError::Validity { days });
    }
    // X.520 allows 64 characters.
    if common_name.is_empty() || common_name.chars().count() > 64 {
        return Err(CertsError::Name {
            name: common_name.to_owned(),
            reason: "a common name has 1 to 64 characters".to_owned(),
        });
    }
    let mut subject_alt_names = Vec::new();
    for name in names.iter().map(AsRef::as_ref) {
        let one =
            CertificateParams::new(vec![name.to_owned()]).map_err(|error| CertsError::Name {
                name: name.to_owned(),
                reason: error.to_string(),
            })?;
        subject_alt_names.extend(one.subject_alt_names);
    }
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + DAY * days).into();
    params.subject_alt_names = subject_alt_names;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    Ok(params)
}
