//! A plain list of destinations, for anything that takes one entry a line.

use std::collections::BTreeSet;

use super::heading;
use crate::policy::{Peers, Policy, Side};

/// `host:port/transport`, sorted, each once; addresses where there is no name, `*` where there is
/// neither. IPv6 stands in brackets. Only what goes out.
pub(super) fn render(policy: &Policy) -> String {
    let mut lines = BTreeSet::new();
    for rule in policy.side(Side::Out) {
        let far: Vec<String> = match &rule.peers {
            _ if !rule.hosts.is_empty() => rule.hosts.clone(),
            Peers::Any => vec!["*".to_owned()],
            Peers::Nets(nets) => {
                let text = |net: &crate::address::Net| {
                    if net.is_v4() {
                        net.to_string()
                    } else {
                        format!("[{net}]")
                    }
                };
                nets.iter().map(text).collect()
            }
        };
        for far in far {
            for flow in &rule.flows {
                lines.insert(match flow {
                    crate::port::Flow::Port(port) => format!("{far}:{port}"),
                    crate::port::Flow::IcmpEcho => format!("{far}:icmp"),
                });
            }
        }
    }
    let mut text = heading(policy, "#");
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}
