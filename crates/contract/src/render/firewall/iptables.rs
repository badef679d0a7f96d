//! iptables-save format, one family at a time.

use super::{Family, TRANSPORTS, about, heading, join, plain};
use crate::policy::{Policy, Rule, Side};

/// `-m multiport` takes at most this many ports.
const PORTS_MAX: usize = 15;

/// A file for `iptables-restore` (or `ip6tables-restore`); it replaces the whole `filter` table.
pub(super) fn render(policy: &Policy, family: Family) -> String {
    let mut text = heading(policy, "#");
    text.push_str(
        "# Forwarded packets are dropped too: restoring a table empties its other chains.\n",
    );
    text.push_str("*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n");
    for (side, chain, interface) in [(Side::In, "INPUT", "-i"), (Side::Out, "OUTPUT", "-o")] {
        text.push_str(&format!(
            "-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
        ));
        if side == Side::In {
            text.push_str("-A INPUT -m conntrack --ctstate INVALID -j DROP\n");
        }
        text.push_str(&format!("-A {chain} {interface} lo -j ACCEPT\n"));
        if family == Family::V6 {
            // Without these IPv6 cannot find its neighbours; they never pass a router.
            let router = if side == Side::In {
                "advertisement"
            } else {
                "solicitation"
            };
            for kind in [
                "neighbour-solicitation",
                "neighbour-advertisement",
                &format!("router-{router}"),
            ] {
                text.push_str(&format!(
                    "-A {chain} -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -m hl --hl-eq 255 -j ACCEPT\n"
                ));
            }
        }
        for rule in policy.side(side) {
            let matches = matches(rule, family);
            if matches.is_empty() {
                continue;
            }
            text.push_str(&format!("# {}\n", about(rule)));
            for one in matches {
                let id = plain(&rule.id);
                text.push_str(&format!(
                    "-A {chain}{one} -m conntrack --ctstate NEW -m comment --comment \"{id}\" -j ACCEPT\n"
                ));
            }
        }
    }
    text.push_str("COMMIT\n");
    text
}

fn matches(rule: &Rule, family: Family) -> Vec<String> {
    let end = if rule.side == Side::In { "-s" } else { "-d" };
    let mut all = Vec::new();
    for net in family.peers(rule) {
        let peer = net.map(|net| format!(" {end} {net}")).unwrap_or_default();
        for transport in TRANSPORTS {
            for ports in rule.ports(transport).chunks(PORTS_MAX) {
                all.push(match ports {
                    [port] => format!("{peer} -p {transport} -m {transport} --dport {port}"),
                    ports => {
                        let ports = join(ports, ",");
                        format!("{peer} -p {transport} -m multiport --dports {ports}")
                    }
                });
            }
        }
        if rule.icmp() {
            all.push(match family {
                Family::V4 => format!("{peer} -p icmp -m icmp --icmp-type echo-request"),
                Family::V6 => format!("{peer} -p ipv6-icmp -m icmp6 --icmpv6-type echo-request"),
            });
        }
    }
    all
}
