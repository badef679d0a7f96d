//! Where queues are emptied to.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::endpoint::Endpoint;

/// Makes payloads of a batch: one for a stream or a request, any number of datagrams.
pub type Encode = Box<dyn Fn(&[Bytes]) -> Vec<Bytes> + Send + Sync>;

/// Where a queue is emptied to, and in which form.
pub struct Destination {
    /// The far end.
    pub sink: Sink,
    /// What a batch looks like there.
    pub encode: Encode,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.fmt(f)
    }
}

impl Destination {
    pub(crate) fn new(
        sink: Sink,
        encode: impl Fn(&[Bytes]) -> Vec<Bytes> + Send + Sync + 'static,
    ) -> Arc<Destination> {
        Arc::new(Destination {
            sink,
            encode: Box::new(encode),
        })
    }
}

/// A far end of queues. What is dialled goes by the contract entry of the plugin, whose name it
/// has with `_` for `-`.
#[derive(Clone)]
pub enum Sink {
    /// A file that lines are appended to.
    File {
        /// Where it is.
        path: PathBuf,
        /// Whether it is opened anew for each batch.
        reopen: bool,
    },
    /// A server that gets a request for each payload.
    Http(HttpSink),
    /// A connection that payloads are written to.
    Tcp {
        /// Name or address.
        host: String,
        /// Its port.
        port: u16,
        /// For connecting, and for each write.
        timeout: Duration,
        /// How long it may be idle before it is opened anew.
        keepalive: Duration,
        /// The name asked for in a TLS handshake, if there is one; nobody verifies it.
        tls: Option<String>,
    },
    /// A socket that gets a datagram for each payload.
    Udp {
        /// Name or address.
        host: String,
        /// Its port.
        port: u16,
        /// For finding the address.
        timeout: Duration,
    },
    /// The syslog daemon of this machine.
    Syslog,
}

/// How an HTTP server is asked.
#[derive(Clone)]
pub struct HttpSink {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The method.
    pub method: Method,
    /// Fields of each request, `Host` and `Content-Length` apart.
    pub headers: HeaderMap,
    /// For connecting, the TLS handshake included.
    pub connect_timeout: Duration,
    /// From the first byte of a request to the last of its answer.
    pub exchange_timeout: Duration,
    /// How long a connection may be idle before another is opened.
    pub keepalive: Duration,
    /// Whether the server's certificate must chain to `lua_ssl_trusted_certificate`.
    pub verify: bool,
}

/// Never what may be a secret: paths, queries, user names, headers.
impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sink::File { path, .. } => write!(f, "{}", path.display()),
            Sink::Http(http) => write!(f, "{}:{}", http.endpoint.host, http.endpoint.port),
            Sink::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Sink::Udp { host, port, .. } => write!(f, "{host}:{port}/udp"),
            Sink::Syslog => f.write_str("syslog"),
        }
    }
}
