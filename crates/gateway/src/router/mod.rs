//! Finds the route of a request, as Kong's `traditional_compatible` flavour does.
//!
//! Routes are indexed by host and then by path prefix, so that a look-up costs a hash per distinct
//! prefix length, however many routes there are; regex paths are tried in priority order.

mod path;
mod pattern;
mod priority;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ahash::AHashMap;
use http::Method;
use sallyport_model::entities::{Protocol, Route};
use sallyport_plugins::Fields;

pub(crate) use path::{escape, is_plain, is_well_escaped, normalise, upstream as upstream_path};
pub(crate) use pattern::PatternError;
pub(crate) use pattern::split_port;
use pattern::{HeaderRule, HostPattern, PathRegex};
use priority::Priority;

/// What of a request decides its route.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    /// The method.
    pub(crate) method: &'a Method,
    /// The host without port, lower case.
    pub(crate) host: &'a str,
    /// The port the client connected to, as seen from outside.
    pub(crate) port: u16,
    /// The path in [normal form](normalise).
    pub(crate) path: &'a str,
    /// The headers.
    pub(crate) headers: &'a Fields,
    /// The server name of the TLS handshake; `None` without TLS or without a name.
    pub(crate) sni: Option<&'a str>,
    /// Whether the request came over TLS.
    pub(crate) tls: bool,
}

/// A route that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Index of the route in the list that the router was made from.
    pub(crate) route: usize,
    /// Bytes of the path that the route's own path matched; 0 if it has none.
    pub(crate) matched: usize,
}

/// All routes of a configuration, indexed.
#[derive(Debug, Default)]
pub(crate) struct Router {
    exact_hosts: AHashMap<Box<str>, Paths>,
    /// `*.example.com` under `.example.com`.
    host_suffixes: AHashMap<Box<str>, Paths>,
    /// `example.*` under `example.`.
    host_prefixes: AHashMap<Box<str>, Paths>,
    any_host: Paths,
}

/// The routes of one host, by path. Every list is in priority order, best first.
#[derive(Debug, Default)]
struct Paths {
    prefixes: AHashMap<Box<str>, Vec<Candidate>>,
    /// Lengths of the prefixes, longest first.
    prefix_lengths: Vec<usize>,
    regexes: Vec<(Arc<PathRegex>, Candidate)>,
    any: Vec<Candidate>,
}

/// A route under one host and one path; what remains to be checked.
#[derive(Clone, Debug)]
struct Candidate {
    priority: Priority,
    route: usize,
    port: Option<u16>,
    rules: Arc<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    methods: Vec<Method>,
    headers: Vec<HeaderRule>,
    snis: Vec<String>,
}

impl Router {
    /// Indexes routes; those of stream protocols are left out.
    ///
    /// # Errors
    /// The first pattern of each route that cannot be used, with the index of the route.
    pub(crate) fn new<'a>(
        routes: impl IntoIterator<Item = &'a Route>,
    ) -> Result<Router, Vec<(usize, PatternError)>> {
        let mut router = Router::default();
        let mut bad = Vec::new();
        for (index, route) in routes.into_iter().enumerate() {
            if route.protocols.iter().copied().any(is_http)
                && let Err(error) = router.insert(index, route)
            {
                bad.push((index, error));
            }
        }
        if !bad.is_empty() {
            return Err(bad);
        }
        router.sort();
        Ok(router)
    }

    fn insert(&mut self, index: usize, route: &Route) -> Result<(), PatternError> {
        let rules = Arc::new(Rules::new(route)?);
        let hosts: Vec<Option<HostPattern>> = match &route.hosts {
            Some(hosts) if !hosts.is_empty() => hosts
                .iter()
                .map(|host| HostPattern::parse(host).map(Some))
                .collect::<Result<_, _>>()?,
            _ => vec![None],
        };
        for part in priority::parts(route) {
            let regexes = part
                .paths
                .iter()
                .filter_map(|path| path.strip_prefix('~'))
                .map(|pattern| PathRegex::new(pattern).map(Arc::new))
                .collect::<Result<Vec<_>, _>>()?;
            for host in &hosts {
                let candidate = Candidate {
                    priority: part.priority,
                    route: index,
                    port: host.as_ref().and_then(HostPattern::port),
                    rules: rules.clone(),
                };
                let paths = match host {
                    None => &mut self.any_host,
                    Some(HostPattern::Exact(host, _)) => entry(&mut self.exact_hosts, host),
                    Some(HostPattern::Suffix(suffix, _)) => entry(&mut self.host_suffixes, suffix),
                    Some(HostPattern::Prefix(prefix, _)) => entry(&mut self.host_prefixes, prefix),
                };
                if part.paths.is_empty() {
                    paths.any.push(candidate.clone());
                }
                for prefix in part.paths.iter().filter(|path| !path.starts_with('~')) {
                    paths
                        .prefixes
                        .entry((*prefix).into())
                        .or_default()
                        .push(candidate.clone());
                }
                for regex in &regexes {
                    paths.regexes.push((regex.clone(), candidate.clone()));
                }
            }
        }
        Ok(())
    }

    fn sort(&mut self) {
        let hosts = [
            &mut self.exact_hosts,
            &mut self.host_suffixes,
            &mut self.host_prefixes,
        ];
        for paths in hosts
            .into_iter()
            .flat_map(|hosts| hosts.values_mut())
            .chain([&mut self.any_host])
        {
            paths.sort();
        }
    }

    /// The route of a request, if any matches.
    pub(crate) fn find(&self, query: &Query<'_>) -> Option<Match> {
        let mut best = None;
        if !self.exact_hosts.is_empty()
            && let Some(paths) = self.exact_hosts.get(query.host)
        {
            paths.find(query, &mut best);
        }
        if !self.host_suffixes.is_empty() || !self.host_prefixes.is_empty() {
            for (dot, _) in query.host.match_indices('.') {
                // a wildcard stands for at least one character
                if dot > 0
                    && let Some(paths) = self.host_suffixes.get(&query.host[dot..])
                {
                    paths.find(query, &mut best);
                }
                if dot + 1 < query.host.len()
                    && let Some(paths) = self.host_prefixes.get(&query.host[..=dot])
                {
                    paths.find(query, &mut best);
                }
            }
        }
        self.any_host.find(query, &mut best);
        best.map(|(_, found)| found)
    }
}

