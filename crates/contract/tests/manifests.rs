//! The Kubernetes manifests, read back and asked packet by packet.

mod fixture;

use std::net::IpAddr;

use fixture::node;
use sallyport_contract::render::firewall::{Format, firewall};
use sallyport_contract::{Flow, Net, Packet, Peers, Policy, Side, catalogue, render, rows};
use serde_json::Value;

fn manifest(policy: &Policy, format: Format, kind: &str) -> Value {
    let text = firewall(policy, format);
    let manifest: Value =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(manifest["kind"], kind);
    manifest
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn holds(net: &Value, address: IpAddr) -> bool {
    let net: Net = net.as_str().expect("text").parse().expect("a network");
    net.contains(address)
}

/// What a rule of `networking.k8s.io/v1` says to a packet; no list means everything.
fn kubernetes_allows(rule: &Value, ends: &str, packet: &Packet) -> bool {
    let Flow::Port(flow) = packet.flow else {
        return false;
    };
    let port = |it: &Value| {
        it["port"] == flow.port.get() && it["protocol"] == flow.transport.as_str().to_uppercase()
    };
    let ports = rule.get("ports").is_none_or(|ports| list(ports).any(port));
    let block = |it: &Value| holds(&it["ipBlock"]["cidr"], packet.peer);
    ports && rule.get(ends).is_none_or(|blocks| list(blocks).any(block))
}

/// The same for `cilium.io/v2`, for ends that are addresses or everybody.
fn cilium_allows(rule: &Value, ends: &str, packet: &Packet) -> bool {
    let what = match packet.flow {
        Flow::Port(flow) => list(&rule["toPorts"])
            .flat_map(|it| list(&it["ports"]))
            .any(|it| {
                it["port"] == flow.port.to_string()
                    && it["protocol"] == flow.transport.as_str().to_uppercase()
            }),
        Flow::IcmpEcho => list(&rule["icmps"])
            .flat_map(|it| list(&it["fields"]))
            .any(|it| {
                let v4 = it["family"] == "IPv4" && it["type"] == 8;
                let v6 = it["family"] == "IPv6" && it["type"] == 128;
                if packet.peer.is_ipv4() { v4 } else { v6 }
            }),
    };
    let everybody = list(&rule[format!("{ends}Entities")]).any(|it| it == "all");
    what && (everybody || list(&rule[format!("{ends}CIDR")]).any(|it| holds(it, packet.peer)))
}

#[test]
fn manifests_allow_what_the_policy_allows() {
    for name in ["edge", "node1"] {
        let policy = node(name);
        let kubernetes = manifest(&policy, Format::Kubernetes, "NetworkPolicy");
        assert_eq!(
            kubernetes["spec"]["policyTypes"],
            serde_json::json!(["Ingress", "Egress"])
        );
        let cilium = manifest(&policy, Format::Cilium, "CiliumNetworkPolicy");
        let (mut open, mut closed) = (0, 0);
        for (side, key, ends) in [(Side::In, "ingress", "from"), (Side::Out, "egress", "to")] {
            for peer in [
                "192.0.2.11",
                "192.0.2.12",
                "192.0.2.20",
                "192.0.2.99",
                "172.16.9.9",
                "10.1.2.3",
                "203.0.113.7",
                "2001:db8::12",
                "2001:db8::20",
                "2001:db8::53",
            ] {
                let peer: IpAddr = peer.parse().expect("an address");
                for flow in catalogue().entries.iter().flat_map(|entry| entry.flows()) {
                    let packet = Packet { side, flow, peer };
                    let want = policy.allows(&packet);
                    let got = list(&cilium["spec"][key]).any(|it| cilium_allows(it, ends, &packet));
                    assert_eq!(got, want, "cilium: {name} {packet:?}");
                    let want = want && flow != Flow::IcmpEcho;
                    let got = list(&kubernetes["spec"][key])
                        .any(|it| kubernetes_allows(it, ends, &packet));
                    assert_eq!(got, want, "kubernetes: {name} {packet:?}");
                    if want { open += 1 } else { closed += 1 }
                }
            }
        }
        assert!(
            open > 50 && closed > 200,
            "{name}: {open} open, {closed} closed"
        );
    }
}

#[test]
fn a_policy_without_rules_denies_everything() {
    let mut policy = node("edge");
    policy.rules.clear();
    let kubernetes = manifest(&policy, Format::Kubernetes, "NetworkPolicy");
    assert_eq!(kubernetes["spec"]["ingress"], serde_json::json!([]));
    assert_eq!(kubernetes["spec"]["egress"], serde_json::json!([]));
    let cilium = manifest(&policy, Format::Cilium, "CiliumNetworkPolicy");
    assert_eq!(cilium["spec"]["ingress"], serde_json::json!([{}]));
    assert_eq!(cilium["spec"]["egress"], serde_json::json!([{}]));
}

#[test]
fn cilium_takes_names_for_any_address_and_reads_dns_for_them() {
    let mut policy = node("edge");
    for rule in policy
        .rules
        .iter_mut()
        .filter(|rule| !rule.hosts.is_empty())
    {
        rule.peers = Peers::Any;
    }
    let cilium = manifest(&policy, Format::Cilium, "CiliumNetworkPolicy");
    let egress: Vec<&Value> = list(&cilium["spec"]["egress"]).collect();
    let named: Vec<&str> = egress
        .iter()
        .flat_map(|rule| list(&rule["toFQDNs"]))
        .filter_map(|it| it["matchName"].as_str())
        .collect();
    assert_eq!(
        named,
        ["alpha.eu.cp0.sally.example", "alpha.eu.tp0.sally.example"]
    );
    let open: Vec<&&Value> = egress
        .iter()
        .filter(|rule| rule.get("toEntities").is_some())
        .collect();
    assert_eq!(open.len(), 1, "ntp alone goes anywhere: {open:?}");
    assert_eq!(
        egress[0]["toPorts"][0]["rules"]["dns"][0]["matchPattern"],
        "*"
    );
}

/// `docs/ports.md` is this text; `UPDATE_DOCS=1 cargo test -p sallyport-contract` writes it anew.
#[test]
fn the_page_of_ports_is_current() {
    let mut page = String::from(
        "# Ports and host names\n\n<!-- Made from crates/contract/data by the test \
         the_page_of_ports_is_current; do not edit. -->\n\n\
         `<base>` is the base domain of the installation, `<geo>` one of its geos, `<prefix>` the DNS\n\
         prefix of a control plane, `<portal>` the id of a developer portal. What each column means is\n\
         in [network_contract.md](network_contract.md).\n\n",
    );
    page.push_str(&render::markdown(
        &rows(catalogue(), &Default::default()).expect("no filter"),
    ));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ports.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).expect("docs can be written");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == page,
        "docs/ports.md is stale; run: UPDATE_DOCS=1 cargo test -p sallyport-contract"
    );
}
