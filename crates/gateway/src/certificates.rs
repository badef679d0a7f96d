//! Certificates of listeners, which may be exchanged while the listeners run.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sallyport_runtime::tls::Identity;

/// Shows the first certificate whose key type the client knows (RSA and ECDSA may both be given).
#[derive(Clone, Debug)]
pub(crate) struct Certificates(Arc<ArcSwap<Vec<Arc<CertifiedKey>>>>);

impl Certificates {
    pub(crate) fn new(identities: &[Identity]) -> Certificates {
        Certificates(Arc::new(ArcSwap::from_pointee(keys(identities))))
    }

    /// Shows these from the next handshake on.
    pub(crate) fn exchange(&self, identities: &[Identity]) {
        self.0.store(Arc::new(keys(identities)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }
}

fn keys(identities: &[Identity]) -> Vec<Arc<CertifiedKey>> {
    identities.iter().map(Identity::certified_key).collect()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.signature_schemes();
        let keys = self.0.load();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(known).is_some();
        keys.iter().find(fits).or(keys.first()).cloned()
    }
}
