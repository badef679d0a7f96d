//! The accepting side.

use std::sync::Arc;

use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, server::ResolvesServerCert};

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
