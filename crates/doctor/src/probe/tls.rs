//! A TLS handshake that notes the certificate and what is wrong with it, instead of breaking off.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use sallyport_runtime::tls::pinned_server::PinnedServer;
use sallyport_runtime::tls::{Leaf, ServerTrust, client_config, explain, provider, signatures};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Options;
use crate::check::Check;
use crate::listen::GREETING;
use crate::seen::{CertFault, Handshake, Shown};
use crate::wire::printable;

/// What came of it.
pub(super) enum Shaken {
    Done(Shown, Box<TlsStream<Watched>>),
    Failed(Handshake),
    /// The doctor's own listener answered.
    Doctor,
}

pub(super) async fn handshake(
    check: &Check,
    options: &Options,
    stream: TcpStream,
    mutual: bool,
) -> Shaken {
    let cluster = options.cluster.as_ref().filter(|_| mutual);
    let (trust, identity) = match cluster {
        Some((trust, identity)) => (trust, Some(identity)),
        None => (&options.trust, None),
    };
    let name = check.server_name.clone();
    let name = name.unwrap_or_else(|| check.target.to_string());
    let refused = |reason: String| Shaken::Failed(Handshake::Refused(reason));
    let noted = Arc::new(Mutex::new(None));
    let config = client_config(ServerTrust::Anybody, identity);
    let (mut config, name) = match (config, ServerName::try_from(name.clone())) {
        (Ok(config), Ok(name)) => (config, name),
        (Err(error), _) => return refused(error.to_string()),
        (_, Err(_)) => return refused(format!("{name:?} is no server name")),
    };
    let verifier = Noting {
        trust: trust.clone(),
        noted: Arc::clone(&noted),
    };
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(verifier));
    let first = Arc::new(Mutex::new(Vec::new()));
    let stream = Watched {
        inner: stream,
        first: Arc::clone(&first),
    };
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let ended = timeout(options.limit, connecting).await;
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if first.starts_with(GREETING) {
        return Shaken::Doctor;
    }
    let shown = noted.lock().unwrap_or_else(PoisonError::into_inner).take();
    match ended {
        Ok(Ok(stream)) => Shaken::Done(shown.unwrap_or_default(), Box::new(stream)),
        Ok(Err(error)) => Shaken::Failed(failure(&error, &first, check)),
        Err(_) if first.is_empty() => Shaken::Failed(Handshake::Silent),
        Err(_) => Shaken::Failed(Handshake::Stalled),
    }
}

fn failure(error: &io::Error, first: &[u8], check: &Check) -> Handshake {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidMessage(_)) => Handshake::NotTls(printable(first)),
        Some(_) => Handshake::Refused(explain(error, &check.target.to_string())),
        None => Handshake::Closed,
    }
}

/// Judges certificates by `trust`, notes the result and goes on.
#[derive(Debug)]
struct Noting {
    trust: ServerTrust,
    noted: Arc<Mutex<Option<Shown>>>,
}

impl Noting {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let unknown = || Error::from(CertificateError::UnknownIssuer);
        match &self.trust {
            ServerTrust::Anybody => Ok(()),
            ServerTrust::Exactly(pinned) => {
                let verifier = PinnedServer::new(pinned.clone()).map_err(|_| unknown())?;
                verifier
                    .verify_server_cert(leaf, chain, name, &[], now)
                    .map(drop)
            }
            ServerTrust::Roots(roots) => {
                let builder =
                    WebPkiServerVerifier::builder_with_provider(roots.clone(), provider());
                let verifier = builder.build().map_err(|_| unknown())?;
                verifier
                    .verify_server_cert(leaf, chain, name, &[], now)
                    .map(drop)
            }
        }
    }
}

fn fault(error: &Error) -> CertFault {
    let Error::InvalidCertificate(reason) = error else {
        return CertFault::Other(error.to_string());
    };
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertFault::NotYet
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertFault::WrongName
        }
        CertificateError::UnknownIssuer => CertFault::UnknownIssuer,
        CertificateError::Other(other) if other.0.to_string().contains("expected is exactly") => {
            CertFault::NotPinned
        }
        // A self-signed certificate that is no authority: nobody known issued it.
        other if other.to_string().contains("CaUsedAsEndEntity") => CertFault::UnknownIssuer,
        other => CertFault::Other(other.to_string()),
    }
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.judge(end_entity, intermediates, server_name, now);
        let mut shown = Shown {
            issuer: "an authority without a name".to_owned(),
            fault: judged.err().map(|error| fault(&error)),
            ..Shown::default()
        };
        if let Ok(leaf) = Leaf::parse(end_entity) {
            shown.names = leaf
                .names
                .iter()
                .map(|it| printable(it.as_bytes()))
                .collect();
            (shown.not_before, shown.not_after) = (leaf.not_before, leaf.not_after);
        }
        if let Ok((_, parsed)) = X509Certificate::from_der(end_entity) {
            let issuer = printable(parsed.issuer().to_string().as_bytes());
            if !issuer.is_empty() {
                shown.issuer = format!("{issuer:?}");
            }
            shown.self_signed = parsed.issuer() == parsed.subject();
        }
        let parsed = ParsedCertificate::try_from(end_entity);
        shown.name_fits =
            parsed.is_ok_and(|parsed| verify_server_name(&parsed, server_name).is_ok());
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signatures::verify_tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signatures::verify_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signatures::schemes()
    }
}

/// A stream that keeps the first bytes that came.
pub(super) struct Watched {
    inner: TcpStream,
    first: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let room = 64_usize.saturating_sub(first.len());
        first.extend(buf.filled()[before..].iter().take(room));
        drop(first);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
