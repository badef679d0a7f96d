//! Which of several matching routes wins. Source: data-plane reference 4.3.

use sallyport_model::RouterFlavor;
use sallyport_model::entities::{Peer, Route};
use uuid::{Uuid, uuid};

const SPLIT_NAMESPACE: Uuid = uuid!("7f145bf9-0dce-4f91-98eb-debbce4b9f6b");

/// The place of a route among all: the greater one is tried first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Priority {
    pub(super) bits: u128,
    tie: u128,
}

impl Priority {
    pub(super) fn new(bits: impl Into<u128>, tie: Uuid) -> Priority {
        Priority {
            bits: bits.into(),
            tie: tie.as_u128(),
        }
    }

    #[cfg(test)]
    pub(super) fn tie(self) -> u128 {
        self.tie
    }
}

/// A route's paths that share one priority.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// All regexes or all prefixes of one length; empty for a route without paths.
    pub(super) paths: Vec<&'a str>,
    pub(super) priority: Priority,
}

/// The parts of a route that is described by the traditional fields.
pub(super) fn parts(flavor: RouterFlavor, route: &Route) -> Vec<Part<'_>> {
    let paths = route.paths.as_deref().unwrap_or_default();
    match flavor {
        RouterFlavor::Traditional => each_path(route, paths),
        RouterFlavor::TraditionalCompatible | RouterFlavor::Expressions => grouped(route, paths),
    }
}

/// Split where paths mix regexes and prefixes, or prefixes of several lengths; each group has an
/// id of its own, numbered as the groups appear.
fn grouped<'a>(route: &'a Route, paths: &'a [String]) -> Vec<Part<'a>> {
    let length = |path: &str| if is_regex(path) { 0 } else { path.len() };
    let mut groups: Vec<(usize, Vec<&str>)> = Vec::new();
    for path in paths {
        let length = length(path);
        match groups.iter_mut().find(|(other, _)| *other == length) {
            Some((_, group)) => group.push(path),
            None => groups.push((length, vec![path])),
        }
    }
    if groups.is_empty() {
        groups.push((0, Vec::new()));
    }
    let whole = groups.len() == 1;
    let part = |(at, (_, paths)): (usize, (usize, Vec<&'a str>))| {
        let tie = match whole {
            true => route.id,
            false => {
                let name = format!("{}#{}", route.id, at + 1);
                Uuid::new_v5(&SPLIT_NAMESPACE, name.as_bytes())
            }
        };
        Part {
            priority: Priority::new(bits(route, &paths), tie),
            paths,
        }
    };
    groups.into_iter().enumerate().map(part).collect()
}

fn is_regex(path: &str) -> bool {
    path.starts_with('~')
}

fn some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn wild(host: &str) -> bool {
    host.contains('*')
}

/// 61..63 kinds of attributes, 60 plain hosts, 52..59 headers, 51 regex, 19..50 its priority,
/// 0..18 length of the prefix.
fn bits(route: &Route, paths: &[&str]) -> u64 {
    let headers = route.headers.as_ref().map_or(0, |headers| headers.len());
    let kinds = [
        some(&route.sources),
        some(&route.destinations),
        some(&route.methods),
        some(&route.hosts),
        headers > 0,
        some(&route.snis),
        !paths.is_empty(),
    ];
    let kinds = kinds.into_iter().filter(|&present| present).count() as u64;
    let hosts = route.hosts.as_ref();
    let plain_hosts = hosts.is_some_and(|hosts| !hosts.iter().any(|host| wild(host)));
    let mut bits = kinds.min(7) << 61;
    bits |= u64::from(plain_hosts) << 60;
    bits |= (headers.min(255) as u64) << 52;
    if paths.first().is_some_and(|path| is_regex(path)) {
        bits |= 1 << 51;
        bits |= (route.regex_priority.clamp(0, i64::from(u32::MAX)) as u64) << 19;
    } else {
        bits |= paths.first().map_or(0, |path| path.len() as u64) & 0x7_FFFF;
    }
    bits
}

/// Above every traditional route.
pub(super) fn of_expression(route: &Route) -> Priority {
    let priority = route.priority.unwrap_or(0) & ((1 << 46) - 1);
    Priority::new((0xFF << 56) | priority, route.id)
}

/// Bit 61 for a name, or for sources with destinations; then the weight of the sources, then
/// that of the destinations: 8 for an address, 4 for a port, 1 for a network.
pub(super) fn of_stream(route: &Route) -> Priority {
    let weight = |peers: &Option<Vec<Peer>>| {
        let peers = peers.iter().flatten();
        peers.fold(0_u64, |weight, peer| {
            let ip = peer.ip.as_ref();
            let ip = ip.map_or(0, |ip| if ip.contains('/') { 1 } else { 8 });
            weight | ip | if peer.port.is_some() { 4 } else { 0 }
        })
    };
    let first = some(&route.snis) || (some(&route.sources) && some(&route.destinations));
    let bits = u64::from(first) << 61;
    Priority::new(
        bits | weight(&route.sources) << 4 | weight(&route.destinations),
        route.id,
    )
}

/// The order of flavour `traditional`: every path for itself.
fn each_path<'a>(route: &'a Route, paths: &'a [String]) -> Vec<Part<'a>> {
    let part = |paths: Vec<&'a str>| Part {
        priority: traditional(route, paths.first().copied()),
        paths,
    };
    match paths {
        [] => vec![part(Vec::new())],
        paths => paths.iter().map(|path| part(vec![path])).collect(),
    }
}

/// How many kinds of attributes; which ones; wildcards with port, plain hosts, regex; number of
/// headers; priority of the regex; length of the prefix; the older one.
pub(super) fn traditional(route: &Route, path: Option<&str>) -> Priority {
    let headers = route.headers.as_ref().map_or(0, |headers| headers.len());
    let kinds = [
        (some(&route.hosts), 0x40),
        (headers > 0, 0x20),
        (path.is_some(), 0x10),
        (some(&route.methods), 0x08),
        (some(&route.snis), 0x04),
        (some(&route.sources), 0x02),
        (some(&route.destinations), 0x01),
    ];
    let category: u128 = kinds
        .iter()
        .filter(|(present, _)| *present)
        .map(|(_, bit)| bit)
        .sum();
    let hosts = route.hosts.as_ref();
    let plain = hosts.is_some_and(|hosts| !hosts.iter().any(|host| wild(host)));
    let ported = |host: &String| wild(host) && host.contains(':');
    let wild_port = hosts.is_some_and(|hosts| hosts.iter().any(ported));
    let regex = path.is_some_and(is_regex);
    let weight = u128::from(wild_port) << 2 | u128::from(plain) << 1 | u128::from(regex);
    let rank = match regex {
        true => {
            (route
                .regex_priority
                .clamp(i64::from(i32::MIN), i64::from(i32::MAX))
                + (1 << 31)) as u128
        }
        false => 0,
    };
    let length = path.filter(|path| !is_regex(path)).map_or(0, str::len);
    const AGES: i64 = (1 << 50) - 1;
    let age = route.created_at.map_or(0, |at| AGES - at.clamp(0, AGES)) as u128;
    let bits = u128::from(category.count_ones()) << 125
        | category << 118
        | weight << 115
        | (headers.min(255) as u128) << 107
        | rank << 74
        | (length.min(0xFF_FFFF) as u128) << 50
        | age;
    Priority::new(bits, route.id)
}
