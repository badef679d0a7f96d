//! A client must present a certificate and prove that it has the key; who may enter is decided
//! after the handshake, by the certificate's digest.
//!
//! Data planes pin self-signed certificates, so there is no chain to check. Deciding later lets
//! one listener serve many control planes and name the reason in a log line.

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error};

use super::leaf::Leaf;
use super::signatures;

/// Demands a client certificate and checks nothing but its signature on the handshake.
#[derive(Debug)]
pub struct PresentedClient;

impl ClientCertVerifier for PresentedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match Leaf::parse(end_entity) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    signatures::methods!();
}
