//! TLS on the listener: for clients where a certificate is configured, for nodes always.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use sallyport_runtime::tls::client::{ClientConfigError, TrustError};
use sallyport_runtime::tls::identity::IdentityError;
use sallyport_runtime::tls::{
    ClientAuth, Identity, ServerTrust, client_config, explain, server_config, trust_store,
};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Asking;
use super::first_bytes::Replay;
use crate::rate_limit::cluster::ALPN;
use crate::rate_limit::config::{ClusterSection, Config};

/// Certificates or keys of the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Certificate and key.
    #[error("{}: {source}", .path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The nodes' authority.
    #[error("{}: {source}", .path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: TrustError,
    },
    /// The dialling side.
    #[error(transparent)]
    Client(#[from] ClientConfigError),
    /// TLS as a whole.
    #[error("TLS cannot be set up: {0}")]
    Config(#[from] rustls::Error),
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) struct Address {
    /// Name or address, without brackets.
    pub(in crate::rate_limit) host: String,
    pub(in crate::rate_limit) port: u16,
}

/// The nodes that count together, and how they are dialled.
pub(in crate::rate_limit) struct Nodes {
    /// This one's name.
    pub(in crate::rate_limit) node: String,
    /// All of them.
    pub(in crate::rate_limit) addresses: Vec<(String, Address)>,
    pub(in crate::rate_limit) tls: Arc<ClientConfig>,
    /// How long another one may take to answer.
    pub(in crate::rate_limit) answer_within: Duration,
}

/// The accepting side.
pub(super) struct Accept {
    clients: Option<Arc<ServerConfig>>,
    nodes: Option<Arc<ServerConfig>>,
    required: bool,
}

/// A finished handshake.
pub(super) struct Accepted {
    pub(super) stream: TlsStream<Replay<TcpStream>>,
    pub(super) asking: Asking,
}

impl Accept {
    /// What the file says, and the nodes to dial.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(super) fn new(config: &Config) -> Result<(Accept, Option<Nodes>), TlsError> {
        let clients = match &config.tls {
            None => None,
            Some(section) => {
                let identity = identity(&section.certificate, &section.key)?;
                Some(Arc::new(server_config(&identity, ClientAuth::Off, &[])?))
            }
        };
        let (nodes, dialled) = match &config.cluster {
            None => (None, None),
            Some(section) => {
                let (accept, dial) = among_nodes(section)?;
                (Some(accept), Some(dial))
            }
        };
        let accept = Accept {
            clients,
            nodes,
            required: config.tls.as_ref().is_some_and(|section| section.required),
        };
        Ok((accept, dialled))
    }

    /// Whether clients without TLS are sent away.
    pub(super) fn is_required(&self) -> bool {
        self.required
    }

    /// Performs the handshake; the caller bounds the time.
    ///
    /// # Errors
    /// What failed, in words.
    pub(super) async fn accept(
        &self,
        stream: Replay<TcpStream>,
        peer: &str,
    ) -> Result<Accepted, String> {
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let hello = hello.await.map_err(|error| explain(&error, peer))?;
        let is_node = self.nodes.is_some() && {
            let mut offered = hello.client_hello().alpn().into_iter().flatten();
            offered.any(|protocol| protocol == ALPN)
        };
        let (config, asking) = match is_node {
            true => (self.nodes.clone(), Asking::Node),
            false => (self.clients.clone(), Asking::Client),
        };
        let config = config.ok_or("a TLS handshake where no certificate is configured")?;
        let stream = hello.into_stream(config).await;
        let stream = stream.map_err(|error| explain(&error, peer))?;
        Ok(Accepted { stream, asking })
    }
}

/// How nodes are accepted and dialled: both sides show a certificate of the same authority, and
/// the one that is dialled bears the node's name.
fn among_nodes(section: &ClusterSection) -> Result<(Arc<ServerConfig>, Nodes), TlsError> {
    let identity = identity(&section.certificate, &section.key)?;
    let ca = section.ca.to_string_lossy();
    let roots = trust_store(&[ca]).map_err(|source| TlsError::Authority {
        path: section.ca.clone(),
        source,
    })?;
    let roots = Arc::new(roots);
    let accept = server_config(&identity, ClientAuth::IssuedBy(roots.clone()), &[ALPN])?;
    let mut dial = client_config(ServerTrust::Roots(roots), Some(&identity))?;
    dial.alpn_protocols = vec![ALPN.to_vec()];
    let address = |(name, address): (&String, &String)| {
        // checked when the file was read
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = port.parse().ok()?;
        Some((name.clone(), Address { host, port }))
    };
    let nodes = Nodes {
        node: section.node.clone(),
        addresses: section.nodes.iter().filter_map(address).collect(),
        tls: Arc::new(dial),
        answer_within: Duration::from_millis(section.answer_ms.into()),
    };
    Ok((Arc::new(accept), nodes))
}

/// Certificate and key of two files.
pub(super) fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
    let (path, key) = (certificate.to_string_lossy(), key.to_string_lossy());
    Identity::load(&path, &key).map_err(|source| TlsError::Identity {
        path: certificate.to_owned(),
        source,
    })
}
