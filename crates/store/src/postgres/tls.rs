//! TLS to the server: what libpq's `sslmode` asks for, on rustls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sallyport_runtime::tls::{self, Identity, ServerTrust};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::address::{Address, Verify};

/// The settings of every handshake; the error names the part of the address that is at fault.
pub(super) fn config(address: &Address) -> Result<Arc<ClientConfig>, String> {
    let identity = match &address.client {
        Some((cert, key)) => Some(
            Identity::load(cert, key).map_err(|error| format!("sslcert and sslkey: {error}"))?,
        ),
        None => None,
    };
    if address.verify == Verify::Nothing {
        let config = tls::client_config(ServerTrust::Anybody, identity.as_ref());
        return Ok(Arc::new(config.map_err(|error| error.to_string())?));
    }
    let root = address.root.as_deref().unwrap_or("system");
    let roots = tls::trust_store(&[root]).map_err(|error| format!("sslrootcert: {error}"))?;
    let roots = Arc::new(roots);
    let mut config = tls::client_config(ServerTrust::Roots(Arc::clone(&roots)), identity.as_ref())
        .map_err(|error| error.to_string())?;
    if address.verify == Verify::Issuer {
        let whole = WebPkiServerVerifier::builder_with_provider(roots, tls::provider()).build();
        let whole = whole.map_err(|error| format!("sslrootcert: {error}"))?;
        let verifier = Arc::new(IssuerOnly(whole));
        config.dangerous().set_certificate_verifier(verifier);
    }
    Ok(Arc::new(config))
}

/// `verify-ca`: an authority issued the certificate, whatever the names in it.
#[derive(Debug)]
struct IssuerOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for IssuerOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is looked at last, so every other check has passed by then.
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Performs the handshake with one host.
pub(super) struct Handshake {
    pub(super) config: Arc<ClientConfig>,
    pub(super) host: String,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = tls::TlsFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted<S>, tls::TlsFailure>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let stream = tls::connect(self.config, &self.host, stream).await?;
            Ok(Encrypted(stream))
        })
    }
}

/// A connection inside TLS.
pub(super) struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        // SCRAM without it is what libpq does with `channel_binding=disable`; who must not be
        // between us and the server is kept out by `verify-full`.
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
