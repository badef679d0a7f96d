//! squid access rules: what a forward proxy lets its clients reach by name.

use super::{Family, about, heading, join, name};
use crate::policy::{Policy, Rule, Side};
use crate::port::Transport;

/// A file to include from `squid.conf`, before other `http_access` lines.
///
/// Only outgoing TCP rows with host names can be said here; the others are listed as comments.
/// Clients are the peers of the row `forward_proxy`, else the filtered machines, else everybody.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = heading(policy, "#");
    text.push_str(&format!(
        "acl sallyport_clients src {}\nacl sallyport_connect method CONNECT\n",
        clients(policy)
    ));
    for rule in policy.side(Side::Out) {
        let ports = rule.ports(Transport::Tcp);
        if rule.hosts.is_empty() || ports.is_empty() {
            text.push_str(&format!("\n# not for a proxy: {}\n", about(rule)));
            continue;
        }
        text.push_str(&format!("\n# {}\n", about(rule)));
        let acl = format!("sallyport_{}", name(&rule.id));
        text.push_str(&format!("acl {acl} dstdomain {}\n", join(&rule.hosts, " ")));
        // Port 80 is spoken in the clear, everything else through a tunnel.
        let (clear, tunnel): (Vec<u16>, Vec<u16>) = ports.into_iter().partition(|&port| port == 80);
        for (ports, not, suffix) in [(tunnel, "", "port"), (clear, "!", "clear")] {
            if !ports.is_empty() {
                text.push_str(&format!(
                    "acl {acl}_{suffix} port {}\n\
                     http_access allow sallyport_clients {not}sallyport_connect {acl} {acl}_{suffix}\n",
                    join(&ports, " ")
                ));
            }
        }
    }
    text.push_str("\nhttp_access deny all\n");
    text
}

fn clients(policy: &Policy) -> String {
    let asked: Option<&Rule> = policy
        .side(Side::In)
        .find(|rule| rule.id == "forward_proxy");
    let nets = match asked {
        Some(rule) if rule.peers.family(true).is_some() => Family::BOTH
            .into_iter()
            .flat_map(|family| family.nets(rule))
            .collect(),
        Some(_) => Vec::new(),
        None => policy.own.iter().map(ToString::to_string).collect(),
    };
    if nets.is_empty() {
        "all".to_owned()
    } else {
        nets.join(" ")
    }
}
