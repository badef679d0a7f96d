//! Ports, transports and what a packet filter tells apart.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A TCP or UDP port that can be bound or dialled; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Port(NonZeroU16);

impl Port {
    /// The number, 1..=65535.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// A port, or a port with transport, that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Port 0 cannot be dialled.
    #[error("port 0 cannot be used")]
    Zero,
    /// Not of the form `443/tcp`.
    #[error("`{0}` is not a port with transport such as `443/tcp` or `53/udp`")]
    Form(String),
}

impl TryFrom<u16> for Port {
    type Error = PortError;
    fn try_from(raw: u16) -> Result<Port, PortError> {
        NonZeroU16::new(raw).map(Port).ok_or(PortError::Zero)
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> u16 {
        port.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transport that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// `tcp` or `udp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A port on a transport; in a catalogue written as `443/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct PortUse {
    /// The port of the side that is dialled.
    pub port: Port,
    /// TCP or UDP.
    pub transport: Transport,
}

impl FromStr for PortUse {
    type Err = PortError;
    fn from_str(text: &str) -> Result<PortUse, PortError> {
        let form = || PortError::Form(text.to_owned());
        let (port, transport) = text.split_once('/').ok_or_else(form)?;
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(form()),
        };
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(form());
        }
        let port: u16 = port.parse().map_err(|_| form())?;
        Ok(PortUse {
            port: Port::try_from(port)?,
            transport,
        })
    }
}

impl TryFrom<String> for PortUse {
    type Error = PortError;
    fn try_from(text: String) -> Result<PortUse, PortError> {
        text.parse()
    }
}

impl fmt::Display for PortUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.transport)
    }
}

/// One kind of traffic that a packet filter can tell apart; as text `443/tcp` or `icmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Flow {
    /// TCP or UDP to a port.
    Port(PortUse),
    /// ICMP and ICMPv6 echo requests.
    IcmpEcho,
}

impl TryFrom<String> for Flow {
    type Error = PortError;
    fn try_from(text: String) -> Result<Flow, PortError> {
        if text == "icmp" {
            Ok(Flow::IcmpEcho)
        } else {
            text.parse().map(Flow::Port)
        }
    }
}

impl From<Flow> for String {
    fn from(flow: Flow) -> String {
        flow.to_string()
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flow::Port(port) => port.fmt(f),
            Flow::IcmpEcho => f.write_str("icmp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<(u16, Transport), PortError>) {
        let got = text.parse::<PortUse>().map(|p| (p.port.get(), p.transport));
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn parses_ports_with_transport() {
        let form = |s: &str| Err(PortError::Form(s.to_owned()));
        check("443/tcp", Ok((443, Transport::Tcp)));
        check("65535/udp", Ok((65535, Transport::Udp)));
        check("0/tcp", Err(PortError::Zero));
        check("65536/tcp", form("65536/tcp"));
        check("+1/tcp", form("+1/tcp"));
        check("443", form("443"));
        check("443/TCP", form("443/TCP"));
        check("/tcp", form("/tcp"));
        check("443/sctp", form("443/sctp"));
    }
}
