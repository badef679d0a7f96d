//! Whether an authority issued a client certificate, asked after the handshake.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use super::pem::certificates;
use super::provider;

/// Checks that the first certificate of `chain` is a client's, is valid now, and leads over the
/// others to one of the authorities (PEM texts; what is no authority is left out).
///
/// # Errors
/// Why not, in words.
pub fn issued_by<'a>(
    authorities: impl Iterator<Item = &'a str>,
    chain: &[CertificateDer<'_>],
) -> Result<(), String> {
    let (own, between) = chain.split_first().ok_or("it showed none")?;
    let mut roots = RootCertStore::empty();
    for pem in authorities {
        let read = certificates(pem).unwrap_or_default();
        roots.add_parsable_certificates(read);
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|_| "no authority was uploaded to it")?;
    verifier
        .verify_client_cert(own, between, UnixTime::now())
        .map(|_| ())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{LocalCa, NewKey, Request};

    #[test]
    fn an_authority_vouches_for_its_own_only() {
        let ca = LocalCa::create("ours", 30).unwrap();
        let other = LocalCa::create("theirs", 30).unwrap();
        let request = Request::parse(&NewKey::create().unwrap().request).unwrap();
        let cert = ca
            .issue_requested(request, "gw", &[] as &[&str], 30)
            .unwrap();
        let chain = certificates(&cert).unwrap();
        let (ours, theirs) = (&*ca.pem().cert, &*other.pem().cert);
        assert_eq!(issued_by([theirs, ours].into_iter(), &chain), Ok(()));
        assert!(issued_by([theirs].into_iter(), &chain).is_err());
        assert!(
            issued_by([].into_iter(), &chain)
                .unwrap_err()
                .contains("no authority")
        );
        assert!(issued_by([ours].into_iter(), &[]).is_err());
    }
}
