//! Finds the route of a TCP, TLS or UDP connection.

use std::net::{IpAddr, SocketAddr};

use ahash::AHashMap;
use sallyport_model::RouterFlavor;
use sallyport_model::entities::{Protocol, Route};
use sallyport_model::expression::{Expression, Subsystem};

use super::compile::{admits, peers};
use super::evaluate::{self, Facts, Http, PathBytes};
use super::pattern::{PatternError, PeerPattern, SniPattern};
use super::priority::{self, Priority};

/// What of a connection decides its route.
#[derive(Clone, Copy, Debug)]
pub struct StreamQuery<'a> {
    /// Whether it is UDP.
    pub udp: bool,
    /// Whether it is known to speak TLS. Kong knows that by the name alone; without one it would
    /// take a client of TLS to a route for whatever name.
    pub tls: bool,
    /// The server name of the TLS handshake, lower case.
    pub sni: Option<&'a str>,
    /// Where the client is.
    pub source: SocketAddr,
    /// What it connected to, the port as seen from outside.
    pub destination: SocketAddr,
}

/// The stream routes of a configuration, in priority order.
///
/// Routes for one exact name are found by it; all others are tried in turn.
#[derive(Debug, Default)]
pub struct StreamRouter {
    routes: Vec<StreamRoute>,
    /// Routes that want exact names only, best first, by name.
    by_name: AHashMap<Box<str>, Vec<usize>>,
    /// All others, best first.
    others: Vec<usize>,
    traditional: bool,
}

#[derive(Debug)]
struct StreamRoute {
    priority: Priority,
    index: usize,
    snis: Vec<SniPattern>,
    sources: Vec<PeerPattern>,
    destinations: Vec<PeerPattern>,
    expression: Option<Expression>,
    /// What `net.protocol` must be, in flavour `expressions`.
    protocols: Option<Vec<&'static str>>,
}

impl StreamRouter {
    /// Indexes the routes of stream protocols; all others are left out.
    ///
    /// # Errors
    /// What cannot be used, with the index of its route.
    pub fn new(
        flavor: RouterFlavor,
        routes: &[Route],
    ) -> Result<StreamRouter, Vec<(usize, PatternError)>> {
        let (mut made, mut bad) = (Vec::new(), Vec::new());
        for (index, route) in routes.iter().enumerate() {
            if !route.protocols.iter().copied().any(is_stream) {
                continue;
            }
            match StreamRoute::new(flavor, route, index) {
                Ok(route) => made.push(route),
                Err(error) => bad.push((index, error)),
            }
        }
        if !bad.is_empty() {
            return Err(bad);
        }
        made.sort_by_key(|route| std::cmp::Reverse(route.priority));
        let mut router = StreamRouter {
            traditional: flavor == RouterFlavor::Traditional,
            ..StreamRouter::default()
        };
        for (at, route) in made.iter().enumerate() {
            let names = route.snis.iter().map(|sni| match sni {
                SniPattern::Exact(name) => Some(name),
                SniPattern::Suffix(_) | SniPattern::Prefix(_) => None,
            });
            match names.collect::<Option<Vec<_>>>() {
                Some(names) if !names.is_empty() => {
                    for name in names {
                        let list = router.by_name.entry(name.as_str().into()).or_default();
                        list.push(at);
                    }
                }
                _ => router.others.push(at),
            }
        }
        router.routes = made;
        Ok(router)
    }

    /// The route of a connection: its index in the list that the router was made from.
    pub fn find(&self, query: &StreamQuery<'_>) -> Option<usize> {
        let matches = |at: &usize| self.routes[*at].matches(query, self.traditional);
        let best = match query.protocol() {
            // the condition on the name is skipped, so every route has a chance
            "tcp" | "udp" if !self.traditional => (0..self.routes.len()).find(matches),
            _ => {
                let named = query.sni.and_then(|sni| self.by_name.get(sni));
                let named = named.and_then(|list| list.iter().copied().find(matches));
                let other = self.others.iter().copied().find(matches);
                match (named, other) {
                    (Some(named), Some(other)) => Some(named.min(other)),
                    (named, other) => named.or(other),
                }
            }
        };
        best.map(|at| self.routes[at].index)
    }
}

/// Whether connections of this protocol are not HTTP.
pub(crate) fn is_stream(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::Tcp | Protocol::Tls | Protocol::TlsPassthrough | Protocol::Udp
    )
}

impl StreamRoute {
    fn new(flavor: RouterFlavor, route: &Route, index: usize) -> Result<StreamRoute, PatternError> {
        let snis = route.snis.iter().flatten();
        let (sources, destinations) = peers(route)?;
        let parse = |text: &String| Expression::parse(text, Subsystem::Stream);
        let expression = route.expression.as_ref().map(parse).transpose()?;
        let priority = match (flavor, &expression) {
            (_, Some(_)) => priority::of_expression(route),
            (RouterFlavor::Traditional, None) => priority::traditional(route, None),
            (_, None) => priority::of_stream(route),
        };
        Ok(StreamRoute {
            priority,
            index,
            snis: snis.map(|sni| SniPattern::new(sni)).collect(),
            sources,
            destinations,
            expression,
            protocols: (flavor == RouterFlavor::Expressions)
                .then(|| wanted(&route.protocols))
                .flatten(),
        })
    }

    fn matches(&self, query: &StreamQuery<'_>, traditional: bool) -> bool {
        let named = |sni: &str| self.snis.iter().any(|want| want.matches(sni));
        // only traditional routers want the name of connections that have none
        let skipped = !traditional && query.protocol() != "tls";
        let protocols = self.protocols.as_ref();
        (self.snis.is_empty() || skipped || query.sni.is_some_and(named))
            && protocols.is_none_or(|list| list.contains(&query.protocol()))
            && admits(&self.sources, query.source())
            && admits(&self.destinations, query.destination())
            && (self.expression.as_ref()).is_none_or(|expression| {
                evaluate::holds(expression, query, &mut PathBytes::default())
            })
    }
}

/// `tls` alone is for `tcp` as well, and passed-through TLS is `tcp`, as in Kong.
fn wanted(protocols: &[Protocol]) -> Option<Vec<&'static str>> {
    if let [Protocol::Tls | Protocol::TlsPassthrough] = protocols {
        return None;
    }
    let word = |protocol: &Protocol| match protocol {
        Protocol::Tls => "tls",
        Protocol::Udp => "udp",
        _ => "tcp",
    };
    Some(protocols.iter().map(word).collect())
}

impl StreamQuery<'_> {
    fn protocol(&self) -> &'static str {
        match (self.udp, self.tls || self.sni.is_some()) {
            (true, _) => "udp",
            (false, true) => "tls",
            (false, false) => "tcp",
        }
    }
}

impl Facts for StreamQuery<'_> {
    fn protocol(&self) -> &str {
        StreamQuery::protocol(self)
    }
    fn sni(&self) -> Option<&str> {
        self.sni
    }
    fn source(&self) -> (Option<IpAddr>, Option<u16>) {
        (
            Some(self.source.ip().to_canonical()),
            Some(self.source.port()),
        )
    }
    fn destination(&self) -> (Option<IpAddr>, Option<u16>) {
        (
            Some(self.destination.ip().to_canonical()),
            Some(self.destination.port()),
        )
    }
    fn http(&self) -> Option<Http<'_>> {
        None
    }
}
