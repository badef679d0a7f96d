//! What a probe saw, without any judgement.

use std::net::{IpAddr, SocketAddr};

/// Everything that one check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The lookup; `None` for an address, and where a forward proxy looks names up.
    pub resolution: Option<Resolution>,
    /// One try for each address, in the resolver's order; bounded, so not always all.
    pub attempts: Vec<Attempt>,
}

/// What the resolver said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Its addresses, IPv4 and IPv6.
    Addresses(Vec<IpAddr>),
    /// There is no such name, or it has no address.
    NoSuchName,
    /// The resolver failed, in its words.
    Failed(String),
    /// No answer in time.
    Silent,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The address dialled (the proxy's, if one applies).
    pub address: SocketAddr,
    /// How far it came.
    pub end: End,
    /// Milliseconds until the end.
    pub took_ms: u64,
}

/// How far a try came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The far end, or a firewall in its name, said that nobody listens.
    Refused,
    /// No answer at all.
    Silent,
    /// A router or the system said that there is no way; in its words.
    Unreachable(String),
    /// This machine has no address of this family, or no route to any such address.
    NoRoute,
    /// This machine's own firewall forbade it.
    Forbidden,
    /// The forward proxy is there and did not open the way.
    ProxyRefused {
        /// HTTP status, 0 if the proxy spoke no HTTP or closed the connection.
        status: u16,
        /// Its reason, from the status line or squid's header.
        reason: String,
    },
    /// The way is open as far as TCP goes.
    Connected(Talked),
    /// A datagram came back.
    Answered(Answer),
    /// A datagram was sent, nothing came back, and no answer is defined.
    Sent,
    /// ICMP.
    Icmp(Icmp),
}

/// What came of an echo request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Icmp {
    /// The reply came.
    Reply,
    /// No reply.
    Silent,
    /// This user may not send ICMP; whether the host answers TCP instead (it was reached, or refused).
    NoRight {
        /// Whether anything came back on TCP.
        tcp_answers: bool,
    },
}

/// What came of talking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Talked {
    /// The doctor's own listener is at the far end (`--listen`).
    pub doctor: bool,
    /// The handshake, where the row has TLS.
    pub handshake: Option<Handshake>,
    /// We had a certificate to show.
    pub ours_shown: bool,
    /// The answer to what was said, if anything was.
    pub answer: Option<Answer>,
    /// After silence: whether smaller segments got an answer.
    pub small: Option<Small>,
}

/// A second try with smaller TCP segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Small {
    /// With segments of this many bytes there is an answer.
    Works(u32),
    /// Silence again.
    SilentToo,
}

/// What came of a TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It was completed; the certificate was noted and not judged by the library.
    Done(Shown),
    /// Nothing came in time.
    Silent,
    /// Some bytes came, then nothing more in time.
    Stalled,
    /// The connection was closed or reset.
    Closed,
    /// Something else than TLS answered, beginning with this (printable part).
    NotTls(String),
    /// The far end refused, in words.
    Refused(String),
}

/// A server certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Names and addresses that it stands for.
    pub names: Vec<String>,
    /// Unix seconds from which it is valid.
    pub not_before: i64,
    /// Unix seconds up to which it is valid.
    pub not_after: i64,
    /// Issuer and subject are the same.
    pub self_signed: bool,
    /// Whether it stands for the name that was dialled.
    pub name_fits: bool,
    /// What is wrong with it, by the trust in use.
    pub fault: Option<CertFault>,
}

/// Why a certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertFault {
    /// No longer valid.
    Expired,
    /// Not valid yet.
    NotYet,
    /// For other names.
    WrongName,
    /// By an authority that is not trusted.
    UnknownIssuer,
    /// Not exactly the certificate that is expected.
    NotPinned,
    /// Anything else, in words.
    Other(String),
}

/// An answer to what was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// HTTP.
    Http {
        /// The status.
        status: u16,
        /// How many seconds the far end's clock is ahead of ours, from `Date`.
        clock_ahead_secs: Option<i64>,
    },
    /// The far end spoke first, with these printable characters.
    Banner(String),
    /// It answered the DNS question with this response code.
    Dns(u8),
    /// It told the time; seconds by which it is ahead of ours.
    Time(i64),
    /// The doctor's own listener echoed the datagram.
    Doctor,
    /// It demands a client certificate.
    CertificateRequired,
    /// It refuses our client certificate, in words.
    CertificateRefused(String),
    /// Nothing came in time.
    Silent,
    /// Something came, but not all of an answer in time; printable part.
    Unfinished(String),
    /// The connection was closed or reset.
    Closed,
    /// Something that is not the protocol, printable part.
    Garbage(String),
}
