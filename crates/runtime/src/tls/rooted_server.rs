//! Trust in servers whose certificate chains to a trusted authority, as WebPKI has it, with a
//! refusal that names the authority that issued it instead.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::leaf::Leaf;

/// Verifies as [`WebPkiServerVerifier`] does.
#[derive(Debug)]
pub struct RootedServer(pub Arc<WebPkiServerVerifier>);

/// A certificate by an authority that is not trusted: not the right server's, or made by something
/// in between that inspects TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its certificate was issued by {issuer}, which is not trusted here; add that authority's \
     certificate to the trusted ones if it is the server's own, else something in between \
     intercepts TLS and must let this connection through untouched"
)]
pub struct UntrustedIssuer {
    /// Name of the issuer, as the certificate has it.
    pub issuer: String,
}

impl ServerCertVerifier for RootedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let named = |error| match (error, Leaf::parse(end_entity)) {
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), Ok(leaf)) => {
                let issuer = leaf
                    .issuer
                    .map_or("an authority without a name".to_owned(), |it| {
                        format!("{it:?}")
                    });
                CertificateError::Other(OtherError(Arc::new(UntrustedIssuer { issuer }))).into()
            }
            (error, _) => error,
        };
        verified.map_err(named)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
