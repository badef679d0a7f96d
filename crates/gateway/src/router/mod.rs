//! Finds the route of a request, in each of Kong's router flavours.
//!
//! Routes are indexed by host and then by what the path starts with, so that a look-up costs a
//! hash per distinct length, however many routes there are; what is found under a key is tried
//! in priority order. Regex paths and expressions are under what is seen to follow from them. A
//! router is made from the one before it: what did not change is shared.

mod bucket;
mod compile;
mod evaluate;
mod headers;
mod narrow;
mod path;
mod pattern;
mod priority;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod update;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use regex::Regex;
use sallyport_model::RouterFlavor;
use sallyport_model::entities::{Protocol, Route};
use sallyport_plugins::Fields;
use uuid::Uuid;

use bucket::Bucket;
use compile::Candidate;
use evaluate::{Facts, Http, Record};
pub(crate) use path::{escape, is_plain, is_well_escaped, normalise, upstream as upstream_path};
pub use pattern::PatternError;
pub(crate) use pattern::split_port;
use priority::Priority;
pub(crate) use stream::is_stream;
pub use stream::{StreamQuery, StreamRouter};
use table::Table;
pub use update::Work;
use update::{Hashers, Slots};

/// What of a request decides its route.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host without port, lower case.
    pub host: &'a str,
    /// The port that the client wrote behind the host.
    pub host_port: Option<u16>,
    /// The port the client connected to, as seen from outside.
    pub port: u16,
    /// The path in normal form.
    pub path: &'a str,
    /// The query as sent, without the question mark.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a Fields,
    /// The server name of the TLS handshake, lower case; `None` without TLS or without a name.
    pub sni: Option<&'a str>,
    /// Whether the request came over TLS.
    pub tls: bool,
    /// The client's address and port; `None` if they are not known.
    pub source: (Option<IpAddr>, Option<u16>),
    /// The address that the client connected to; `None` if it is not known.
    pub local: Option<IpAddr>,
}

impl Query<'_> {
    /// `net.dst.port`: what the client wrote wins, as in Kong.
    fn port_seen(&self) -> u16 {
        self.host_port.unwrap_or(self.port)
    }
}

impl Facts for Query<'_> {
    fn protocol(&self) -> &str {
        if self.tls { "https" } else { "http" }
    }
    fn sni(&self) -> Option<&str> {
        self.sni
    }
    fn source(&self) -> (Option<IpAddr>, Option<u16>) {
        self.source
    }
    fn destination(&self) -> (Option<IpAddr>, Option<u16>) {
        (self.local, Some(self.port_seen()))
    }
    fn http(&self) -> Option<Http<'_>> {
        Some(Http {
            method: self.method.as_str(),
            host: self.host,
            path: self.path,
            query: self.query.unwrap_or_default(),
            headers: self.headers,
        })
    }
}

/// A route that matches.
#[derive(Clone, Copy, Debug)]
pub struct Match<'r> {
    /// The slot of the route, see [`Router::slot`].
    pub slot: usize,
    /// Bytes of the path that the route's own path matched; 0 if it has none.
    pub matched: usize,
    candidate: &'r Candidate,
}

/// What the groups of the regexes that matched have captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// By number; 0 is all that matched.
    pub numbered: BTreeMap<usize, String>,
    /// By name.
    pub named: BTreeMap<String, String>,
}

impl Match<'_> {
    /// What the regexes of the route captured from this request, whose match this is; `None` if
    /// they have no groups. (In Kong: `uri_captures`.)
    pub fn captures(&self, query: &Query<'_>) -> Option<Captures> {
        let mut captures = Captures::default();
        self.candidate.record(query, &mut captures);
        (captures.numbered.len() > 1).then_some(captures)
    }
}

impl Record for Captures {
    fn path(&mut self, _: usize) {}

