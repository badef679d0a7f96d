//! The published list of addresses (`ip-addresses.json`): its shape, and what changes between two.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::address::Net;

/// A published list. Its readers (firewall scripts, the Terraform provider) need all four members.
///
/// Members that a newer publisher adds are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedList {
    /// When the list changed last, UTC, `YYYY-MM-DD-HH-mm-ss`.
    pub update_date: String,
    /// Geo → host name (`*.` for any first label) → addresses.
    pub regions: BTreeMap<String, BTreeMap<String, Addresses>>,
    /// Geo → every address to which connections go.
    #[serde(rename = "ingressIPs")]
    pub ingress_ips: BTreeMap<String, Addresses>,
    /// Geo → addresses from which the platform itself connects (audit log webhooks).
    #[serde(rename = "egressIPs")]
    pub egress_ips: BTreeMap<String, Addresses>,
}

/// Addresses and networks; single addresses are written without `/32`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Net>", into = "Vec<String>")]
pub struct Addresses(BTreeSet<Net>);

/// Text that is no published list.
#[derive(Debug, thiserror::Error)]
#[error("this is not a list of addresses (ip-addresses.json): {0}")]
pub struct PublishedError(#[from] serde_json::Error);

/// What the second of two lists adds and no longer has, for one geo and direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedChange {
    /// The geo.
    pub geo: String,
    /// `ingress` or `egress`.
    pub side: &'static str,
    /// New addresses, sorted.
    pub added: Vec<String>,
    /// Addresses that are gone, sorted.
    pub removed: Vec<String>,
}

impl Addresses {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = Net> + '_ {
        self.0.iter().copied()
    }
}

impl IntoIterator for Addresses {
    type Item = Net;
    type IntoIter = std::collections::btree_set::IntoIter<Net>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<Net> for Addresses {
    fn from_iter<I: IntoIterator<Item = Net>>(nets: I) -> Addresses {
        Addresses(nets.into_iter().collect())
    }
}

impl From<Vec<Net>> for Addresses {
    fn from(nets: Vec<Net>) -> Addresses {
        nets.into_iter().collect()
    }
}

impl From<Addresses> for Vec<String> {
    fn from(addresses: Addresses) -> Vec<String> {
        addresses.0.into_iter().map(text).collect()
    }
}

/// An address as an address, a network as a network.
fn text(net: Net) -> String {
    net.single()
        .map_or_else(|| net.to_string(), |address| address.to_string())
}

impl PublishedList {
    /// Reads a list.
    ///
    /// # Errors
    /// Not JSON, a member missing, or something that is no address.
    pub fn parse(json: &str) -> Result<PublishedList, PublishedError> {
        Ok(serde_json::from_str(json)?)
    }

    /// The list as JSON, indented, with a newline at the end; the same list gives the same bytes.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .expect("strings, numbers and lists always become JSON");
        text.push('\n');
        text
    }

    /// Adds every name and address of `other`; the date stays.
    pub fn merge(&mut self, other: &PublishedList) {
        fn add(into: &mut BTreeMap<String, Addresses>, from: &BTreeMap<String, Addresses>) {
            for (key, addresses) in from {
                into.entry(key.clone()).or_default().0.extend(&addresses.0);
            }
        }
        for (geo, hosts) in &other.regions {
            add(self.regions.entry(geo.clone()).or_default(), hosts);
        }
        add(&mut self.ingress_ips, &other.ingress_ips);
        add(&mut self.egress_ips, &other.egress_ips);
    }

