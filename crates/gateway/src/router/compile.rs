//! A route made ready to match: its places in the index, and what is left to check there.

use std::sync::Arc;

use http::Method;
use sallyport_model::RouterFlavor;
use sallyport_model::entities::{Protocol, Route};
use sallyport_model::expression::{Expression, Subsystem};

use super::bucket::HostKey;
use super::evaluate::{self, Facts, PathBytes};
use super::headers::HeaderRule;
use super::pattern::{
    HostPattern, PathRegex, PatternError, PeerPattern, SniPattern, literal_prefix,
};
use super::priority::{self, Priority};
use super::{Query, narrow};

/// A route, or a part of it, under one host and one path; what remains to be checked.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) priority: Priority,
    /// Where the route is in the configuration.
    pub(super) slot: u32,
    port: PortRule,
    path: PathRule,
    /// `None` if nothing else is to be checked.
    rules: Option<Arc<Rules>>,
}

/// The port that a host demands.
#[derive(Clone, Copy, Debug)]
enum PortRule {
    Any,
    /// That of the `Host`, else that of the listener.
    Seen(u16),
    /// That of the `Host`.
    Sent(u16),
    /// That of the `Host`, else the scheme's.
    SentOrUsual(u16),
}

#[derive(Clone, Debug)]
enum PathRule {
    /// Any path.
    Any,
    /// The key it is found under is the whole condition.
    Prefix,
    Regex(Arc<PathRegex>),
    /// It decides about everything, the host too.
    Expression(Arc<Expression>),
}

/// What is seldom configured.
#[derive(Debug, Default)]
struct Rules {
    methods: Vec<Method>,
    headers: Vec<HeaderRule>,
    snis: Vec<SniPattern>,
    sources: Vec<PeerPattern>,
    destinations: Vec<PeerPattern>,
    /// Whether TLS is wanted, if that matters.
    tls: Option<bool>,
}

/// One place of a route in the index.
pub(super) type Place = (HostKey, Arc<str>);

/// Every place of a route, and what is found there.
///
/// # Errors
/// The first thing in it that cannot be used.
pub(super) fn compile(
    flavor: RouterFlavor,
    route: &Route,
    slot: u32,
) -> Result<Vec<(Place, Candidate)>, PatternError> {
    let rules = Rules::new(flavor, route)?;
    let rules = rules.is_needed().then(|| Arc::new(rules));
    match &route.expression {
        Some(text) => by_expression(route, text, slot, rules),
        None => by_fields(flavor, route, slot, rules),
    }
}

fn by_expression(
    route: &Route,
    text: &str,
    slot: u32,
    rules: Option<Arc<Rules>>,
) -> Result<Vec<(Place, Candidate)>, PatternError> {
    let expression = Arc::new(Expression::parse(text, Subsystem::Http)?);
    let candidate = Candidate {
        priority: priority::of_expression(route),
        slot,
        port: PortRule::Any,
        path: PathRule::Expression(expression.clone()),
        rules,
    };
    let (hosts, paths) = narrow::places(&expression);
    let paths: Vec<Arc<str>> = paths.into_iter().map(Arc::from).collect();
    let places = hosts
        .iter()
        .flat_map(|host| paths.iter().map(move |path| (host.clone(), path.clone())));
    Ok(places.map(|place| (place, candidate.clone())).collect())
}

fn by_fields(
    flavor: RouterFlavor,
    route: &Route,
    slot: u32,
    rules: Option<Arc<Rules>>,
) -> Result<Vec<(Place, Candidate)>, PatternError> {
    let hosts = match route.hosts.as_deref() {
        None | Some([]) => vec![(HostKey::Any, PortRule::Any)],
        Some(hosts) => hosts
            .iter()
            .map(|host| HostPattern::parse(host).map(|host| place_of(flavor, host)))
            .collect::<Result<_, _>>()?,
    };
    let mut found = Vec::new();
    for part in priority::parts(flavor, route) {
        let mut paths: Vec<(Arc<str>, PathRule)> = Vec::new();
        for path in &part.paths {
            paths.push(match path.strip_prefix('~') {
                None => (Arc::from(*path), PathRule::Prefix),
                Some(pattern) => {
                    let regex = PathRegex::new(pattern)?;
                    let key = literal_prefix(regex.regex()).unwrap_or_default();
                    (Arc::from(key), PathRule::Regex(Arc::new(regex)))
                }
            });
        }
        if paths.is_empty() {
            paths.push((Arc::from(""), PathRule::Any));
        }
        for (host, port) in &hosts {
            for (key, path) in &paths {
                let candidate = Candidate {
                    priority: part.priority,
                    slot,
                    port: *port,
                    path: path.clone(),
                    rules: rules.clone(),
                };
                found.push(((host.clone(), key.clone()), candidate));
            }
        }
    }
    Ok(found)
}

