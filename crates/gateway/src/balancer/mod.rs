//! Which address a request goes to.

mod resolve;
mod wheel;

use std::net::IpAddr;

use http::HeaderValue;
pub(crate) use resolve::{ResolveError, Resolver};
use sallyport_model::entities::{Protocol, Service, Target, Upstream};
use wheel::Wheel;

/// Port of a target that names none. Source: data-plane reference 5.1.
const TARGET_PORT: u16 = 8000;

/// Where the requests to a service go.
#[derive(Debug)]
pub(crate) enum Peers {
    /// The service's own host.
    One(Peer),
    /// The targets of an upstream.
    Many(Wheel<Peer>),
}

/// One host and port that can be dialled.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Name or address.
    pub(crate) host: Host,
    /// Port to dial.
    pub(crate) port: u16,
    /// What `Host` says when the client's is not preserved.
    pub(crate) host_header: HeaderValue,
}

/// A host as it stands in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// Needs no look-up.
    Ip(IpAddr),
    /// Needs one.
    Name(Box<str>),
}

impl Host {
    fn parse(text: &str) -> Host {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        bare.parse()
            .map_or_else(|_| Host::Name(text.into()), Host::Ip)
    }
}

impl Peers {
    /// The peers of a service: the targets of the upstream its host names, or the host itself.
    ///
    /// # Errors
    /// A text that says which field cannot be used and why.
    pub(crate) fn new(
        service: &Service,
        upstream: Option<(&Upstream, &[&Target])>,
    ) -> Result<Peers, String> {
        let Some((upstream, targets)) = upstream else {
            return Peer::new(service, &service.host, service.port, None).map(Peers::One);
        };
        let mut weighted = Vec::new();
        for target in targets {
            let (host, port) = crate::router::split_port(&target.target)
                .ok_or_else(|| format!("target '{}' is not host:port", target.target))?;
            let port = port.unwrap_or(TARGET_PORT);
            let peer = Peer::new(service, host, port, upstream.host_header.as_deref())?;
            weighted.push((peer, target.weight));
        }
        Ok(Peers::Many(Wheel::new(weighted)))
    }

    /// The peer for the next try of a request; `None` if there is none.
    pub(crate) fn next(&self) -> Option<&Peer> {
        match self {
            Peers::One(peer) => Some(peer),
            Peers::Many(wheel) => wheel.next(),
        }
    }
}

impl Peer {
    fn new(
        service: &Service,
        host: &str,
        port: u16,
        host_header: Option<&str>,
    ) -> Result<Peer, String> {
        let default_port = if service.protocol == Protocol::Https {
            443
        } else {
            80
        };
        let host_header = match host_header {
            Some(given) => given.to_owned(),
            None if port == default_port => host.to_owned(),
            None => format!("{host}:{port}"),
        };
        Ok(Peer {
            host: Host::parse(host),
            port,
            host_header: HeaderValue::from_str(&host_header)
                .map_err(|_| format!("host '{host_header}' cannot be a Host header"))?,
        })
    }
}
