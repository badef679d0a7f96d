//! Certificates: those that listeners show, by server name, and what upstreams are shown.
//!
//! Both may be exchanged while connections are open: the next handshake takes what is in force.
//! Client certificates are asked of nobody, since no plugin of this build wants one.

mod named;
mod upstream_tls;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureAlgorithm;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sallyport_runtime::tls::Identity;

pub(crate) use named::{Identities, Named, load};
pub(crate) use upstream_tls::{Made, TlsDefaults, UpstreamTls, UpstreamTlsMaker, Wanted};

/// Certificates of one name with different kinds of key, the quickest to prove first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(Vec<Arc<CertifiedKey>>);

impl Keys {
    fn new<'a>(identities: impl IntoIterator<Item = &'a Identity>) -> Keys {
        let mut keys: Vec<_> = identities
            .into_iter()
            .map(Identity::certified_key)
            .collect();
        // whoever knows both prefers the elliptic one
        keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        Keys(keys)
    }

    /// The end of the chain of the first one, for tests.
    #[cfg(test)]
    pub(crate) fn leaf(&self) -> Vec<u8> {
        self.0[0].cert[0].to_vec()
    }

    /// The first one that the client can use, else the first one.
    fn for_client(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(known).is_some();
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

/// What a listener shows when nothing else is set for a name.
#[derive(Clone, Debug)]
pub(crate) struct Certificates(Arc<ArcSwap<Keys>>);

impl Certificates {
    pub(crate) fn new(identities: &[Identity]) -> Certificates {
        Certificates(Arc::new(ArcSwap::from_pointee(Keys::new(identities))))
    }

    /// Shows these from the next handshake on.
    pub(crate) fn exchange(&self, identities: &[Identity]) {
        self.0.store(Arc::new(Keys::new(identities)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load().0.is_empty()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().for_client(&hello)
    }
}

/// What listeners for traffic show: the certificate of the configuration that is set for the
/// name, else that of the listener. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct ByName {
    named: Arc<ArcSwap<Named>>,
    default: Certificates,
}

impl ByName {
    pub(crate) fn new(default: Certificates) -> ByName {
        ByName {
            named: Arc::default(),
            default,
        }
    }

    /// Shows these from the next handshake on.
    pub(crate) fn put_in_force(&self, named: &Arc<Named>) {
        self.named.store(named.clone());
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = self.named.load();
        match named.find(hello.server_name()) {
            Some(keys) => keys.for_client(&hello),
            None => self.default.resolve(hello),
        }
    }
}