fn place_of(flavor: RouterFlavor, host: HostPattern) -> (HostKey, PortRule) {
    let port = match (flavor, host.port(), &host) {
        (_, None, _) => PortRule::Any,
        (RouterFlavor::Traditional, Some(port), HostPattern::Exact(..)) => PortRule::Sent(port),
        (RouterFlavor::Traditional, Some(port), _) => PortRule::SentOrUsual(port),
        (_, Some(port), _) => PortRule::Seen(port),
    };
    let key = match host {
        HostPattern::Exact(host, _) => HostKey::Exact(host.into()),
        HostPattern::Suffix(suffix, _) => HostKey::Suffix(suffix.into()),
        HostPattern::Prefix(prefix, _) => HostKey::Prefix(prefix.into()),
    };
    (key, port)
}

impl Candidate {
    /// Bytes of the path that are matched, if the request does match; `key` is how many bytes
    /// of it led here.
    pub(super) fn matches(&self, query: &Query<'_>, key: usize) -> Option<usize> {
        let port = match self.port {
            PortRule::Any => true,
            PortRule::Seen(port) => query.port_seen() == port,
            PortRule::Sent(port) => query.host_port == Some(port),
            PortRule::SentOrUsual(port) => {
                query.host_port.unwrap_or(if query.tls { 443 } else { 80 }) == port
            }
        };
        let admitted = port && self.rules.as_ref().is_none_or(|rules| rules.admit(query));
        if !admitted {
            return None;
        }
        match &self.path {
            PathRule::Any => Some(0),
            PathRule::Prefix => Some(key),
            PathRule::Regex(regex) => regex.matches(query.path),
            PathRule::Expression(expression) => {
                let mut path = PathBytes::default();
                evaluate::holds(expression, query, &mut path)
                    // the match may be of another length, or not at the start: Kong cuts as
                    // many bytes as it has
                    .then(|| query.path.floor_char_boundary(path.0))
            }
        }
    }

    /// Hands on what the regexes of a match have captured.
    pub(super) fn record(&self, query: &Query<'_>, record: &mut impl evaluate::Record) {
        match &self.path {
            PathRule::Any | PathRule::Prefix => {}
            PathRule::Regex(regex) => record.regex(regex.regex(), query.path),
            PathRule::Expression(expression) => {
                evaluate::holds(expression, query, record);
            }
        }
    }
}

impl Rules {
    fn new(flavor: RouterFlavor, route: &Route) -> Result<Rules, PatternError> {
        let mut rules = Rules::default();
        if flavor == RouterFlavor::Expressions {
            rules.tls = wants_tls(&route.protocols);
        }
        if route.expression.is_some() {
            return Ok(rules);
        }
        for method in route.methods.iter().flatten() {
            let bad = |_| PatternError::Method {
                method: method.clone(),
            };
            let method = Method::from_bytes(method.as_bytes()).map_err(bad)?;
            rules.methods.push(method);
        }
        for (name, values) in route.headers.iter().flatten() {
            rules.headers.push(HeaderRule::new(name, values)?);
        }
        let snis = route.snis.iter().flatten();
        rules.snis = snis.map(|sni| SniPattern::new(sni)).collect();
        (rules.sources, rules.destinations) = peers(route)?;
        Ok(rules)
    }

    fn is_needed(&self) -> bool {
        !self.methods.is_empty()
            || !self.headers.is_empty()
            || !self.snis.is_empty()
            || !self.sources.is_empty()
            || !self.destinations.is_empty()
            || self.tls.is_some()
    }

    fn admit(&self, query: &Query<'_>) -> bool {
        let sni = || (query.sni).is_some_and(|sni| self.snis.iter().any(|want| want.matches(sni)));
        (self.methods.is_empty() || self.methods.contains(query.method))
            && self.headers.iter().all(|rule| rule.matches(query.headers))
            // a plain request matches whatever name is wanted, so that it can be redirected
            && (self.snis.is_empty() || !query.tls || sni())
            && self.tls.is_none_or(|tls| tls == query.tls)
            && admits(&self.sources, query.source())
            && admits(&self.destinations, query.destination())
    }
}

/// Sources and destinations of a route.
pub(super) fn peers(route: &Route) -> Result<(Vec<PeerPattern>, Vec<PeerPattern>), PatternError> {
    let list = |field, peers: &Option<Vec<_>>| {
        let peers = peers.iter().flatten();
        peers.map(|peer| PeerPattern::new(field, peer)).collect()
    };
    let sources: Result<_, _> = list("sources", &route.sources);
    let destinations: Result<_, _> = list("destinations", &route.destinations);
    Ok((sources?, destinations?))
}

/// Whether any of these, if there are any, match.
pub(super) fn admits(
    peers: &[PeerPattern],
    (ip, port): (Option<std::net::IpAddr>, Option<u16>),
) -> bool {
    peers.is_empty() || peers.iter().any(|peer| peer.matches(ip, port))
}

/// Which scheme a route of flavour `expressions` is for; `https` alone is for both, so that plain
/// requests can be redirected. gRPC arrives as one of them.
fn wants_tls(protocols: &[Protocol]) -> Option<bool> {
    if protocols == [Protocol::Https] {
        return None;
    }
    let tls = protocols.iter().any(|protocol| protocol.is_tls());
    let plain = protocols.iter().any(|protocol| !protocol.is_tls());
    match (tls, plain) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}
