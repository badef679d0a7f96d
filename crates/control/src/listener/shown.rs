//! The certificate that the listener shows, which may be exchanged while it runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sallyport_runtime::tls::Identity;

/// Shows one certificate to everybody; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Shown(Arc<ArcSwap<CertifiedKey>>);

impl Shown {
    pub(crate) fn new(identity: &Identity) -> Shown {
        Shown(Arc::new(ArcSwap::new(identity.certified_key())))
    }

    /// Shows this one from the next handshake on.
    pub(crate) fn exchange(&self, identity: &Identity) {
        self.0.store(identity.certified_key());
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
