//! Which addresses there are, and which there will be: a description in TOML, by geo and contract id.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sallyport_contract::{Addresses, Catalogue, Names, Net, PublishedList, is_label};
use serde::Deserialize;

use super::contribution::{Contribution, Planned};

/// What TOML says: geo → addresses.
type Raw = BTreeMap<String, RawGeo>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawGeo {
    /// Contract id → addresses to which connections go, of all regions of the geo.
    ingress: BTreeMap<String, Vec<Net>>,
    /// Addresses from which the platform connects.
    egress: Vec<Net>,
}

/// Why a description cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// Not TOML, an unknown key, or something that is no address.
    #[error("the addresses cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// It contradicts the contract; every problem is listed.
    #[error("the addresses cannot be used: {}", .0.join("; "))]
    Problems(Vec<String>),
}

/// What a description contributes.
///
/// # Errors
/// See [`SourcesError`].
pub(super) fn read(
    catalogue: &Catalogue,
    text: &str,
    base_domain: &str,
) -> Result<Contribution, SourcesError> {
    let mut table: toml::Table = text.parse()?;
    let mut problems = Vec::new();
    let planned = match table.remove("planned") {
        None => Vec::new(),
        Some(planned) => Vec::<toml::Table>::deserialize(planned)?,
    };
    let make = Make {
        catalogue,
        base_domain,
    };
    let mut first = PublishedList::default();
    make.put(&mut first, Raw::deserialize(table)?, &mut problems);
    let mut changes = Vec::new();
    for mut change in planned {
        let from = change.remove("from").map(|it| match it {
            toml::Value::String(text) => text,
            toml::Value::Datetime(moment) => moment.to_string(),
            other => format!("a {}", other.type_str()),
        });
        let from = from.unwrap_or_default();
        match from.parse::<Timestamp>() {
            Ok(at) => changes.push((at.as_second(), Raw::deserialize(change)?)),
            Err(_) => problems.push(format!(
                "planned: `from` is {from:?}, but must be a moment with its zone, such as \
                 2026-12-01T06:00:00Z"
            )),
        }
    }
    changes.sort_by_key(|(from, _)| *from);
    if changes.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        problems.push("planned: two changes have the same `from`; make them one".to_owned());
    }
    let mut planned: Vec<Planned> = Vec::new();
    for (from, raw) in changes {
        let mut list = planned.last().map_or(&first, |it| &it.list).clone();
        make.put(&mut list, raw, &mut problems);
        planned.push(Planned { from, list });
    }
    if problems.is_empty() {
        Ok(Contribution { first, planned })
    } else {
        Err(SourcesError::Problems(problems))
    }
}

/// What lists are made with.
struct Make<'a> {
    catalogue: &'a Catalogue,
    base_domain: &'a str,
}

impl Make<'_> {
    /// Puts geos into a list, each in the place of what the list said about it.
    fn put(&self, list: &mut PublishedList, raw: Raw, problems: &mut Vec<String>) {
        let (catalogue, base_domain) = (self.catalogue, self.base_domain);
        for (geo, raw) in raw {
            if !catalogue.geos.contains(&geo) && geo != "global" {
                let known = catalogue.geos.join(", ");
                problems.push(format!(
                    "there is no geo `{geo}`; known are {known}, global"
                ));
                continue;
            }
            let mut hosts = BTreeMap::new();
            let mut all: Vec<Net> = Vec::new();
            for (id, nets) in raw.ingress {
                let Some(host) = host(catalogue, &id, &geo, base_domain) else {
                    problems.push(format!("{geo}: the contract has no host for `{id}` there"));
                    continue;
                };
                all.extend(&nets);
                hosts.insert(host, Addresses::from(nets));
            }
            list.regions.insert(geo.clone(), hosts);
            list.ingress_ips.insert(geo.clone(), Addresses::from(all));
            list.egress_ips.insert(geo, Addresses::from(raw.egress));
        }
    }
}

/// The name of `id` in `geo`, with `*` for what differs between control planes or portals.
pub(super) fn host(catalogue: &Catalogue, id: &str, geo: &str, base: &str) -> Option<String> {
    // A label that no name has, so that it can be found again.
    const ANY: &str = "any-label-0";
    debug_assert!(is_label(ANY));
    let entry = catalogue.entry(id)?;
    let names = Names {
        base,
        geo: Some(geo),
        prefix: Some(ANY),
        portal: Some(ANY),
    };
    let fits = |pattern: &&sallyport_contract::HostPattern| {
        let here = catalogue.geos_of(entry).iter().any(|it| it == geo);
        !pattern.has_geo() || here || geo == "global"
    };
    let name = entry.hosts.iter().find(fits)?.render(&names).ok()?;
    Some(name.replacen(ANY, "*", 1))
}
