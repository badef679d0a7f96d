//! The dialling side.

use std::sync::Arc;

use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::anchored_server::AnchoredServer;
use super::depth_limited::DepthLimited;
use super::explain::{TlsFailure, explain};
use super::identity::Identity;
use super::leaf::{CertDigest, LeafError};
use super::pem::{PemError, certificates, read_pem};
use super::pinned_server::PinnedServer;
use super::provider;
use super::rooted_server::RootedServer;
use super::unverified_server::UnverifiedServer;

/// Which servers are believed.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// Those whose certificate chains to one of these and bears the name that is dialled.
    Roots(Arc<RootCertStore>),
    /// The one with exactly this certificate, whatever the names in it.
    Exactly(CertificateDer<'static>),
    /// Any. For upstreams that nobody asked to verify.
    Anybody,
}

/// Why a client configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// The certificate to pin is none.
    #[error(transparent)]
    Pin(#[from] LeafError),
    /// The client certificate or key cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    Identity(#[from] rustls::Error),
}

/// A configuration that believes `trust` and presents `identity`, without ALPN (set
/// `alpn_protocols` for it).
///
/// # Errors
/// See [`ClientConfigError`].
pub fn client_config(
    trust: ServerTrust,
    identity: Option<&Identity>,
) -> Result<ClientConfig, ClientConfigError> {
    let builder = builder()?;
    let builder = match trust {
        // without any authority there is nothing to build from; then nobody is believed
        ServerTrust::Roots(roots) if roots.is_empty() => builder.with_root_certificates(roots),
        ServerTrust::Roots(roots) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(rooted(roots)?)),
        ServerTrust::Exactly(certificate) => {
            let verifier = Arc::new(PinnedServer::new(certificate)?);
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        }
        ServerTrust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(UnverifiedServer)),
    };
    Ok(showing(builder, identity)?)
}

/// As [`client_config`] with [`ServerTrust::Roots`], where at most `depth` certificates may stand
/// between the server's own and the authority's.
///
/// # Errors
/// See [`ClientConfigError`].
pub fn client_config_within(
    roots: Arc<RootCertStore>,
    depth: u8,
    identity: Option<&Identity>,
) -> Result<ClientConfig, ClientConfigError> {
    if roots.is_empty() {
        return client_config(ServerTrust::Roots(roots), identity);
    }
    let verifier = DepthLimited {
        rooted: rooted(roots.clone())?,
        roots,
        depth,
    };
    let builder = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(showing(builder, identity)?)
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
}

fn rooted(roots: Arc<RootCertStore>) -> Result<RootedServer, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map(RootedServer)
        .map_err(|error| rustls::Error::General(error.to_string()))
}

fn showing(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, rustls::Error> {
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => builder.with_client_auth_cert(identity.chain().to_vec(), identity.key()),
    }
}

/// A configuration that believes servers of the authority with this digest, which they send along,
/// if they bear the name that is dialled. It presents nothing.
///
/// # Errors
/// The provider lacks TLS versions, which this build's does not.
pub fn anchored_client_config(authority: CertDigest) -> Result<ClientConfig, rustls::Error> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnchoredServer(authority)))
        .with_no_client_auth())
}

/// Why a list of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The system's list is empty or unreadable.
    #[error("\"system\": this machine has no certificate authorities installed{0}")]
    System(String),
    /// An entry of the list cannot be read.
    #[error("entry {at} {source}")]
    Entry {
        /// Position in the list, from 1.
        at: usize,
        /// What is wrong with it.
        source: PemError,
    },
    /// A certificate of an entry cannot be an authority.
    #[error("entry {at} holds a certificate that cannot be used: {source}")]
    Certificate {
        /// Position in the list, from 1.
        at: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
}

/// The authorities of a list such as Kong's `lua_ssl_trusted_certificate`: each entry is
/// `system`, or a path, PEM text, or base64 of PEM text with one or more certificates.
///
/// # Errors
/// An entry that yields nothing; see [`TrustError`].
pub fn trust_store<S: AsRef<str>>(entries: &[S]) -> Result<RootCertStore, TrustError> {
    let mut store = RootCertStore::empty();
    for (entry, at) in entries.iter().map(AsRef::as_ref).zip(1..) {
        if entry == "system" {
            let found = rustls_native_certs::load_native_certs();
            let (added, _ignored) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                let reason = found.errors.first().map(|error| format!(" ({error})"));
                return Err(TrustError::System(reason.unwrap_or_default()));
            }
        } else {
            let pem = read_pem(entry).and_then(|pem| certificates(&pem));
            for certificate in pem.map_err(|source| TrustError::Entry { at, source })? {
                store
                    .add(certificate)
                    .map_err(|source| TrustError::Certificate { at, source })?;
            }
        }
    }
    Ok(store)
}

/// Performs the handshake on a connected stream, asking for `server_name` (a DNS name or an
/// address). The caller bounds the time.
///
/// # Errors
/// The handshake failed; the error explains it to an operator.
pub async fn connect<S>(
    config: Arc<ClientConfig>,
    server_name: &str,
    stream: S,
) -> Result<TlsStream<S>, TlsFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failure = |source| TlsFailure {
        explanation: explain(&source, server_name),
        source,
    };
    let name = ServerName::try_from(server_name.to_owned()).map_err(|_| {
        failure(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            format!("{server_name:?} is neither a DNS name nor an address"),
        ))
    })?;
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(failure)
}
