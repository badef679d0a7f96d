//! TLS on the listener: for clients where a certificate is configured, for nodes always.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use sallyport_runtime::tls::client::{ClientConfigError, TrustError};
use sallyport_runtime::tls::identity::IdentityError;
use sallyport_runtime::tls::{
    ClientAuth, Identity, ServerTrust, client_config, explain, server_config, trust_store,
};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Asking;
use super::first_bytes::Replay;
use crate::rate_limit::cluster::{ALPN, Members, Peer, Peers};
use crate::rate_limit::config::{ClusterSection, Config, RedisSection};

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
    /// The authority of nodes, or of Redis.
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

/// The accepting side.
pub(super) struct Accept {
    clients: Option<Arc<ServerConfig>>,
    nodes: Option<Peers>,
    required: bool,
}

/// A finished handshake.
pub(super) struct Accepted {
    pub(super) stream: TlsStream<Replay<TcpStream>>,
    pub(super) asking: Asking,
    /// The node's certificate, if it is one.
    pub(super) certificate: Option<CertificateDer<'static>>,
}

impl Accept {
    /// What the file says of clients; `nodes` are those that count together.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(super) fn new(config: &Config, nodes: Option<Peers>) -> Result<Accept, TlsError> {
        let clients = match &config.tls {
            None => None,
            Some(section) => {
                let identity = identity(&section.certificate, &section.key)?;
                Some(Arc::new(server_config(&identity, ClientAuth::Off, &[])?))
            }
        };
        Ok(Accept {
            clients,
            nodes,
            required: config.tls.as_ref().is_some_and(|section| section.required),
        })
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
            true => (
                self.nodes.as_ref().map(|peers| peers.accept.clone()),
                Asking::Node,
            ),
            false => (self.clients.clone(), Asking::Client),
        };
        let config = config.ok_or("a TLS handshake where no certificate is configured")?;
        let stream = hello.into_stream(config).await;
        let stream = stream.map_err(|error| explain(&error, peer))?;
        let mut certificate = None;
        if asking == Asking::Node {
            let chain = stream.get_ref().1.peer_certificates();
            let leaf = chain.and_then(|chain| chain.first());
            self.admits(leaf)?;
            certificate = leaf.map(|leaf| leaf.clone().into_owned());
        }
        Ok(Accepted {
            stream,
            asking,
            certificate,
        })
    }

    fn admits(&self, certificate: Option<&CertificateDer<'_>>) -> Result<(), String> {
        let peers = self.nodes.as_ref();
        peers.map_or(Ok(()), |peers| (peers.admits)(certificate))
    }

    /// Waits until the node of this certificate is none any more; says why. May be dropped.
    pub(super) async fn cast_out(&self, certificate: Option<CertificateDer<'static>>) -> String {
        if let (Some(peers), Some(certificate)) = (&self.nodes, certificate) {
            let mut members = peers.members.clone();
            loop {
                if let Err(why) = (peers.admits)(Some(&certificate)) {
                    return why;
                }
                if members.changed().await.is_err() {
                    break;
                }
            }
        }
        std::future::pending().await
    }
}

/// The nodes that a file lists: both sides show a certificate of the same authority, and the one
/// that is dialled bears the node's name.
pub(super) fn listed(section: &ClusterSection) -> Result<Peers, TlsError> {
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
    let peer = |(name, address): (&String, &String)| {
        // checked when the file was read
        let (host, port) = address.rsplit_once(':')?;
        let peer = Peer {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.parse().ok()?,
            certified: name.clone(),
        };
        Some((name.clone(), peer))
    };
    let others = section.nodes.iter().filter(|it| *it.0 != section.node);
    let members = Members {
        here: true,
        others: others.filter_map(peer).collect(),
        revision: 0,
    };
    Ok(Peers {
        node: section.node.clone(),
        members: watch::channel(members).1,
        accept: Arc::new(accept),
        dial: Arc::new(dial),
        admits: Arc::new(|_| Ok(())),
        answer_within: Duration::from_millis(section.answer_ms.into()),
    })
}

/// How Redis is spoken to over TLS, if it is.
pub(super) fn to_redis(section: &RedisSection) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    let Some(ca) = &section.ca else {
        return Ok(None);
    };
    let roots = trust_store(&[ca.to_string_lossy()]).map_err(|source| TlsError::Authority {
        path: ca.clone(),
        source,
    })?;
    let config = client_config(ServerTrust::Roots(Arc::new(roots)), None)?;
    Ok(Some(Arc::new(config)))
}

/// Certificate and key of two files.
pub(super) fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
    let (path, key) = (certificate.to_string_lossy(), key.to_string_lossy());
    Identity::load(&path, &key).map_err(|source| TlsError::Identity {
        path: certificate.to_owned(),
        source,
    })
}
