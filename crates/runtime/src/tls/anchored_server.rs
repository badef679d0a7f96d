//! Trust in a server by the digest of its authority: what fits into a token that people paste.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, OtherError, RootCertStore};

use super::leaf::{CertDigest, leaf_digest};
use super::{provider, signatures};

/// Accepts servers that send along the authority with this digest and chain to it.
#[derive(Debug)]
pub(super) struct AnchoredServer(pub(super) CertDigest);

/// The server is of another authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server does not belong to the authority {0}")]
pub struct OtherAuthority(pub CertDigest);

impl ServerCertVerifier for AnchoredServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let anchor = intermediates.iter().find(|it| leaf_digest(it) == self.0);
        let other = || {
            let other = OtherAuthority(self.0);
            Error::from(CertificateError::Other(OtherError(Arc::new(other))))
        };
        let mut roots = RootCertStore::empty();
        roots.add(anchor.ok_or_else(other)?.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    signatures::methods!();
}
