//! TLS on the listener: for clients where a certificate is configured, for nodes always.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use sallyport_runtime::tls::identity::IdentityError;
use sallyport_runtime::tls::{ClientAuth, Identity, explain, server_config};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Asking;
use super::first_bytes::Replay;
use crate::rate_limit::config::Config;

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
    /// TLS as a whole.
    #[error("TLS cannot be set up: {0}")]
    Config(#[from] rustls::Error),
}

/// The accepting side.
pub(super) struct Accept {
    clients: Option<Arc<ServerConfig>>,
    required: bool,
}

/// A finished handshake.
pub(super) struct Accepted {
    pub(super) stream: TlsStream<Replay<TcpStream>>,
    pub(super) asking: Asking,
}

impl Accept {
    /// What the file says.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(super) fn new(config: &Config) -> Result<Accept, TlsError> {
        let clients = match &config.tls {
            None => None,
            Some(section) => {
                let identity = identity(&section.certificate, &section.key)?;
                Some(Arc::new(server_config(&identity, ClientAuth::Off, &[])?))
            }
        };
        Ok(Accept {
            clients,
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
        let config = self
            .clients
            .clone()
            .ok_or("a TLS handshake where no certificate is configured")?;
        let stream = hello.into_stream(config).await;
        Ok(Accepted {
            stream: stream.map_err(|error| explain(&error, peer))?,
            asking: Asking::Client,
        })
    }
}

/// Certificate and key of two files.
pub(super) fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
    let (path, key) = (certificate.to_string_lossy(), key.to_string_lossy());
    Identity::load(&path, &key).map_err(|source| TlsError::Identity {
        path: certificate.to_owned(),
        source,
    })
}
