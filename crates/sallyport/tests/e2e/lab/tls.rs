//! TLS connections with everything that a stranger could vary.

use std::io::{self, Read};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use sallyport_runtime::tls::{Identity, ServerTrust, client_config, trust_store};

use super::Pair;

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// How to connect.
pub(crate) struct Handshake<'a> {
    pub(crate) port: u16,
    /// Name asked for by SNI, and checked unless anybody is trusted.
    pub(crate) name: &'a str,
    /// Authority to trust; anybody without one.
    pub(crate) ca: Option<&'a Path>,
    /// Certificate to show.
    pub(crate) pair: Option<&'a Pair>,
    /// Protocols to offer.
    pub(crate) alpn: &'a [&'a str],
}

impl Handshake<'_> {
    /// Connects to 127.0.0.1 and finishes the handshake as far as the client can tell.
    ///
    /// # Errors
    /// The peer hung up, or is not trusted.
    pub(crate) fn open(&self) -> io::Result<TlsStream> {
        let trust = match self.ca {
            None => ServerTrust::Anybody,
            Some(ca) => {
                let roots = trust_store(&[ca.display().to_string()]).map_err(io::Error::other)?;
                ServerTrust::Roots(Arc::new(roots))
            }
        };
        let identity = self
            .pair
            .map(|pair| Identity::from_pem(&pair.cert(), &pair.key()).unwrap());
        let mut config = client_config(trust, identity.as_ref()).map_err(io::Error::other)?;
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let name = self.name.to_owned().try_into().map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let tcp = TcpStream::connect(("127.0.0.1", self.port))?;
        tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
        tcp.set_write_timeout(Some(Duration::from_secs(20)))?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }
}

/// Everything that the peer says until it closes, by whatever end: alert, reset or silence.
///
/// # Panics
/// When the peer keeps the connection open without a word.
#[track_caller]
pub(crate) fn bytes_until_close(stream: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            panic!(
                "the peer keeps the connection open; so far it said {} bytes",
                all.len()
            )
        }
        _ => all,
    }
}
