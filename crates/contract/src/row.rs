//! Rows as they are shown: entries with the reader's role and geo applied.

use crate::catalogue::Catalogue;
use crate::entry::{Direction, Entry, Role};
use crate::port::Flow;

/// What the reader wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only rows in which this role takes part.
    pub role: Option<Role>,
    /// Only rows of this geo (and those without one), with `<geo>` filled in.
    pub geo: Option<String>,
}

/// A filter that fits nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No row knows the geo.
    #[error("there is no geo `{geo}`; known are {known}")]
    UnknownGeo {
        /// What was asked for.
        geo: String,
        /// The geos of the catalogue, parted by commas.
        known: String,
    },
}

/// An entry, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The entry behind the row.
    pub entry: &'a Entry,
    /// Ports and ICMP; an installation may have moved ports.
    pub flows: Vec<Flow>,
    /// Roles that open the connection; an installation may route it through a forward proxy.
    pub from: Vec<Role>,
    /// Roles that accept it.
    pub to: Vec<Role>,
    /// Host names; places that the filter did not fill are still patterns.
    pub hosts: Vec<String>,
    /// As the filter's role sees it; `None` without a role.
    pub direction: Option<Direction>,
}

/// The rows of `catalogue` that pass `filter`, in the catalogue's order.
///
/// # Errors
/// A geo that no entry knows.
pub fn rows<'a>(catalogue: &'a Catalogue, filter: &Filter) -> Result<Vec<Row<'a>>, FilterError> {
    let geo = filter.geo.as_deref().map(str::to_ascii_lowercase);
    if let Some(geo) = &geo {
        let mut known = catalogue.geos.clone();
        known.extend(
            catalogue
                .entries
                .iter()
                .flat_map(|entry| entry.geos.iter().cloned()),
        );
        known.sort();
        known.dedup();
        if !known.contains(geo) {
            return Err(FilterError::UnknownGeo {
                geo: geo.clone(),
                known: known.join(", "),
            });
        }
    }
    let row = |entry: &'a Entry| {
        let direction = match filter.role {
            Some(role) => Some(entry.direction(role)?),
            None => None,
        };
        let mut hosts = Vec::new();
        for pattern in &entry.hosts {
            match &geo {
                Some(geo) if pattern.has_geo() => {
                    if catalogue.geos_of(entry).contains(geo) {
                        hosts.push(pattern.with_geo(geo));
                    }
                }
                _ => hosts.push(pattern.to_string()),
            }
        }
        // Named only in other geos: not a row of this one.
        if hosts.is_empty() && !entry.hosts.is_empty() {
            return None;
        }
        if let Some(base) = &catalogue.base {
            for host in &mut hosts {
                *host = host.replace("<base>", base);
            }
        }
        Some(Row {
            entry,
            flows: entry.flows(),
            from: entry.from.clone(),
            to: entry.to.clone(),
            hosts,
            direction,
        })
    };
    Ok(catalogue.entries.iter().filter_map(row).collect())
}
