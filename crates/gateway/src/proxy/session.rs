//! What a client's TLS handshake agreed on, by the names that logs use.

use rustls::{ProtocolVersion, ServerConnection};
use sallyport_plugins::TlsSession;
use sallyport_runtime::tls::suites::openssl_name;

/// The facts of a finished handshake.
pub(super) fn session(connection: &ServerConnection) -> TlsSession {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "",
    };
    let suite = connection.negotiated_cipher_suite();
    TlsSession {
        version,
        cipher: suite.map_or("", |suite| openssl_name(suite.suite())),
        client_verify: match connection.peer_certificates() {
            // a handshake whose certificate is refused does not finish
            Some([_, ..]) => "SUCCESS",
            _ => "NONE",
        },
    }
}
