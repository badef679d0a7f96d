//! A client must present a certificate and prove that it has the key; who may enter is decided
//! after the handshake, by the certificate's digest.
//!
//! Data planes pin self-signed certificates, so there is no chain to check. Deciding later lets
//! one listener serve many control planes and name the reason in a log line.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
};

use super::leaf::Leaf;

/// Demands a client certificate and checks nothing but its signature on the handshake.
#[derive(Debug)]
pub struct PresentedClient {
    provider: Arc<CryptoProvider>,
}

impl PresentedClient {
    /// Makes the verifier.
    pub fn new() -> PresentedClient {
        PresentedClient {
            provider: super::provider(),
        }
    }
}

impl Default for PresentedClient {
    fn default() -> PresentedClient {
        PresentedClient::new()
    }
}

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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
