//! The contract as text: terminal table, Markdown, JSON, CSV, and firewall rules.

mod csv;
pub mod firewall;
mod json;
mod markdown;
mod table;

pub use csv::csv;
pub use json::{FORMAT_VERSION, json};
pub use markdown::markdown;
pub use table::table;

use std::collections::BTreeMap;

use crate::entry::Entry;
use crate::port::{Flow, Port, Transport};
use crate::row::Row;

/// `80,443/tcp`, `53/udp+tcp`, `9300-9400/tcp`, `icmp`: ports with equal transports together.
pub fn ports(flows: &[Flow]) -> String {
    let mut by_port: BTreeMap<Port, Vec<Transport>> = BTreeMap::new();
    for flow in flows {
        if let Flow::Port(port) = flow {
            by_port.entry(port.port).or_default().push(port.transport);
        }
    }
    let mut groups: Vec<(Vec<Transport>, Vec<Port>)> = Vec::new();
    for (port, transports) in by_port {
        match groups.iter_mut().find(|(have, _)| *have == transports) {
            Some((_, ports)) => ports.push(port),
            None => groups.push((transports, vec![port])),
        }
    }
    let mut parts: Vec<String> = groups
        .into_iter()
        .map(|(transports, ports)| {
            let ports = runs(&ports);
            let transports: Vec<&str> = transports.iter().map(|t| t.as_str()).collect();
            format!("{}/{}", ports.join(","), transports.join("+"))
        })
        .collect();
    if flows.contains(&Flow::IcmpEcho) {
        parts.push("icmp".to_owned());
    }
    parts.join(" ")
}

/// Sorted ports, three or more in a row as `9300-9400`.
fn runs(ports: &[Port]) -> Vec<String> {
    let next = |a: &Port, b: &Port| a.get().checked_add(1) == Some(b.get());
    let mut parts = Vec::new();
    for run in ports.chunk_by(next) {
        match run {
            [first, .., last] if run.len() > 2 => parts.push(format!("{first}-{last}")),
            few => parts.extend(few.iter().map(ToString::to_string)),
        }
    }
    parts
}

/// `yes`, `no`, or `when` if the requirement has a condition.
pub(crate) fn need(entry: &Entry) -> &'static str {
    match (entry.required, &entry.when) {
        (true, None) => "yes",
        (true, Some(_)) => "when",
        (false, _) => "no",
    }
}

/// Host names with their addresses, or else addresses, or else the peer in words.
pub(crate) fn places(row: &Row<'_>) -> Vec<String> {
    let addresses: Vec<String> = row
        .entry
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut places = row.hosts.clone();
    match (places.last_mut(), addresses.is_empty()) {
        (Some(last), false) => last.push_str(&format!(" ({})", addresses.join(", "))),
        (None, false) => places = addresses,
        _ => {}
    }
    if places.is_empty() {
        places.extend(row.entry.peer.clone());
    }
    places
}
