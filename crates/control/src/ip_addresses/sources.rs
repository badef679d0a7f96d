//! Which addresses there are: a description in TOML, by geo and contract id.

use std::collections::BTreeMap;

use sallyport_contract::{Addresses, Catalogue, Names, Net, PublishedList, is_label};
use serde::Deserialize;

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

/// The list of a description, without a date.
///
/// # Errors
/// See [`SourcesError`].
pub(super) fn list(
    catalogue: &Catalogue,
    text: &str,
    base_domain: &str,
) -> Result<PublishedList, SourcesError> {
    let raw: Raw = toml::from_str(text)?;
    let mut problems = Vec::new();
    let mut list = PublishedList::default();
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
    if problems.is_empty() {
        Ok(list)
    } else {
        Err(SourcesError::Problems(problems))
    }
}

/// The name of `id` in `geo`, with `*` for what differs between control planes or portals.
fn host(catalogue: &Catalogue, id: &str, geo: &str, base: &str) -> Option<String> {
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
