//! ufw: a shell script of its own commands.

use super::{Family, TRANSPORTS, about, heading, join, plain};
use crate::policy::{Policy, Rule, Side};

/// ufw takes at most this many ports in one rule.
const PORTS_MAX: usize = 15;

/// A script that resets ufw, denies everything, and allows the policy's rules.
///
/// ufw itself lets answers to open connections, loopback and IPv6 neighbour discovery pass.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = String::from("#!/bin/sh\n");
    text.push_str(&heading(policy, "#"));
    text.push_str("# UFW: the program, `ufw` unless set.\nset -eu\nufw=\"${UFW:-ufw}\"\n");
    text.push_str(
        "$ufw --force reset\n$ufw default deny incoming\n$ufw default deny outgoing\n\
         $ufw default deny routed\n",
    );
    for rule in &policy.rules {
        text.push_str(&format!("\n# {}\n", about(rule)));
        for line in lines(rule) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text.push_str("\n$ufw --force enable\n");
    text
}

fn lines(rule: &Rule) -> Vec<String> {
    let mut peers: Vec<String> = Vec::new();
    for family in Family::BOTH {
        peers.extend(
            family
                .peers(rule)
                .into_iter()
                .flatten()
                .map(|net| net.to_string()),
        );
    }
    if rule.peers.family(true).is_none() {
        peers = vec!["any".to_owned()];
    }
    let mut lines = Vec::new();
    for peer in peers {
        for transport in TRANSPORTS {
            for ports in rule.ports(transport).chunks(PORTS_MAX) {
                let (ports, id) = (join(ports, ","), plain(&rule.id));
                lines.push(match rule.side {
                    Side::In => format!(
                        "$ufw allow in proto {transport} from {peer} to any port {ports} comment '{id}'"
                    ),
                    Side::Out => format!(
                        "$ufw allow out proto {transport} from any to {peer} port {ports} comment '{id}'"
                    ),
                });
            }
        }
    }
    if rule.icmp() {
        lines.extend(echo(rule));
    }
    lines
}

/// The commands of ufw cannot say ICMP; its rule files can.
fn echo(rule: &Rule) -> Vec<String> {
    let (chain, end) = match rule.side {
        Side::In => ("input", "-s"),
        Side::Out => ("output", "-d"),
    };
    let mut lines = vec![match rule.side {
        Side::In => {
            "# ufw answers echo requests of anybody; to narrow it, edit before.rules:".to_owned()
        }
        Side::Out => {
            "# ufw's commands cannot allow ICMP; put this above COMMIT in its files:".to_owned()
        }
    }];
    for (family, file, chain, what) in [
        (
            Family::V4,
            "before.rules",
            format!("ufw-before-{chain}"),
            "-p icmp --icmp-type echo-request",
        ),
        (
            Family::V6,
            "before6.rules",
            format!("ufw6-before-{chain}"),
            "-p icmpv6 --icmpv6-type echo-request",
        ),
    ] {
        for net in family.nets(rule) {
            lines.push(format!(
                "#   /etc/ufw/{file}: -A {chain} {end} {net} {what} -j ACCEPT"
            ));
        }
    }
    lines
}
