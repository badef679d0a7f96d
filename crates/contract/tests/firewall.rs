//! Firewall rules: each dialect as a whole, and the direction of each.

mod fixture;

use fixture::node;
use proptest::prelude::*;
use sallyport_contract::render::firewall::{Format, firewall};
use sallyport_contract::{Flow, Peers, Policy, Rule, Side, catalogue, policy};

#[test]
fn the_gateway_of_the_fixture_in_every_dialect() {
    for format in Format::ALL {
        insta::assert_snapshot!(format!("edge.{format}"), firewall(&node("edge"), format));
        assert_eq!(Format::from_name(format.as_str()), Some(format));
    }
}

/// One rule in each direction with networks of both families, and nothing else.
fn two_ways() -> Policy {
    let rule = |id: &str, side, flows: &[&str], nets: &[&str]| Rule {
        id: id.to_owned(),
        title: "Title".to_owned(),
        side,
        flows: flows
            .iter()
            .map(|it| Flow::try_from((*it).to_owned()).expect("a flow"))
            .collect(),
        peers: Peers::Nets(
            nets.iter()
                .map(|net| net.parse().expect("a network"))
                .collect(),
        ),
        hosts: if side == Side::Out {
            vec!["far.example".to_owned()]
        } else {
            Vec::new()
        },
    };
    Policy {
        format_version: 1,
        title: "test".to_owned(),
        own: Vec::new(),
        rules: vec![
            rule(
                "come",
                Side::In,
                &["1111/tcp", "1112/udp", "icmp"],
                &["192.0.2.1", "2001:db8::1"],
            ),
            rule(
                "go",
                Side::Out,
                &["2222/tcp", "2223/udp", "icmp"],
                &["192.0.2.2", "2001:db8::2"],
            ),
        ],
        withheld: Vec::new(),
    }
}

/// The text between two marks; the whole rest without the second.
#[track_caller]
fn part<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text
        .find(from)
        .unwrap_or_else(|| panic!("no {from:?} in:\n{text}"));
    let rest = &text[start..];
    if to.is_empty() {
        return rest;
    }
    let end = rest[from.len()..]
        .find(to)
        .unwrap_or_else(|| panic!("no {to:?} after {from:?}"));
    &rest[..from.len() + end]
}

#[track_caller]
fn check_ways(format: Format, marks: [(&str, &str); 2], come: &[&str], go: &[&str]) {
    // Aligned columns are as wide as their neighbours make them.
    let mut text = firewall(&two_ways(), format);
    while text.contains("  =") {
        text = text.replace("  =", " =");
    }
    let [inwards, outwards] = marks.map(|(from, to)| part(&text, from, to));
    for (part, want, other) in [(inwards, come, go), (outwards, go, come)] {
        for line in want {
            assert!(part.contains(line), "{format}: no {line:?} in:\n{part}");
        }
        for line in other {
            assert!(!part.contains(line), "{format}: {line:?} in:\n{part}");
        }
    }
    for foreign in ["192.0.2.1/32", "192.0.2.1 ", "1111"] {
        assert!(
            !outwards.contains(foreign),
            "{format}: {foreign} in:\n{outwards}"
        );
    }
    for foreign in ["192.0.2.2/32", "192.0.2.2 ", "2222", "far.example"] {
        assert!(
            !inwards.contains(foreign),
            "{format}: {foreign} in:\n{inwards}"
        );
    }
}

#[test]
fn nftables_directions() {
    check_ways(
        Format::Nftables,
        [("chain input", "chain output"), ("chain output", "")],
        &[
            "ip saddr { 192.0.2.1/32 } tcp dport { 1111 } accept",
            "ip saddr { 192.0.2.1/32 } udp dport { 1112 } accept",
            "ip saddr { 192.0.2.1/32 } icmp type echo-request accept",
            "ip6 saddr { 2001:db8::1/128 } tcp dport { 1111 } accept",
            "ip6 saddr { 2001:db8::1/128 } icmpv6 type echo-request accept",
        ],
        &[
            "ip daddr { 192.0.2.2/32 } tcp dport { 2222 } accept",
            "ip6 daddr { 2001:db8::2/128 } udp dport { 2223 } accept",
            "ip daddr { 192.0.2.2/32 } icmp type echo-request accept",
        ],
    );
}

#[test]
fn iptables_directions() {
    check_ways(
        Format::Iptables,
        [("-A INPUT", "-A OUTPUT"), ("-A OUTPUT", "")],
        &[
            "-A INPUT -s 192.0.2.1/32 -p tcp -m tcp --dport 1111 -m conntrack --ctstate NEW",
            "-A INPUT -s 192.0.2.1/32 -p icmp -m icmp --icmp-type echo-request",
        ],
        &["-A OUTPUT -d 192.0.2.2/32 -p udp -m udp --dport 2223 -m conntrack --ctstate NEW"],
    );
    assert!(!firewall(&two_ways(), Format::Iptables).contains("2001:db8"));
}

