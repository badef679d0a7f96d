//! What there is to try.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sallyport_contract::{Flow, Net, Owner};

/// One far end of a row, on one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Contract id of the row.
    pub id: String,
    /// What the row is for.
    pub title: String,
    /// Who runs the far end.
    pub owner: Owner,
    /// The far end's role, in words.
    pub far: String,
    /// Port, or ICMP echo.
    pub flow: Flow,
    /// Where.
    pub target: Target,
    /// Addresses that the name should have; empty if nobody said.
    pub expected: Vec<Net>,
    /// Somebody said who issues the far end's certificate, so another issuer is not it.
    pub issuer_known: bool,
    /// The server name to ask for, where it is not the target's own.
    pub server_name: Option<String>,
    /// What to say once connected.
    pub talk: Talk,
    /// The forward proxy to go through.
    pub via: Option<Via>,
}

/// A far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name to look up.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// What proves that the far end is what the row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Talk {
    /// Nothing: the protocol does not let a stranger speak first.
    Nothing,
    /// The far end speaks first, beginning with this.
    Banner(&'static str),
    /// An HTTP request.
    Http,
    /// A TLS handshake.
    Tls {
        /// Whether the far end must ask for our certificate.
        mutual: bool,
        /// What to say inside.
        then: Then,
    },
    /// A DNS question for this name.
    Dns(String),
    /// A question for the time.
    Ntp,
    /// A datagram that has no defined answer.
    Datagram,
    /// ICMP echo.
    Echo,
}

/// What to say inside TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// An HTTP request.
    Http,
    /// A WebSocket upgrade with this path and query.
    Upgrade(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Name(name) => f.write_str(name),
            Target::Address(address) => address.fmt(f),
        }
    }
}

impl Check {
    /// The port, or 0 for ICMP.
    pub fn port(&self) -> u16 {
        match self.flow {
            Flow::Port(port) => port.port.get(),
            Flow::IcmpEcho => 0,
        }
    }

    /// Target and flow, as a person writes them: `a.example 443/tcp`.
    pub fn place(&self) -> String {
        format!("{} {}", self.target, self.flow)
    }
}

/// A forward proxy, `http://[user:password@]host:port`.
#[derive(Clone, PartialEq, Eq)]
pub struct Via {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `user:password`, never printed.
    pub credentials: Option<String>,
}

/// Text that is no forward proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a forward proxy is written http://host:port (user:password@ may stand before the host)")]
pub struct ViaError;

impl FromStr for Via {
    type Err = ViaError;

    fn from_str(text: &str) -> Result<Via, ViaError> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials.to_owned()), place),
            None => (None, rest),
        };
        let (host, port) = place.rsplit_once(':').ok_or(ViaError)?;
        let host = host
            .strip_prefix('[')
            .and_then(|it| it.strip_suffix(']'))
            .unwrap_or(host);
        let known = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        let port: u16 = port.parse().map_err(|_| ViaError)?;
        let clean = credentials
            .as_ref()
            .is_none_or(|it| !it.contains(char::is_control));
        if host.is_empty() || !host.chars().all(known) || port == 0 || !clean {
            return Err(ViaError);
        }
        Ok(Via {
            host: host.to_owned(),
            port,
            credentials,
        })
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<(&str, u16, Option<&str>), ViaError>) {
        let got = text.parse::<Via>();
        let got = got
            .as_ref()
            .map(|via| (via.host.as_str(), via.port, via.credentials.as_deref()));
        assert_eq!(got, want.as_ref().map(|it| *it), "{text}");
    }

    #[test]
    fn reads_forward_proxies() {
        check(
            "http://proxy.example:3128",
            Ok(("proxy.example", 3128, None)),
        );
        check("proxy.example:3128/", Ok(("proxy.example", 3128, None)));
        check(
            "http://u:p@w@[2001:db8::1]:80",
            Ok(("2001:db8::1", 80, Some("u:p@w"))),
        );
        check("http://proxy.example", Err(ViaError));
        check("https://proxy.example:3128", Err(ViaError));
        check("http://:3128", Err(ViaError));
        check("http://a b:3128", Err(ViaError));
        check("http://a:0", Err(ViaError));
        let via: Via = "http://u:secret@h:1".parse().unwrap();
        assert_eq!(format!("{via:?} {via}"), "h:1 h:1");
    }
}
