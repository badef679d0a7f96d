//! Trust in servers as [`RootedServer`] has it, with a bound on the length of the chain.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::provider;
use super::rooted_server::RootedServer;

/// Verifies as [`RootedServer`] does, and then that there is a chain with few enough certificates.
#[derive(Debug)]
pub(super) struct DepthLimited {
    pub(super) rooted: RootedServer,
    pub(super) roots: Arc<RootCertStore>,
    /// Most certificates between the server's own and the authority's, as OpenSSL counts.
    pub(super) depth: u8,
}

/// The chain is longer than allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {0} certificates stand between the server's own and a trusted authority's; \
     allow more (tls_verify_depth) or trust one that is nearer"
)]
pub struct ChainTooLong(pub u8);

impl DepthLimited {
    fn is_short(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(end_entity) else {
            return false;
        };
        let count = |path: &VerifiedPath<'_>| match path.intermediate_certificates().count()
            <= usize::from(self.depth)
        {
            true => Ok(()),
            false => Err(webpki::Error::MaximumPathDepthExceeded),
        };
        certificate
            .verify_for_usage(
                provider().signature_verification_algorithms.all,
                &self.roots.roots,
                intermediates,
                now,
                KeyUsage::server_auth(),
                None,
                Some(&count),
            )
            .is_ok()
    }
}

impl ServerCertVerifier for DepthLimited {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.rooted.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        match self.is_short(end_entity, intermediates, now) {
            true => Ok(verified),
            false => {
                let reason = ChainTooLong(self.depth);
                Err(CertificateError::Other(OtherError(Arc::new(reason))).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rooted.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rooted.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rooted.supported_verify_schemes()
    }
}
