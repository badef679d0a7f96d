//! Aerleon: definitions and a policy, from which Aerleon makes the rules of many vendors.

use super::{Family, TRANSPORTS, about, heading, name};
use crate::policy::{Peers, Policy, Rule, Side};

/// A shell script that writes `def/sallyport.yaml` and `policies/pol/sallyport.yaml`.
///
/// The policy's target is nftables; another stateful target is one word away.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = String::from("#!/bin/sh\n");
    text.push_str(&heading(policy, "#"));
    text.push_str(
        "# aclcheck does not look at interfaces: when it answers `loopback`, nothing else matched.\n\
         # Aerleon's nftables target passes new connections only: where IPv6 is used, allow neighbour\n\
         # discovery (which has no connections) in a table of your own or take another target.\n\
         # AERLEON_DIR: where the files go, the current folder unless set; then run aclgen there.\n\
         set -eu\n\
         dir=\"${AERLEON_DIR:-.}\"\n\
         mkdir -p \"$dir/def\" \"$dir/policies/pol\"\n\
         cat > \"$dir/def/sallyport.yaml\" <<'YAML'\n",
    );
    let (mut networks, mut services) = (String::new(), String::new());
    for rule in &policy.rules {
        if rule.peers != Peers::Any {
            networks.push_str(&format!("  {}:\n    values:\n", token(rule)));
            for net in Family::BOTH
                .into_iter()
                .flat_map(|family| family.nets(rule))
            {
                networks.push_str(&format!("      - address: \"{net}\"\n"));
            }
        }
        for transport in TRANSPORTS {
            let ports = rule.ports(transport);
            if !ports.is_empty() {
                services.push_str(&format!(
                    "  {}_{}:\n",
                    token(rule),
                    transport.as_str().to_uppercase()
                ));
                for port in ports {
                    services.push_str(&format!(
                        "    - protocol: {transport}\n      port: {port}\n"
                    ));
                }
            }
        }
    }
    for (key, body) in [("networks", networks), ("services", services)] {
        text.push_str(&format!(
            "{key}:{}\n{body}",
            if body.is_empty() { " {}" } else { "" }
        ));
    }
    text.push_str("YAML\ncat > \"$dir/policies/pol/sallyport.yaml\" <<'YAML'\nfilters:\n");
    for (side, hook) in [(Side::In, "input"), (Side::Out, "output")] {
        text.push_str(&format!(
            "  - header:\n      targets:\n        nftables: mixed {hook}\n    terms:\n"
        ));
        let (interface, router) = match side {
            Side::In => ("source-interface", "router-advertisement"),
            Side::Out => ("destination-interface", "router-solicit"),
        };
        text.push_str(&format!(
            "      - name: ipv6-neighbours-{hook}\n        protocol: icmpv6\n        \
             icmp-type: neighbor-solicit neighbor-advertisement {router}\n        action: accept\n"
        ));
        for rule in policy.side(side) {
            text.push_str(&format!("      # {}\n", about(rule)));
            text.push_str(&terms(rule));
        }
        text.push_str(&format!(
            "      - name: loopback-{hook}\n        {interface}: lo\n        action: accept\n      \
             - name: everything-else-{hook}\n        action: deny\n"
        ));
    }
    text.push_str("YAML\n");
    text
}

fn token(rule: &Rule) -> String {
    let side = if rule.side == Side::In { "IN" } else { "OUT" };
    format!("SALLYPORT_{}_{side}", name(&rule.id).to_uppercase())
}

fn terms(rule: &Rule) -> String {
    let end = if rule.side == Side::In {
        "source-address"
    } else {
        "destination-address"
    };
    let peer = match rule.peers {
        Peers::Any => String::new(),
        Peers::Nets(_) => format!("        {end}: {}\n", token(rule)),
    };
    // Terms become chains of one table, so both sides must not share a name.
    let way = if rule.side == Side::In { "in" } else { "out" };
    let id = name(&rule.id);
    let mut text = String::new();
    let mut term = |suffix: &str, what: &str| {
        text.push_str(&format!(
            "      - name: {id}-{way}-{suffix}\n{peer}{what}        action: accept\n"
        ));
    };
    for transport in TRANSPORTS {
        if !rule.ports(transport).is_empty() {
            let upper = transport.as_str().to_uppercase();
            let port = format!("        destination-port: {}_{upper}\n", token(rule));
            term(
                transport.as_str(),
                &format!("        protocol: {transport}\n{port}"),
            );
        }
    }
    if rule.icmp() {
        for (protocol, v4) in [("icmp", true), ("icmpv6", false)] {
            if rule.peers.family(v4).is_none_or(|nets| !nets.is_empty()) {
                // Aerleon 1.x fails on a single ICMP type for nftables. A reply that answers nothing
                // is never new, so naming it too opens nothing.
                let types = "        icmp-type: echo-request echo-reply\n";
                term(protocol, &format!("        protocol: {protocol}\n{types}"));
            }
        }
    }
    text
}
