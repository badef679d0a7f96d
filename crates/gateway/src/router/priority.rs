//! Which of several matching routes wins.
//!
//! Kong's default flavour compiles each traditional route to one 64-bit number, larger wins; a
//! route whose paths mix kinds or lengths counts as several. Source: data-plane reference 4.3.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use sallyport_model::entities::Route;
use uuid::{Uuid, uuid};

const SPLIT_NAMESPACE: Uuid = uuid!("7f145bf9-0dce-4f91-98eb-debbce4b9f6b");

/// The place of a route among all: the greater one is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Priority {
    bits: u64,
    tie: Uuid,
}

/// A route's paths that share one priority.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) paths: Vec<&'a str>,
    pub(crate) priority: Priority,
}

/// Splits a route where its paths mix regexes and prefixes, or prefixes of several lengths.
pub(crate) fn parts(route: &Route) -> Vec<Part<'_>> {
    let mut by_length: BTreeMap<Reverse<usize>, Vec<&str>> = BTreeMap::new();
    for path in route.paths.iter().flatten() {
        let length = if path.starts_with('~') { 0 } else { path.len() };
        by_length.entry(Reverse(length)).or_default().push(path);
    }
    if by_length.is_empty() {
        by_length.insert(Reverse(0), Vec::new());
    }
    let whole = by_length.len() == 1;
    by_length
        .into_iter()
        .map(|(Reverse(length), paths)| {
            let tie = match whole {
                true => route.id,
                false => Uuid::new_v5(
                    &SPLIT_NAMESPACE,
                    format!("{}#{length}", route.id).as_bytes(),
                ),
            };
            Part {
                priority: Priority {
                    bits: bits(route, &paths),
                    tie,
                },
                paths,
            }
        })
        .collect()
}

fn bits(route: &Route, paths: &[&str]) -> u64 {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let headers = route.headers.as_ref().map_or(0, BTreeMap::len);
    let kinds = [
        some(&route.methods),
        some(&route.hosts),
        headers > 0,
        some(&route.snis),
        !paths.is_empty(),
    ];
    let kinds = kinds.into_iter().filter(|&present| present).count() as u64;
    let plain_hosts = route
        .hosts
        .as_ref()
        .is_some_and(|hosts| hosts.iter().all(|host| !host.contains('*')));
    let regex = paths.first().is_some_and(|path| path.starts_with('~'));
    let mut bits = kinds.min(7) << 61;
    bits |= u64::from(plain_hosts) << 60;
    bits |= (headers.min(255) as u64) << 52;
    if regex {
        bits |= 1 << 51;
        bits |= (route.regex_priority.clamp(0, i64::from(u32::MAX)) as u64) << 19;
    } else {
        bits |= paths.first().map_or(0, |path| path.len() as u64) & 0x7_FFFF;
    }
    bits
}

#[cfg(test)]
impl Part<'_> {
    pub(super) fn bits(&self) -> u64 {
        self.priority.bits
    }
}
