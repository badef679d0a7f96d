//! Why there is no link, in words an operator can act on.

use std::error::Error;
use std::io;

use fastwebsockets::WebSocketError;
use sallyport_runtime::DialError;
use sallyport_runtime::forward_proxy::ProxyError;
use sallyport_runtime::tls::{TlsFailure, explain};
use sallyport_wire::config_sync::SHARED_SERVER_NAME;

/// Why the link is down.
#[derive(Debug, thiserror::Error)]
pub enum Down {
    /// No TCP connection.
    #[error("{0}")]
    Dial(DialError),
    /// No way through the forward proxy.
    #[error("{0}")]
    Proxy(ProxyError),
    /// No TLS connection.
    #[error("{0}")]
    Tls(TlsFailure),
    /// No TLS connection in Kong's shared mode.
    #[error(
        "{0}; cluster_mtls is shared, which needs a control plane with the same certificate: where \
         it is reached by a name of its own, cluster_mtls is pki"
    )]
    TlsShared(TlsFailure),
    /// A step took too long.
    #[error("no answer within {limit_secs} s ({step})")]
    Timeout {
        /// What was going on.
        step: &'static str,
        /// The limit.
        limit_secs: u64,
    },
    /// The upgrade was answered with something else.
    #[error("the control plane answers {status} instead of opening the link{}", text(.body))]
    Status {
        /// HTTP status.
        status: u16,
        /// Beginning of the answer.
        body: String,
    },
    /// The connection ended during the upgrade.
    #[error("{0}")]
    Upgrade(String),
    /// The connection ended without a close frame.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The control plane closed the link.
    #[error("the control plane closed the link (code {code}{})", text(.reason))]
    Closed {
        /// Code of the close frame; 1005 if it had none.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// A message came in pieces, which the protocol forbids.
    #[error("the control plane sent a fragmented message")]
    Fragmented,
    /// A frame is larger than `cluster_max_payload`.
    #[error("the configuration is larger than cluster_max_payload ({bytes_max} bytes)")]
    TooLarge {
        /// The setting.
        bytes_max: usize,
    },
    /// Nothing came for too long.
    #[error("the control plane was silent for too long")]
    Silent,
    /// Frames pile up.
    #[error("the control plane does not read")]
    NotReading,
    /// The client hung up itself.
    #[error("this node closed the link")]
    HungUp,
    /// A task panicked.
    #[error("a bug in this gateway; see the log")]
    Bug,
}

fn text(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

impl Down {
    /// A failed upgrade. A control plane that does not accept the certificate says so by a TLS
    /// alert, or closes without a word.
    pub(crate) fn upgrade(error: &hyper::Error, peer: &str) -> Down {
        let source = io_source(error);
        let cut_off = match source {
            Some(source) => is_cut_off(source),
            None => error.is_incomplete_message() || error.is_canceled() || error.is_closed(),
        };
        Down::Upgrade(match source {
            _ if cut_off => format!(
                "the control plane closed the connection without an answer; usually it has no \
                 control plane of the name {peer}, or does not accept this node's cluster_cert \
                 there (its log says which)"
            ),
            Some(source) => explain(source, peer),
            None => format!("the control plane's answer is not HTTP: {error}"),
        })
    }

    /// A failed handshake. Kong's shared mode is the default, so it is often there by mistake.
    pub(super) fn tls(failure: TlsFailure, name: &str) -> Down {
        match name == SHARED_SERVER_NAME {
            false => Down::Tls(failure),
            true => Down::TlsShared(failure),
        }
    }

    /// A failed read or write.
    pub(super) fn socket(error: WebSocketError, peer: &str, bytes_max: usize) -> Down {
        match error {
            WebSocketError::FrameTooLarge => Down::TooLarge { bytes_max },
            WebSocketError::IoError(error) if is_cut_off(&error) => {
                Down::Lost("it was closed without a close frame".to_owned())
            }
            WebSocketError::IoError(error) => Down::Lost(explain(&error, peer)),
            WebSocketError::UnexpectedEOF => {
                Down::Lost("it was closed without a close frame".to_owned())
            }
            other => Down::Lost(format!(
                "the control plane breaks the WebSocket rules: {other}"
            )),
        }
    }
}

/// Whether the peer ended the connection without saying why (a TLS alert would say why).
fn is_cut_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let silent = error
        .get_ref()
        .is_none_or(|inner| !inner.is::<rustls::Error>());
    let ends = [
        BrokenPipe,
        ConnectionAborted,
        ConnectionReset,
        UnexpectedEof,
    ];
    silent && ends.contains(&error.kind())
}

fn io_source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        source = error.source();
    }
    None
}
