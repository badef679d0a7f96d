//! A verifier for servers that are deliberately not verified.

use rustls::Error;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::signatures;

/// Believes any certificate whose key the server really holds.
///
/// For upstreams only: Kong verifies them only when the service or the gateway asks for it.
#[derive(Debug)]
pub(super) struct UnverifiedServer;

impl ServerCertVerifier for UnverifiedServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures::methods!();
}