fn entry<'a>(hosts: &'a mut AHashMap<Box<str>, Paths>, host: &str) -> &'a mut Paths {
    hosts.entry(host.into()).or_default()
}

/// Whether requests of this protocol arrive as HTTP.
pub(crate) fn is_http(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::Http | Protocol::Https | Protocol::Grpc | Protocol::Grpcs
    )
}

type Best = Option<(Priority, Match)>;

impl Paths {
    fn sort(&mut self) {
        let best_first = |candidates: &mut Vec<Candidate>| {
            candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.priority));
        };
        self.prefixes.values_mut().for_each(best_first);
        best_first(&mut self.any);
        self.regexes
            .sort_by_key(|(_, candidate)| std::cmp::Reverse(candidate.priority));
        self.prefix_lengths = self.prefixes.keys().map(|prefix| prefix.len()).collect();
        self.prefix_lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.prefix_lengths.dedup();
    }

    /// Improves `best` with what matches here.
    fn find(&self, query: &Query<'_>, best: &mut Best) {
        for &length in &self.prefix_lengths {
            if let Some(prefix) = query.path.get(..length)
                && let Some(candidates) = self.prefixes.get(prefix)
            {
                improve(candidates, query, length, best);
            }
        }
        for (regex, candidate) in &self.regexes {
            if !beats(candidate, best) {
                break;
            }
            if candidate.admits(query)
                && let Some(matched) = regex.matches(query.path)
            {
                let found = Match {
                    route: candidate.route,
                    matched,
                };
                *best = Some((candidate.priority, found));
                break;
            }
        }
        improve(&self.any, query, 0, best);
    }
}

fn beats(candidate: &Candidate, best: &Best) -> bool {
    best.is_none_or(|(priority, _)| candidate.priority > priority)
}

fn improve(candidates: &[Candidate], query: &Query<'_>, matched: usize, best: &mut Best) {
    for candidate in candidates {
        if !beats(candidate, best) {
            break;
        }
        if candidate.admits(query) {
            *best = Some((
                candidate.priority,
                Match {
                    route: candidate.route,
                    matched,
                },
            ));
            break;
        }
    }
}

impl Candidate {
    fn admits(&self, query: &Query<'_>) -> bool {
        let Rules {
            methods,
            headers,
            snis,
        } = &*self.rules;
        self.port.is_none_or(|port| port == query.port)
            && (methods.is_empty() || methods.contains(query.method))
            && headers.iter().all(|rule| rule.matches(query.headers))
            && (snis.is_empty()
                || !query.tls
                || query
                    .sni
                    .is_some_and(|sni| snis.iter().any(|want| want == sni)))
    }
}

impl Rules {
    fn new(route: &Route) -> Result<Rules, PatternError> {
        let methods = route.methods.iter().flatten().map(|method| {
            Method::from_bytes(method.as_bytes()).map_err(|_| PatternError::Method {
                method: method.clone(),
            })
        });
        let headers = route.headers.iter().flatten();
        let snis = route.snis.iter().flatten();
        Ok(Rules {
            methods: methods.collect::<Result<_, _>>()?,
            headers: headers
                .map(|(name, values)| HeaderRule::new(name, values))
                .collect::<Result<_, _>>()?,
            snis: snis
                .map(|sni| sni.trim_end_matches('.').to_ascii_lowercase())
                .collect(),
        })
    }
}
