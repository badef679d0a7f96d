//! A certificate chain with its private key.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::leaf::{CertDigest, leaf_digest};
use super::pem::{PemError, certificates, private_key, read_pem};
use super::provider;

/// Who this process is on a TLS connection. Prints as its fingerprint, never as its key.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    key: Arc<PrivateKeyDer<'static>>,
}

/// Why certificate and key make no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate setting is unusable.
    #[error("the certificate {0}")]
    Certificate(PemError),
    /// The key setting is unusable.
    #[error("the private key {0}")]
    Key(PemError),
    /// The two do not belong together.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The algorithm or encoding is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(rustls::Error),
}

impl Identity {
    /// Reads both from settings' values: path, PEM text, or base64 of PEM text.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(certificate: &str, key: &str) -> Result<Identity, IdentityError> {
        let certificate = read_pem(certificate).map_err(IdentityError::Certificate)?;
        let key = read_pem(key).map_err(IdentityError::Key)?;
        Identity::from_pem(&certificate, &key)
    }

    /// Makes an identity of PEM texts; the leaf certificate comes first.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn from_pem(certificate: &str, key: &str) -> Result<Identity, IdentityError> {
        let chain = certificates(certificate).map_err(IdentityError::Certificate)?;
        let key = private_key(key).map_err(IdentityError::Key)?;
        let certified = CertifiedKey::from_der(chain, key.clone_key(), &provider());
        match certified {
            Ok(certified) => Ok(Identity {
                certified: Arc::new(certified),
                key: Arc::new(key),
            }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(IdentityError::Mismatch),
            Err(error) => Err(IdentityError::Unusable(error)),
        }
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The leaf certificate.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.certified.cert[0]
    }

    /// SHA-256 of the leaf certificate.
    pub fn digest(&self) -> CertDigest {
        leaf_digest(self.leaf())
    }

    /// As rustls takes it, for certificate resolvers.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.digest())
    }
}
