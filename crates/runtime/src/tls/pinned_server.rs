//! Trust in exactly one server certificate.
//!
//! In Kong's shared mode both sides present the same self-signed certificate, which has a common
//! name and no alternative name; chain and name checks of WebPKI cannot apply to it.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, OtherError};

use super::leaf::{CertDigest, Leaf, LeafError, leaf_digest};
use super::signatures;

/// Accepts one certificate, byte for byte, while it is valid.
#[derive(Debug)]
pub struct PinnedServer {
    pinned: CertificateDer<'static>,
    not_before: UnixTime,
    not_after: UnixTime,
}

/// The server showed another certificate than the pinned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server shows certificate {shown}, expected is exactly {pinned}")]
pub struct PinMismatch {
    /// What was expected.
    pub pinned: CertDigest,
    /// What came.
    pub shown: CertDigest,
}

impl PinnedServer {
    /// Pins `certificate`.
    ///
    /// # Errors
    /// It is no certificate.
    pub fn new(certificate: CertificateDer<'static>) -> Result<PinnedServer, LeafError> {
        let leaf = Leaf::parse(&certificate)?;
        let time = |secs: i64| {
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(
                u64::try_from(secs).unwrap_or(0),
            ))
        };
        Ok(PinnedServer {
            pinned: certificate,
            not_before: time(leaf.not_before),
            not_after: time(leaf.not_after),
        })
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refusal = if *end_entity != self.pinned {
            CertificateError::Other(OtherError(Arc::new(PinMismatch {
                pinned: leaf_digest(&self.pinned),
                shown: leaf_digest(end_entity),
            })))
        } else if now > self.not_after {
            CertificateError::ExpiredContext {
                time: now,
                not_after: self.not_after,
            }
        } else if now < self.not_before {
            CertificateError::NotValidYetContext {
                time: now,
                not_before: self.not_before,
            }
        } else {
            return Ok(ServerCertVerified::assertion());
        };
        Err(refusal.into())
    }

    signatures::methods!();
}
