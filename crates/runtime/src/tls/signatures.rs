//! The part of judging a certificate that every verifier shares: whether the peer holds its key.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto;
use rustls::pki_types::CertificateDer;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::provider;

/// Checks the signature of a TLS 1.2 handshake.
///
/// # Errors
/// The peer does not hold the certificate's key, or signs in a way that is not accepted.
pub fn verify_tls12(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = provider().signature_verification_algorithms;
    crypto::verify_tls12_signature(message, cert, dss, &algorithms)
}

/// Checks the signature of a TLS 1.3 handshake.
///
/// # Errors
/// As [`verify_tls12`].
pub fn verify_tls13(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = provider().signature_verification_algorithms;
    crypto::verify_tls13_signature(message, cert, dss, &algorithms)
}

/// The ways of signing that are accepted.
pub fn schemes() -> Vec<SignatureScheme> {
    provider()
        .signature_verification_algorithms
        .supported_schemes()
}

/// The methods by which a verifier judges them, the same of every verifier.
macro_rules! methods {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            $crate::tls::signatures::verify_tls12(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            $crate::tls::signatures::verify_tls13(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $crate::tls::signatures::schemes()
        }
    };
}

pub(super) use methods;
