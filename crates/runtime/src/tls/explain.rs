//! TLS failures in words an operator can act on.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use super::leaf::date;

/// A handshake or connection failed.
#[derive(Debug, thiserror::Error)]
#[error("TLS failed: {explanation}")]
pub struct TlsFailure {
    /// What happened and whose certificate it is about.
    pub explanation: String,
    /// The failure as the library gave it.
    pub source: io::Error,
}

/// Says what went wrong on a TLS connection with `peer` (the name that was dialled, or the
/// address of a client).
pub fn explain(error: &io::Error, peer: &str) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(tls) => explain_tls(tls, peer),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => format!(
                "{peer} closed the connection during the handshake (it may not accept the \
                 certificate shown to it, or not speak TLS on this port)"
            ),
            _ => error.to_string(),
        },
    }
}

fn explain_tls(error: &Error, peer: &str) -> String {
    match error {
        Error::InvalidCertificate(reason) => explain_certificate(reason, peer),
        Error::AlertReceived(alert) => explain_alert(*alert, peer),
        Error::NoCertificatesPresented => format!("{peer} shows no certificate, one is required"),
        Error::InvalidMessage(_) => {
            format!("{peer} does not speak TLS on this port, or something in between answers")
        }
        Error::PeerIncompatible(reason) => {
            format!("{peer} and this build have no TLS version or algorithm in common ({reason:?})")
        }
        other => format!("{peer}: {other}"),
    }
}

fn explain_certificate(reason: &CertificateError, peer: &str) -> String {
    match reason {
        CertificateError::Expired => format!("the certificate of {peer} has expired"),
        CertificateError::ExpiredContext { not_after, time } => format!(
            "the certificate of {peer} expired on {} (it is {} here)",
            time_text(*not_after),
            time_text(*time)
        ),
        CertificateError::NotValidYet => format!("the certificate of {peer} is not valid yet"),
        CertificateError::NotValidYetContext { not_before, time } => format!(
            "the certificate of {peer} is valid only from {} (it is {} here: check the clocks)",
            time_text(*not_before),
            time_text(*time)
        ),
        CertificateError::UnknownIssuer => format!(
            "the certificate of {peer} was issued by an authority that is not trusted here; add \
             its CA certificate to the trusted ones"
        ),
        CertificateError::NotValidForName => {
            format!("the certificate shown is not valid for the name {peer}")
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let names = if presented.is_empty() {
                "no name at all".to_owned()
            } else {
                let plain: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
                plain.join(", ")
            };
            format!(
                "the certificate shown is not valid for {:?}, but for {names}",
                expected.to_str()
            )
        }
        CertificateError::BadSignature => {
            format!("{peer} could not prove that it holds the key of its certificate")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("the certificate of {peer} is not meant for this use (extended key usage)")
        }
        CertificateError::BadEncoding => format!("the certificate of {peer} cannot be read"),
        CertificateError::Revoked => format!("the certificate of {peer} was revoked"),
        CertificateError::Other(other) => format!("{peer}: {}", other.0),
        other => format!("the certificate of {peer} is refused: {other}"),
    }
}

/// A name without the kind of name around it, such as `DnsName("a.example")`.
fn bare(presented: &str) -> &str {
    let inner = presented.split_once('(').map(|(_, rest)| rest);
    let inner = inner.and_then(|rest| rest.strip_suffix(')'));
    inner.map_or(presented, |inner| inner.trim_matches('"'))
}

fn explain_alert(alert: AlertDescription, peer: &str) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateExpired => {
            format!("{peer} says that our certificate has expired or is not valid yet")
        }
        Alert::UnknownCA => {
            format!("{peer} does not know the authority that issued our certificate")
        }
        Alert::CertificateRequired | Alert::NoCertificate => {
            format!("{peer} requires a client certificate and got none")
        }
        Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::AccessDenied => format!("{peer} refuses our certificate ({alert:?})"),
        Alert::UnrecognisedName => format!("the server does not serve the name {peer}"),
        Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => {
            format!("{peer} and this build have no TLS version or algorithm in common ({alert:?})")
        }
        Alert::NoApplicationProtocol => {
            format!("{peer} speaks none of the protocols offered (ALPN)")
        }
        other => format!("{peer} ended the handshake with alert {other:?}"),
    }
}

fn time_text(time: UnixTime) -> String {
    date(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
