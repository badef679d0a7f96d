//! What one node or process contributes to the list, now and later, and all of it together.

use std::collections::BTreeSet;

use sallyport_contract::{Catalogue, Net, PublishedList};
use serde::{Deserialize, Serialize};

use super::sources::host;

/// What a control plane answers to by name on its one port, by contract id.
const SERVED: [&str; 6] = [
    "config_sync",
    "telemetry",
    "kic",
    "control_planes",
    "identity",
    "ip_addresses",
];

/// Addresses by time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contribution {
    /// In force until the first of `planned`; without a date.
    pub(super) first: PublishedList,
    /// In order.
    #[serde(default)]
    pub(super) planned: Vec<Planned>,
}

/// A list that will be in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Planned {
    /// Unix second.
    pub(super) from: i64,
    /// Without a date.
    pub(super) list: PublishedList,
}

impl Contribution {
    /// The addresses of one node, under every name that its control plane serves in `geo` and
    /// everywhere: those to which connections go, and those from which it connects.
    pub fn of_node(base_domain: &str, geo: &str, ingress: &[Net], egress: &[Net]) -> Contribution {
        Contribution {
            first: of_node(
                sallyport_contract::catalogue(),
                base_domain,
                geo,
                ingress,
                egress,
            ),
            planned: Vec::new(),
        }
    }

    /// Adds what `other` contributes, at every moment.
    pub fn merge(&mut self, other: Contribution) {
        *self = Contribution::together(&[std::mem::take(self), other]);
    }

    /// What is in force at the Unix second `now`.
    fn at(&self, now: i64) -> &PublishedList {
        let due = self.planned.iter().rev().find(|it| it.from <= now);
        due.map_or(&self.first, |it| &it.list)
    }

    /// All of `parts` together: an address is there while one of them has it.
    pub(super) fn together(parts: &[Contribution]) -> Contribution {
        let sum = |now: i64| {
            let mut list = PublishedList::default();
            for part in parts {
                list.merge(part.at(now));
            }
            list
        };
        let moments: BTreeSet<i64> = parts
            .iter()
            .flat_map(|part| part.planned.iter().map(|it| it.from))
            .collect();
        Contribution {
            first: sum(i64::MIN),
            planned: moments
                .into_iter()
                .map(|from| Planned {
                    from,
                    list: sum(from),
                })
                .collect(),
        }
    }

    /// The list that is in force at `now`, and those that come after it and differ from the one
    /// before.
    pub(super) fn split(mut self, now: i64) -> (PublishedList, Vec<Planned>) {
        let list = self.at(now).clone();
        self.planned.retain(|it| it.from > now);
        let mut before = &list;
        let mut coming = Vec::new();
        for it in &self.planned {
            if it.list != *before {
                coming.push(it.clone());
            }
            before = &it.list;
        }
        (list, coming)
    }
}

fn of_node(
    catalogue: &Catalogue,
    base_domain: &str,
    geo: &str,
    ingress: &[Net],
    egress: &[Net],
) -> PublishedList {
    let mut list = PublishedList::default();
    if !ingress.is_empty() {
        for id in SERVED {
            let Some(entry) = catalogue.entry(id) else {
                continue;
            };
            // Names without a geo are the same everywhere.
            let region = match entry.hosts.iter().any(|it| it.has_geo()) {
                true => geo,
                false => "global",
            };
            if let Some(name) = host(catalogue, id, region, base_domain) {
                let hosts = list.regions.entry(region.to_owned()).or_default();
                hosts.insert(name, ingress.iter().copied().collect());
                list.ingress_ips
                    .insert(region.to_owned(), ingress.iter().copied().collect());
            }
        }
    }
    if !egress.is_empty() {
        list.egress_ips
            .insert(geo.to_owned(), egress.iter().copied().collect());
    }
    // A geo has all three members or none.
    let geos: Vec<String> = list
        .regions
        .keys()
        .chain(list.egress_ips.keys())
        .cloned()
        .collect();
    for geo in geos {
        list.regions.entry(geo.clone()).or_default();
        list.ingress_ips.entry(geo.clone()).or_default();
        list.egress_ips.entry(geo).or_default();
    }
    list
}
