//! TLS building blocks: rustls on ring, TLS 1.2 and 1.3.

mod anchored_server;
pub mod client;
mod depth_limited;
pub mod explain;
pub mod identity;
mod issued;
pub mod leaf;
pub mod pem;
pub mod pinned_server;
pub mod presented_client;
pub mod rooted_server;
pub mod server;
pub mod signatures;
pub mod suites;
#[cfg(test)]
mod tests;
mod unverified_server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use anchored_server::OtherAuthority;
pub use client::{
    ServerTrust, anchored_client_config, client_config, client_config_within, connect, trust_store,
};
pub use depth_limited::ChainTooLong;
pub use explain::{TlsFailure, explain};
pub use identity::{Identity, IdentityError};
pub use issued::issued_by;
pub use leaf::{CertDigest, Leaf, key_digest, leaf_digest, not_after};
pub use pem::{PemError, certificates, read_pem};
pub use server::{ClientAuth, Offer, server_config};

/// The one cryptography provider of this product.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()))
        .clone()
}
