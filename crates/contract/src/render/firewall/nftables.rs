//! nftables: one `inet` table of its own, so that other tables stay as they are.

use super::{Family, TRANSPORTS, about, heading, join, plain};
use crate::policy::{Policy, Rule, Side};

/// A file for `nft -f`; loading it again replaces the table in one transaction.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = String::from("#!/usr/sbin/nft -f\n");
    text.push_str(&heading(policy, "#"));
    text.push_str("# Forwarded packets are left to other tables.\n\n");
    text.push_str("table inet sallyport\ndelete table inet sallyport\n\ntable inet sallyport {\n");
    for (side, chain, interface) in [(Side::In, "input", "iif"), (Side::Out, "output", "oif")] {
        text.push_str(&format!(
            "\tchain {chain} {{\n\t\ttype filter hook {chain} priority filter; policy drop;\n\n\
             \t\tct state established,related accept\n"
        ));
        if side == Side::In {
            text.push_str("\t\tct state invalid drop\n");
        }
        text.push_str(&format!("\t\t{interface} \"lo\" accept\n"));
        // Without these IPv6 cannot find its neighbours; they never pass a router (hop limit 255).
        text.push_str(match side {
            Side::In => {
                "\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } \
                 ip6 hoplimit 255 accept\n"
            }
            Side::Out => {
                "\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } \
                 ip6 hoplimit 255 accept\n"
            }
        });
        for rule in policy.side(side) {
            text.push_str(&format!("\n\t\t# {}\n", about(rule)));
            for line in lines(rule) {
                let comment = plain(&rule.id);
                text.push_str(&format!("\t\t{line} accept comment \"{comment}\"\n"));
            }
        }
        text.push_str("\t}\n");
        if side == Side::In {
            text.push('\n');
        }
    }
    text.push_str("}\n");
    text
}

fn lines(rule: &Rule) -> Vec<String> {
    let end = if rule.side == Side::In {
        "saddr"
    } else {
        "daddr"
    };
    let mut lines = Vec::new();
    let any = rule.peers.family(true).is_none();
    let families: &[Family] = if any { &[Family::V4] } else { &Family::BOTH };
    for &family in families {
        let nets: Vec<_> = family.peers(rule).into_iter().flatten().collect();
        let peer = match (any, nets.is_empty()) {
            (true, _) => String::new(),
            (false, true) => continue,
            (false, false) => {
                let ip = if family == Family::V4 { "ip" } else { "ip6" };
                format!("{ip} {end} {{ {} }} ", join(&nets, ", "))
            }
        };
        for transport in TRANSPORTS {
            let ports = rule.ports(transport);
            if !ports.is_empty() {
                lines.push(format!(
                    "{peer}{transport} dport {{ {} }}",
                    join(&ports, ", ")
                ));
            }
        }
        if rule.icmp() {
            if any || family == Family::V4 {
                lines.push(format!("{peer}icmp type echo-request"));
            }
            if any || family == Family::V6 {
                lines.push(format!("{peer}icmpv6 type echo-request"));
            }
        }
    }
    lines
}