#[test]
fn ip6tables_directions() {
    check_ways(
        Format::Ip6tables,
        [("-A INPUT", "-A OUTPUT"), ("-A OUTPUT", "")],
        &[
            "-A INPUT -s 2001:db8::1/128 -p udp -m udp --dport 1112",
            "-A INPUT -s 2001:db8::1/128 -p ipv6-icmp -m icmp6 --icmpv6-type echo-request",
        ],
        &["-A OUTPUT -d 2001:db8::2/128 -p tcp -m tcp --dport 2222"],
    );
    assert!(!firewall(&two_ways(), Format::Ip6tables).contains("192.0.2"));
}

#[test]
fn firewalld_directions() {
    check_ways(
        Format::Firewalld,
        [
            ("<zone target=\"DROP\">", "</zone>"),
            ("<policy target=\"DROP\">", "</policy>"),
        ],
        &[
            "<rule family=\"ipv4\"><source address=\"192.0.2.1/32\"/><port port=\"1111\" protocol=\"tcp\"/><accept/></rule>",
            "<rule family=\"ipv6\"><source address=\"2001:db8::1/128\"/><icmp-type name=\"echo-request\"/><accept/></rule>",
        ],
        &[
            "<rule family=\"ipv6\"><destination address=\"2001:db8::2/128\"/><port port=\"2223\" protocol=\"udp\"/><accept/></rule>",
            "<ingress-zone name=\"HOST\"/>",
        ],
    );
}

#[test]
fn ufw_directions() {
    check_ways(
        Format::Ufw,
        [("# come", "# go"), ("# go", "")],
        &[
            "$ufw allow in proto tcp from 192.0.2.1/32 to any port 1111 comment 'come'",
            "before6.rules: -A ufw6-before-input -s 2001:db8::1/128 -p icmpv6",
        ],
        &[
            "$ufw allow out proto udp from any to 2001:db8::2/128 port 2223 comment 'go'",
            "before.rules: -A ufw-before-output -d 192.0.2.2/32 -p icmp",
        ],
    );
}

#[test]
fn aws_directions() {
    check_ways(
        Format::Aws,
        [("# come", "# go"), ("# go", "")],
        &[
            "\"aws_vpc_security_group_ingress_rule\" \"come_in_1\"",
            "from_port = 1111",
            "\"2001:db8::1/128\"",
        ],
        &[
            "\"aws_vpc_security_group_egress_rule\" \"go_out_1\"",
            "from_port = 2222",
            "\"2001:db8::2/128\"",
        ],
    );
}

#[test]
fn google_directions() {
    check_ways(
        Format::Google,
        [("# come", "# go"), ("# go", "# Everything else")],
        &[
            "direction = \"INGRESS\"",
            "source_ranges = [\"192.0.2.1/32\"]",
            "ports = [\"1111\"]",
        ],
        &[
            "direction = \"EGRESS\"",
            "destination_ranges = [\"2001:db8::2/128\"]",
            "ports = [\"2223\"]",
        ],
    );
    let text = firewall(&two_ways(), Format::Google);
    assert_eq!(
        part(&text, "# Everything else", "")
            .matches("deny {")
            .count(),
        4
    );
}

#[test]
fn azure_directions() {
    check_ways(
        Format::Azure,
        [("# come", "# Everything else"), ("# go", "")],
        &[
            "direction = \"Inbound\"",
            "source_address_prefixes = [\"192.0.2.1/32\"]",
            "destination_port_ranges = [\"1111\"]",
        ],
        &[
            "direction = \"Outbound\"",
            "destination_address_prefixes = [\"2001:db8::2/128\"]",
            "destination_port_ranges = [\"2223\"]",
        ],
    );
}

#[test]
fn kubernetes_directions() {
    check_ways(
        Format::Kubernetes,
        [("  ingress:", "  egress:"), ("  egress:", "")],
        &[
            "- protocol: TCP\n          port: 1111",
            "      from:\n        - ipBlock:\n            cidr: \"192.0.2.1/32\"",
        ],
        &[
            "- protocol: UDP\n          port: 2223",
            "      to:\n        - ipBlock:\n            cidr: \"192.0.2.2/32\"",
        ],
    );
}

#[test]
fn cilium_directions() {
    check_ways(
        Format::Cilium,
        [("  ingress:", "  egress:"), ("  egress:", "")],
        &[
            "- fromCIDR:\n        - \"192.0.2.1/32\"",
            "port: \"1111\"\n              protocol: TCP",
        ],
        &[
            "- toCIDR:\n        - \"192.0.2.2/32\"",
            "- toFQDNs:\n        - matchName: \"far.example\"",
            "port: \"2223\"",
        ],
    );
}

