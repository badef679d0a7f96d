//! What changes in a firewall between two policies.

use std::collections::BTreeMap;

use crate::address::Net;
use crate::policy::{Peers, Policy, Side};
use crate::port::Flow;

/// Openings to add and to remove, each with the contract ids behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Lines for openings that the new policy has and the old one lacks.
    pub add: Vec<String>,
    /// Lines for openings that only the old policy has.
    pub remove: Vec<String>,
}

/// Why an old policy cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// Not the JSON that [`Policy::json`] writes.
    #[error("this is not a policy in JSON (as written by `--format json`): {0}")]
    Json(#[from] serde_json::Error),
    /// Another version of the form.
    #[error("the policy is of format {found}, this build reads format {known}")]
    Version {
        /// The version found.
        found: u32,
        /// The version that this build reads.
        known: u32,
    },
}

impl Change {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.remove {
            writeln!(f, "- {line}")?;
        }
        for line in &self.add {
            writeln!(f, "+ {line}")?;
        }
        Ok(())
    }
}

/// Compares the policy in `old` (JSON from [`Policy::json`]) with `new`, opening by opening.
///
/// An opening is a side, a port and one network (or any address, or a name where no address is
/// known); order, titles and the split into rules do not matter.
///
/// # Errors
/// Text that is no policy, or one of another format version.
pub fn diff(old: &str, new: &Policy) -> Result<Change, DiffError> {
    let value: serde_json::Value = serde_json::from_str(old)?;
    let found = value
        .get("format_version")
        .and_then(serde_json::Value::as_u64);
    if let Some(found) = found.filter(|&found| found != u64::from(new.format_version)) {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(DiffError::Version {
            found,
            known: new.format_version,
        });
    }
    let old: Policy = serde_json::from_value(value)?;
    let (before, after) = (openings(&old), openings(new));
    let only = |these: &Openings, those: &Openings| {
        let these = these
            .iter()
            .filter(|(opening, _)| !those.contains_key(*opening));
        these.map(|(opening, ids)| line(opening, ids)).collect()
    };
    Ok(Change {
        add: only(&after, &before),
        remove: only(&before, &after),
    })
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Far {
    Any,
    Host(String),
    Net(Net),
}

type Openings = BTreeMap<(Side, Flow, Far), Vec<String>>;

fn openings(policy: &Policy) -> Openings {
    let mut all = Openings::new();
    for rule in &policy.rules {
        for flow in &rule.flows {
            let far = match &rule.peers {
                Peers::Nets(nets) => nets.iter().copied().map(Far::Net).collect(),
                Peers::Any if rule.hosts.is_empty() => vec![Far::Any],
                Peers::Any => rule.hosts.iter().cloned().map(Far::Host).collect(),
            };
            for far in far {
                let ids = all.entry((rule.side, *flow, far)).or_default();
                if !ids.contains(&rule.id) {
                    ids.push(rule.id.clone());
                }
            }
        }
    }
    all
}

fn line((side, flow, far): &(Side, Flow, Far), ids: &[String]) -> String {
    let way = match side {
        Side::In => "in  from",
        Side::Out => "out to",
    };
    let far = match far {
        Far::Any => "any".to_owned(),
        Far::Host(host) => host.clone(),
        Far::Net(net) => net.to_string(),
    };
    format!("{way} {far} {flow} ({})", ids.join(", "))
}
