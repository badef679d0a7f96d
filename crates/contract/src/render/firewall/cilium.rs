//! `CiliumNetworkPolicy`: stateful, and knows names.

use super::{Family, TRANSPORTS, about, heading};
use crate::policy::{Peers, Policy, Rule, Side};

/// One policy for the endpoints labelled `app.kubernetes.io/name: sallyport`.
///
/// Where a rule has names, they take the place of "any address". Cilium learns the addresses of names
/// by reading DNS answers, so the cluster's resolver is allowed with a DNS rule.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = heading(policy, "#");
    text.push_str("# Ports are those of the pods.\n");
    text.push_str(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: sallyport\nspec:\n  \
         endpointSelector:\n    matchLabels:\n      app.kubernetes.io/name: sallyport\n",
    );
    for (side, key) in [(Side::In, "ingress"), (Side::Out, "egress")] {
        let mut rules = String::new();
        let named = policy.side(side).any(|rule| !rule.hosts.is_empty());
        if side == Side::Out && named {
            rules.push_str(DNS);
        }
        for rule in policy.side(side) {
            rules.push_str(&format!("    # {}\n", about(rule)));
            for peer in peers(rule) {
                for what in flows(rule) {
                    rules.push_str(&format!("    - {peer}{what}"));
                }
            }
        }
        // One empty rule allows nothing, and still turns default deny on for this direction.
        if rules.lines().all(|line| line.trim_start().starts_with('#')) {
            rules.push_str("    - {}\n");
        }
        text.push_str(&format!("  {key}:\n{rules}"));
    }
    text
}

const DNS: &str =
    "    # the cluster's resolver, whose answers tell the addresses of the names below
    - toEndpoints:
        - matchLabels:
            k8s:io.kubernetes.pod.namespace: kube-system
            k8s:k8s-app: kube-dns
      toPorts:
        - ports:
            - port: \"53\"
              protocol: ANY
          rules:
            dns:
              - matchPattern: \"*\"
";

/// The far ends, each as the first key of a rule; one rule cannot hold two kinds.
fn peers(rule: &Rule) -> Vec<String> {
    let (cidr, entities) = match rule.side {
        Side::In => ("fromCIDR", "fromEntities"),
        Side::Out => ("toCIDR", "toEntities"),
    };
    let mut all = Vec::new();
    if !rule.hosts.is_empty() {
        let names = rule
            .hosts
            .iter()
            .map(|host| format!("        - matchName: \"{host}\"\n"));
        all.push(format!("toFQDNs:\n{}", names.collect::<String>()));
    }
    match &rule.peers {
        Peers::Any if rule.hosts.is_empty() => {
            all.push(format!("{entities}:\n        - all\n"));
        }
        Peers::Any => {}
        Peers::Nets(_) => {
            let nets = Family::BOTH
                .into_iter()
                .flat_map(|family| family.nets(rule));
            let nets = nets.map(|net| format!("        - \"{net}\"\n"));
            all.push(format!("{cidr}:\n{}", nets.collect::<String>()));
        }
    }
    all
}

/// Ports and ICMP, which one rule cannot hold together.
fn flows(rule: &Rule) -> Vec<String> {
    let mut ports = String::new();
    for transport in TRANSPORTS {
        let protocol = transport.as_str().to_uppercase();
        for port in rule.ports(transport) {
            ports.push_str(&format!(
                "            - port: \"{port}\"\n              protocol: {protocol}\n"
            ));
        }
    }
    let mut all = Vec::new();
    if !ports.is_empty() {
        all.push(format!("      toPorts:\n        - ports:\n{ports}"));
    }
    if rule.icmp() {
        all.push(
            "      icmps:\n        - fields:\n            - family: IPv4\n              type: 8\n            \
             - family: IPv6\n              type: 128\n"
                .to_owned(),
        );
    }
    all
}
