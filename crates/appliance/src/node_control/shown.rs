//! The certificate that a node shows, on all its connections; it changes while the node runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sallyport_runtime::tls::{self, key_digest};

/// See the module.
#[derive(Debug)]
pub(crate) struct Shown(ArcSwap<tls::Identity>);

impl Shown {
    /// This one, for now.
    pub(crate) fn new(identity: tls::Identity) -> Arc<Shown> {
        Arc::new(Shown(ArcSwap::from_pointee(identity)))
    }

    /// Shows this one from the next handshake on.
    pub(crate) fn show(&self, identity: tls::Identity) {
        self.0.store(Arc::new(identity));
    }

    /// The one that is shown.
    pub(crate) fn identity(&self) -> tls::Identity {
        tls::Identity::clone(&self.0.load())
    }

    /// SHA-256 of its public key.
    pub(crate) fn key_digest(&self) -> Option<[u8; 32]> {
        key_digest(self.0.load().leaf()).ok()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified_key())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified_key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
