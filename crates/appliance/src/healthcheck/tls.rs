//! TLS on the port of health, beside plain HTTP: the first byte tells which of them a client speaks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use sallyport_runtime::tls::{ClientAuth, Identity, server_config};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::node_control::converse;

/// How a TLS connection begins: a record of the type handshake.
const HANDSHAKE: u8 = 0x16;
/// For the first byte, and for the handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// The certificate of the port, as its files had it when they were read last.
pub(crate) struct Secured {
    certificate: PathBuf,
    key: PathBuf,
    changed: [Option<SystemTime>; 2],
    acceptor: TlsAcceptor,
}

impl Secured {
    /// Reads certificate and key (PEM).
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn open(certificate: &Path, key: &Path) -> Result<Secured, String> {
        Ok(Secured {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            changed: changed(certificate, key),
            acceptor: acceptor(certificate, key)?,
        })
    }

    /// Takes over files that have changed; while they cannot be used the former ones hold.
    pub(super) fn look(&mut self) {
        let changed = changed(&self.certificate, &self.key);
        if changed == self.changed {
            return;
        }
        self.changed = changed;
        match acceptor(&self.certificate, &self.key) {
            Ok(acceptor) => {
                self.acceptor = acceptor;
                info!(certificate = %self.certificate.display(), "certificate of health exchanged");
            }
            Err(error) => warn!(error, "the new certificate of health cannot be used"),
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

fn changed(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificate, key].map(|path| path.metadata().and_then(|it| it.modified()).ok())
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", certificate.display());
    let identity = Identity::load(&certificate.to_string_lossy(), &key.to_string_lossy());
    let identity = identity.map_err(|error| told(&error))?;
    let config = server_config(&identity, ClientAuth::Off, &[b"http/1.1"]);
    Ok(TlsAcceptor::from(Arc::new(
        config.map_err(|error| told(&error))?,
    )))
}

/// Serves a connection in what it speaks, for at most `limit` after the handshake.
pub(super) async fn arrived(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    limit: Duration,
) {
    let Some(tls) = tls else {
        return converse(stream, router, limit).await;
    };
    let mut first = [0];
    match timeout(HANDSHAKE_TIME_MAX, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first == [HANDSHAKE] => {}
        Ok(Ok(1)) => return converse(stream, router, limit).await,
        _ => return debug!("a connection of health said nothing"),
    }
    match timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, router, limit).await,
        Ok(Err(error)) => debug!(%error, "no TLS handshake"),
        Err(_) => debug!("no TLS handshake in time"),
    }
}