#[test]
fn aerleon_directions() {
    check_ways(
        Format::Aerleon,
        [
            ("nftables: mixed input", "nftables: mixed output"),
            ("nftables: mixed output", ""),
        ],
        &[
            "source-address: SALLYPORT_COME_IN\n        protocol: tcp\n        destination-port: SALLYPORT_COME_IN_TCP",
        ],
        &[
            "destination-address: SALLYPORT_GO_OUT\n        protocol: udp\n        destination-port: SALLYPORT_GO_OUT_UDP",
        ],
    );
}

#[test]
fn what_comes_in_is_no_business_of_proxies_and_allow_lists() {
    let squid = firewall(&two_ways(), Format::Squid);
    assert!(
        squid.contains("acl sallyport_go dstdomain far.example\n"),
        "{squid}"
    );
    assert!(squid.contains(
        "http_access allow sallyport_clients sallyport_connect sallyport_go sallyport_go_port"
    ));
    assert!(squid.ends_with("\nhttp_access deny all\n"));
    let list = firewall(&two_ways(), Format::AllowList);
    assert!(
        list.ends_with("far.example:2222/tcp\nfar.example:2223/udp\nfar.example:icmp\n"),
        "{list}"
    );
    for text in [squid, list] {
        assert!(!text.contains("1111") && !text.contains("come"), "{text}");
    }
}

#[test]
fn squid_serves_the_clients_of_the_forward_proxy() {
    let text = r#"
        base = "a.example"
        geos = ["eu"]
        control_planes = [{ prefix = "alpha", geo = "eu" }]
        features = ["forward_proxy"]
        nodes = [{ name = "edge", roles = ["gateway"], addresses = ["192.0.2.20"] }]
    "#;
    let installation = sallyport_contract::Installation::parse(text).expect("well-formed");
    let view = sallyport_contract::View::Role {
        role: sallyport_contract::Role::ForwardProxy,
        geo: None,
    };
    let policy = policy(catalogue(), &installation, &view).expect("sound");
    insta::assert_snapshot!("forward_proxy.squid", firewall(&policy, Format::Squid));
}

#[test]
fn any_address_is_both_families_and_nothing_is_neither() {
    let mut policy = two_ways();
    policy.rules[0].peers = Peers::Any;
    policy.rules[1].peers = Peers::Nets(vec!["2001:db8::2".parse().expect("an address")]);
    let text = |format| firewall(&policy, format);
    assert!(text(Format::Nftables).contains("\t\ttcp dport { 1111 } accept"));
    assert!(text(Format::Nftables).contains("\t\ticmpv6 type echo-request accept"));
    assert!(text(Format::Iptables).contains("-A INPUT -p tcp -m tcp --dport 1111"));
    assert!(text(Format::Ip6tables).contains("-A INPUT -p tcp -m tcp --dport 1111"));
    assert!(!text(Format::Iptables).contains("2222"), "IPv4 is closed");
    assert!(text(Format::Ip6tables).contains("-d 2001:db8::2/128 -p tcp -m tcp --dport 2222"));
    assert!(!text(Format::Google).contains("allow_go_out_v4"));
    for open in ["\"0.0.0.0/0\"", "\"::/0\""] {
        assert_eq!(
            text(Format::Aws).matches(open).count(),
            3,
            "tcp, udp and icmp from {open}"
        );
    }
}

#[test]
fn long_port_lists_are_split_where_a_dialect_has_a_bound() {
    let mut policy = two_ways();
    let port = |port: u16| Flow::try_from(format!("{port}/tcp")).expect("a flow");
    policy.rules[0].flows = (3001..=3016).map(port).collect();
    let text = firewall(&policy, Format::Iptables);
    assert!(
        text.contains("--dports 3001,")
            && text.contains(",3015 ")
            && text.contains("--dport 3016 ")
    );
    let text = firewall(&policy, Format::Ufw);
    assert!(text.contains(",3015 comment") && text.contains("port 3016 comment"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A policy may come from anybody's catalogue: its words end up in comments of shell scripts.
    #[test]
    fn words_never_leave_their_comment(title in "\\PC{0,40}|.{0,40}", reason in ".{0,40}") {
        let mut policy = two_ways();
        let calm: Vec<usize> = Format::ALL.iter().map(|&it| firewall(&policy, it).lines().count()).collect();
        policy.title = title.clone();
        policy.rules[0].title = format!("{title}\n{reason}-->");
        for (format, lines) in Format::ALL.into_iter().zip(calm) {
            let text = firewall(&policy, format);
            prop_assert_eq!(text.lines().count(), lines, "{}", text);
            if format != Format::Json {
                prop_assert!(text.is_ascii());
            }
        }
    }
}