    /// What changes from `self` to `newer`, geo by geo; empty if the addresses are the same.
    pub fn changes(&self, newer: &PublishedList) -> Vec<PublishedChange> {
        let sides = [
            ("ingress", &self.ingress_ips, &newer.ingress_ips),
            ("egress", &self.egress_ips, &newer.egress_ips),
        ];
        let mut changes = Vec::new();
        for (side, before, after) in sides {
            let geos: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for geo in geos {
                let of = |lists: &BTreeMap<String, Addresses>| {
                    lists.get(geo).cloned().unwrap_or_default().0
                };
                let (before, after) = (of(before), of(after));
                let only = |these: &BTreeSet<Net>, those: &BTreeSet<Net>| {
                    these
                        .difference(those)
                        .copied()
                        .map(text)
                        .collect::<Vec<String>>()
                };
                let (added, removed) = (only(&after, &before), only(&before, &after));
                if !added.is_empty() || !removed.is_empty() {
                    changes.push(PublishedChange {
                        geo: geo.clone(),
                        side,
                        added,
                        removed,
                    });
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The shape of the hosted list, as its existing readers know it.
    const HOSTED: &str = r#"{"updateDate":"2025-08-26-16-03-33",
        "regions":{"us":{"us.api.example":["192.0.2.10"],"*.us.cp0.example":["192.0.2.11","2001:db8::1"]}},
        "ingressIPs":{"us":["192.0.2.10","192.0.2.11"]},"egressIPs":{"us":["192.0.2.20"]}}"#;

    #[test]
    fn reads_and_writes_the_shape_of_the_hosted_list() {
        let list = PublishedList::parse(HOSTED).unwrap();
        let written: serde_json::Value = serde_json::from_str(&list.json()).unwrap();
        let read: serde_json::Value = serde_json::from_str(HOSTED).unwrap();
        assert_eq!(written, read);
        assert!(
            PublishedList::parse("{}")
                .unwrap_err()
                .to_string()
                .contains("updateDate")
        );
    }

    #[test]
    fn a_change_is_told_by_geo_and_side() {
        let old = PublishedList::parse(HOSTED).unwrap();
        let newer = HOSTED
            .replace("[\"192.0.2.20\"]", "[]")
            .replace(",\"192.0.2.11\"]},", "],\"eu\":[\"192.0.2.9\"]},");
        let newer = PublishedList::parse(&newer).unwrap();
        let lines: Vec<String> = old
            .changes(&newer)
            .iter()
            .map(|it| format!("{} {} +{:?} -{:?}", it.geo, it.side, it.added, it.removed))
            .collect();
        assert_eq!(
            lines,
            [
                "eu ingress +[\"192.0.2.9\"] -[]",
                "us ingress +[] -[\"192.0.2.11\"]",
                "us egress +[] -[\"192.0.2.20\"]",
            ]
        );
        assert_eq!(old.changes(&old), []);
    }

    #[test]
    fn merged_lists_have_the_addresses_of_both() {
        let old = PublishedList::parse(HOSTED).unwrap();
        let other = HOSTED
            .replace("192.0.2.11\"", "192.0.2.12\"")
            .replace("us.cp0", "eu.cp0");
        let other = PublishedList::parse(&other).unwrap();
        let mut both = old.clone();
        both.merge(&other);
        let json: serde_json::Value = serde_json::from_str(&both.json()).unwrap();
        let three = serde_json::json!(["192.0.2.10", "192.0.2.11", "192.0.2.12"]);
        assert_eq!(json["ingressIPs"]["us"], three);
        assert_eq!(json["regions"]["us"]["*.eu.cp0.example"][0], "192.0.2.12");
        assert_eq!(json["updateDate"], "2025-08-26-16-03-33");
        let mut other = other;
        other.merge(&old);
        assert_eq!(other, both, "the order makes no difference");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_damaged_list_never_panics(at in 0..HOSTED.len(), with in "\\PC{0,4}") {
            if HOSTED.is_char_boundary(at) {
                let text = format!("{}{with}{}", &HOSTED[..at], &HOSTED[at..]);
                if let Ok(list) = PublishedList::parse(&text) {
                    prop_assert_eq!(PublishedList::parse(&list.json()).unwrap(), list);
                }
            }
        }
    }
}
