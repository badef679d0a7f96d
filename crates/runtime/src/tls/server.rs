//! The accepting side.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{
    ResolvesServerCert, ServerConfig, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::{CipherSuite, RootCertStore, version};

use super::identity::Identity;
use super::presented_client::PresentedClient;
use super::provider;

/// What is asked of a client.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// No certificate is requested.
    Off,
    /// A certificate is demanded and only its signature is checked; the caller decides by its
    /// digest once the handshake is done.
    Presented,
    /// A certificate is demanded that one of these authorities issued.
    IssuedBy(Arc<RootCertStore>),
}

/// What a listener offers to its clients, beside certificates.
#[derive(Clone, Debug)]
pub struct Offer {
    /// TLS 1.2; at least one of the two is on.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
    /// Suites of TLS 1.2; `None` for all that this build has.
    pub suites: Option<Vec<CipherSuite>>,
    /// Whether the order of the listener counts, not the client's.
    pub own_order: bool,
    /// Whether clients get tickets to resume with, good for 12 hours; else they are remembered.
    pub tickets: bool,
    /// Sessions that are remembered for clients without tickets.
    pub sessions: usize,
}

impl Default for Offer {
    fn default() -> Offer {
        Offer {
            tls12: true,
            tls13: true,
            suites: None,
            own_order: false,
            tickets: true,
            sessions: 40_000,
        }
    }
}

/// A configuration that makes this offer, with the certificate chosen per connection.
///
/// # Errors
/// Nothing is left to offer, or the system has no randomness for tickets.
pub fn server_config_offering(
    certificates: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
    offer: &Offer,
) -> Result<ServerConfig, rustls::Error> {
    let mut chosen: CryptoProvider = (*provider()).clone();
    if let Some(suites) = &offer.suites {
        chosen
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || suites.contains(&suite.suite()));
    }
    let versions: &[_] = match (offer.tls12, offer.tls13) {
        (true, true) => &[&version::TLS13, &version::TLS12],
        (true, false) => &[&version::TLS12],
        (false, _) => &[&version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(chosen))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ignore_client_order = offer.own_order;
    config.session_storage = ServerSessionMemoryCache::new(offer.sessions);
    if offer.tickets {
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    }
    Ok(config)
}

/// A configuration that presents `identity`.
///
/// `alpn` lists protocols in the order of preference, such as `b"h2"`, `b"http/1.1"`. With an
/// empty list none is negotiated, which Kong's data planes need on their link.
///
/// # Errors
/// The key cannot be used, or `IssuedBy` has no authority.
pub fn server_config(
    identity: &Identity,
    client_auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let builder = builder(client_auth)?;
    let mut config = builder.with_single_cert(identity.chain().to_vec(), identity.key())?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// As [`server_config`], with the certificate chosen per connection (by server name).
///
/// # Errors
/// `IssuedBy` has no authority.
pub fn server_config_by_name(
    certificates: Arc<dyn ResolvesServerCert>,
    client_auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let mut config = builder(client_auth)?.with_cert_resolver(certificates);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn builder(
    client_auth: ClientAuth,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>, rustls::Error> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(match client_auth {
        ClientAuth::Off => builder.with_no_client_auth(),
        ClientAuth::Presented => builder.with_client_cert_verifier(Arc::new(PresentedClient)),
        ClientAuth::IssuedBy(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    })
}
