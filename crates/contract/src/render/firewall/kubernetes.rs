//! Kubernetes `NetworkPolicy`: stateful by definition, addresses only, no ICMP.

use super::{Family, TRANSPORTS, about, heading};
use crate::policy::{Peers, Policy, Rule, Side};

/// One policy for the pods labelled `app.kubernetes.io/name: sallyport`.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = heading(policy, "#");
    text.push_str("# Ports are those of the pods. Names are not known to a NetworkPolicy.\n");
    text.push_str(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: sallyport\nspec:\n  \
         podSelector:\n    matchLabels:\n      app.kubernetes.io/name: sallyport\n  \
         policyTypes:\n    - Ingress\n    - Egress\n",
    );
    for (side, key) in [(Side::In, "ingress"), (Side::Out, "egress")] {
        let rules: String = policy.side(side).map(entry).collect();
        let some = rules.lines().any(|line| line.trim_start().starts_with('-'));
        text.push_str(&format!(
            "  {key}:{}\n{rules}",
            if some { "" } else { " []" }
        ));
    }
    text
}

fn entry(rule: &Rule) -> String {
    let mut text = format!("    # {}\n", about(rule));
    if rule.icmp() {
        text.push_str("    # ICMP echo cannot be said in a NetworkPolicy.\n");
    }
    let mut ports = String::new();
    for transport in TRANSPORTS {
        let protocol = transport.as_str().to_uppercase();
        for port in rule.ports(transport) {
            ports.push_str(&format!(
                "        - protocol: {protocol}\n          port: {port}\n"
            ));
        }
    }
    if ports.is_empty() {
        return text;
    }
    text.push_str(&format!("    - ports:\n{ports}"));
    if rule.peers != Peers::Any {
        text.push_str(if rule.side == Side::In {
            "      from:\n"
        } else {
            "      to:\n"
        });
        for family in Family::BOTH {
            for net in family.nets(rule) {
                text.push_str(&format!(
                    "        - ipBlock:\n            cidr: \"{net}\"\n"
                ));
            }
        }
    }
    text
}