    fn regex(&mut self, regex: &Regex, text: &str) {
        let Some(found) = regex.captures(text) else {
            return;
        };
        for (number, group) in found.iter().enumerate() {
            if let Some(group) = group {
                self.numbered.insert(number, group.as_str().to_owned());
            }
        }
        for name in regex.capture_names().flatten() {
            if let Some(group) = found.name(name) {
                self.named
                    .insert(name.to_owned(), group.as_str().to_owned());
            }
        }
    }
}

/// All routes of a configuration, indexed. A copy shares everything.
#[derive(Clone, Debug, Default)]
pub struct Router {
    flavor: RouterFlavor,
    hashers: Hashers,
    slots: Slots,
    exact_hosts: Table<Arc<Bucket>>,
    /// `*.example.com` under `.example.com`.
    host_suffixes: Table<Arc<Bucket>>,
    /// `example.*` under `example.`.
    host_prefixes: Table<Arc<Bucket>>,
    any_host: Arc<Bucket>,
}

impl Router {
    /// A router without routes.
    pub fn new(flavor: RouterFlavor) -> Router {
        Router {
            flavor,
            ..Router::default()
        }
    }

    /// The flavour it reads routes in.
    pub fn flavor(&self) -> RouterFlavor {
        self.flavor
    }

    /// A router of these routes, no id twice among them, and what had to be done for it. Routes of
    /// stream protocols get a slot and match nothing.
    ///
    /// # Errors
    /// What cannot be used, with the index of its route.
    pub fn updated(&self, routes: &[Route]) -> Result<(Router, Work), Vec<(usize, PatternError)>> {
        update::updated(self, self.flavor, routes)
    }

    /// The same router but for these routes, new or in place of those with the same id, and without
    /// those that are `gone`; and what had to be done for it. Costs nothing for the others.
    ///
    /// # Errors
    /// What cannot be used, with the index of its route.
    pub fn edited(
        &self,
        routes: &[Route],
        gone: &[Uuid],
    ) -> Result<(Router, Work), Vec<(usize, PatternError)>> {
        update::edited(self, self.flavor, routes, gone)
    }

    /// The slot of a route: a number below [`slots`](Router::slots) that it keeps in all routers
    /// that are made from this one, as long as it is there.
    pub fn slot(&self, id: Uuid) -> Option<usize> {
        self.slots.get(id)
    }

    /// Routes that have a slot.
    pub fn len(&self) -> usize {
        self.slots.taken_count()
    }

    /// Whether no route has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots, the empty ones included.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The route of a request, if any matches.
    pub fn find(&self, query: &Query<'_>) -> Option<Match<'_>> {
        let hasher = &self.hashers.keys;
        let mut best = Best(None);
        if !self.exact_hosts.is_empty()
            && let Some(bucket) = self
                .exact_hosts
                .get(hasher.hash_one(query.host), query.host)
        {
            bucket.find(hasher, query, &mut best);
        }
        if !self.host_suffixes.is_empty() || !self.host_prefixes.is_empty() {
            for (dot, _) in query.host.match_indices('.') {
                for (table, part) in [
                    (&self.host_suffixes, &query.host[dot..]),
                    (&self.host_prefixes, &query.host[..=dot]),
                ] {
                    if !table.is_empty()
                        && let Some(bucket) = table.get(hasher.hash_one(part), part)
                    {
                        bucket.find(hasher, query, &mut best);
                    }
                }
            }
        }
        self.any_host.find(hasher, query, &mut best);
        best.0.map(|(candidate, matched)| Match {
            slot: candidate.slot as usize,
            matched,
            candidate,
        })
    }
}

/// The best match so far.
struct Best<'r>(Option<(&'r Candidate, usize)>);

impl<'r> Best<'r> {
    fn is_beaten_by(&self, priority: Priority) -> bool {
        (self.0).is_none_or(|(candidate, _)| priority > candidate.priority)
    }

    fn take(&mut self, candidate: &'r Candidate, matched: usize) {
        self.0 = Some((candidate, matched));
    }
}

/// Whether requests of this protocol arrive as HTTP.
pub(crate) fn is_http(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::Http | Protocol::Https | Protocol::Grpc | Protocol::Grpcs
    )
}
