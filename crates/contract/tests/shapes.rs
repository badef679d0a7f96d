//! Rendered rules, held against what the far formats document: which fields there are, what stands in
//! them, what excludes what. For formats whose own judge is not everywhere (Terraform's plugins, Cilium's
//! cluster). Facts: the argument references of `hashicorp/aws`, `hashicorp/google` and
//! `hashicorp/azurerm`; the `CiliumNetworkPolicy` resource of `cilium.io/v2`.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod fixture;

use std::collections::{BTreeMap, BTreeSet};

use fixture::{node, role};
use ipnet::IpNet;
use sallyport_contract::render::firewall::{Format, firewall};
use sallyport_contract::{Policy, Role};
use serde_json::Value;

/// What may stand in a place.
enum Shape {
    /// A text that this is true of.
    Text(fn(&str) -> bool),
    Number(std::ops::RangeInclusive<i64>),
    /// At least one and at most so many.
    List(&'static Shape, usize),
    /// Keys, whether each must be there, and what is in it. No others.
    Object(&'static [(&'static str, bool, Shape)]),
    /// Exactly one of these keys, beside nothing.
    OneKey(&'static [(&'static str, Shape)]),
    /// Texts by free keys.
    Labels,
}

impl Shape {
    /// The first thing that does not fit, with its place.
    fn misfit(&self, value: &Value, place: &str) -> Option<String> {
        let wrong = |what: &str| Some(format!("{place}: {what}: {value}"));
        match self {
            Shape::Text(fits) => match value.as_str() {
                Some(text) if fits(text) => None,
                _ => wrong("not a text that may stand there"),
            },
            Shape::Number(range) => match value.as_i64() {
                Some(number) if range.contains(&number) => None,
                _ => wrong("not a number that may stand there"),
            },
            Shape::List(shape, most) => {
                let Some(list) = value.as_array() else {
                    return wrong("not a list");
                };
                if list.is_empty() || list.len() > *most {
                    return wrong("too few or too many");
                }
                let mut all = list.iter().enumerate();
                all.find_map(|(at, one)| shape.misfit(one, &format!("{place}[{at}]")))
            }
            Shape::Object(keys) => {
                let Some(object) = value.as_object() else {
                    return wrong("not an object");
                };
                let known = |key: &str| keys.iter().find(|(name, _, _)| *name == key);
                for (key, value) in object {
                    let Some((_, _, shape)) = known(key) else {
                        return wrong(&format!("no key {key:?} there"));
                    };
                    if let Some(misfit) = shape.misfit(value, &format!("{place}.{key}")) {
                        return Some(misfit);
                    }
                }
                let missing = keys
                    .iter()
                    .find(|(key, must, _)| *must && !object.contains_key(*key));
                missing.and_then(|(key, _, _)| wrong(&format!("{key} is missing")))
            }
            Shape::OneKey(keys) => {
                let object = value.as_object().filter(|object| object.len() == 1);
                let Some((key, value)) = object.and_then(|object| object.iter().next()) else {
                    return wrong("not exactly one key");
                };
                match keys.iter().find(|(name, _)| name == key) {
                    Some((_, shape)) => shape.misfit(value, &format!("{place}.{key}")),
                    None => wrong("no such key there"),
                }
            }
            Shape::Labels => match value.as_object() {
                Some(all) if all.values().all(Value::is_string) => None,
                _ => wrong("not labels"),
            },
        }
    }
}

fn is_net(text: &str) -> bool {
    text.parse::<IpNet>().is_ok_and(|net| net.trunc() == net)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_dns_name(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 255 && text.bytes().all(inside) && !text.contains("..")
}

fn is_dns_pattern(text: &str) -> bool {
    is_dns_name(&text.replace('*', "a"))
}

const ENTITY: Shape = Shape::Text(|text| {
    let all = [
        "all",
        "world",
        "cluster",
        "host",
        "init",
        "ingress",
        "unmanaged",
        "remote-node",
        "health",
        "none",
        "kube-apiserver",
    ];
    all.contains(&text)
});

const NAMES: Shape = Shape::OneKey(&[
    ("matchName", Shape::Text(is_dns_name)),
    ("matchPattern", Shape::Text(is_dns_pattern)),
]);

const SELECTOR: Shape = Shape::Object(&[("matchLabels", true, Shape::Labels)]);

const TO_PORTS: Shape = Shape::List(
    &Shape::Object(&[
        (
            "ports",
            true,
            Shape::List(
                &Shape::Object(&[
                    ("port", true, Shape::Text(is_port)),
                    (
                        "protocol",
                        true,
                        Shape::Text(|text| ["TCP", "UDP", "SCTP", "ANY"].contains(&text)),
                    ),
                ]),
                40,
            ),
        ),
        (
            "rules",
            false,
            Shape::OneKey(&[("dns", Shape::List(&NAMES, usize::MAX))]),
        ),
    ]),
    usize::MAX,
);

const ICMPS: Shape = Shape::List(
    &Shape::Object(&[(
        "fields",
        true,
        Shape::List(
            &Shape::Object(&[
                (
                    "family",
                    true,
                    Shape::Text(|text| ["IPv4", "IPv6"].contains(&text)),
                ),
                ("type", true, Shape::Number(0..=255)),
            ]),
            40,
        ),
    )]),
    usize::MAX,
);

const MANY: usize = usize::MAX;
const CIDRS: Shape = Shape::List(&Shape::Text(is_net), MANY);

const CILIUM: Shape = Shape::Object(&[
    (
        "apiVersion",
        true,
        Shape::Text(|text| text == "cilium.io/v2"),
    ),
    (
        "kind",
        true,
        Shape::Text(|text| text == "CiliumNetworkPolicy"),
    ),
    (
        "metadata",
        true,
        Shape::Object(&[("name", true, Shape::Text(is_dns_name))]),
    ),
    (
        "spec",
        true,
        Shape::Object(&[
            ("endpointSelector", true, SELECTOR),
            (
                "ingress",
                true,
                Shape::List(
                    &Shape::Object(&[
                        ("fromCIDR", false, CIDRS),
                        ("fromEntities", false, Shape::List(&ENTITY, MANY)),
                        ("toPorts", false, TO_PORTS),
                        ("icmps", false, ICMPS),
                    ]),
                    MANY,
                ),
            ),
            (
                "egress",
                true,
                Shape::List(
                    &Shape::Object(&[
                        ("toCIDR", false, CIDRS),
                        ("toEntities", false, Shape::List(&ENTITY, MANY)),
                        ("toEndpoints", false, Shape::List(&SELECTOR, MANY)),
                        ("toFQDNs", false, Shape::List(&NAMES, MANY)),
                        ("toPorts", false, TO_PORTS),
                        ("icmps", false, ICMPS),
                    ]),
                    MANY,
                ),
            ),
        ]),
    ),
]);

/// Policies of every kind: nodes with addresses of both families, roles without any.
fn policies() -> Vec<Policy> {
    let nodes = ["edge", "node1", "node2"].map(node);
    let roles = [Role::Gateway, Role::ControlPlane, Role::Appliance];
    let roles = roles.map(|it| role(it, Some("eu")));
    nodes.into_iter().chain(roles).collect()
}

#[track_caller]
fn cilium(text: &str) -> Option<String> {
    let value: Value = serde_saphyr::from_str(text).unwrap();
    if let Some(misfit) = CILIUM.misfit(&value, "") {
        return Some(misfit);
    }
    // What the resource says in words: peers of different kinds do not mix in a rule, nor do ports and
    // ICMP; names need a rule that lets DNS be read.
    for side in ["ingress", "egress"] {
        for rule in value["spec"][side].as_array().unwrap() {
            let keys: BTreeSet<&str> = rule
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            let (what, peers): (Vec<&str>, Vec<&str>) = keys
                .iter()
                .partition(|key| ["toPorts", "icmps"].contains(*key));
            if peers.len() > 1 || what.len() > 1 {
                return Some(format!("{side}: {keys:?} in one rule"));
            }
        }
    }
    let text = value["spec"]["egress"].to_string();
    let reads_dns = text.contains("\"rules\":{\"dns\"");
    (text.contains("toFQDNs") && !reads_dns).then(|| "names without DNS".to_owned())
}

#[test]
fn cilium_policies_have_the_documented_shape() {
    for policy in policies() {
        assert_eq!(cilium(&firewall(&policy, Format::Cilium)), None);
    }
    // The judge does refuse.
    let good = firewall(&node("edge"), Format::Cilium);
    for (from, to, part) in [
        ("protocol: TCP", "protocol: tcp", "protocol"),
        ("port: \"8000\"", "port: 8000", "port"),
        ("matchName:", "matchname:", "toFQDNs[0]"),
        ("toPorts:", "toPort:", "toPort"),
        ("endpointSelector:", "podSelector:", "podSelector"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        let misfit = cilium(&bad).unwrap_or_else(|| panic!("{to} is taken"));
        assert!(misfit.contains(part), "{misfit}");
    }
}

/// A block of Terraform's language, as far as the renderers use it: arguments with literals or
/// references, and blocks within.
#[derive(Debug, Default)]
struct Block {
    arguments: BTreeMap<String, Value>,
    blocks: Vec<(String, Block)>,
}

/// Blocks by their head, in order.
fn blocks(lines: &mut dyn Iterator<Item = &str>) -> Block {
    let mut block = Block::default();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line == "}" {
            break;
        }
        if let Some(head) = line.strip_suffix('{') {
            block.blocks.push((head.trim().to_owned(), blocks(lines)));
        } else if let Some((key, value)) = line.split_once(" = ") {
            // what is no JSON is a reference
            let value = serde_json::from_str(value)
                .unwrap_or_else(|_| Value::String(format!("${{{value}}}")));
            let before = block.arguments.insert(key.trim().to_owned(), value);
            assert!(before.is_none(), "{key} stands there twice");
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{line}");
        }
    }
    block
}

/// Kind and name of each resource, with its arguments.
fn resources(text: &str) -> Vec<(String, String, Block)> {
    let file = blocks(&mut text.lines());
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (head, block) in file.blocks {
        assert!(seen.insert(head.clone()), "{head} stands there twice");
        let words: Vec<&str> = head.split_whitespace().collect();
        if let ["resource", kind, name] = words[..] {
            let plain = |text: &str| text.trim_matches('"').to_owned();
            let name = plain(name);
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            assert!(
                name.bytes().all(good) && !name.as_bytes()[0].is_ascii_digit(),
                "{name}"
            );
            all.push((plain(kind), name, block));
        } else {
            assert_eq!(words[0], "variable", "{head}");
        }
    }
    assert!(!all.is_empty());
    all
}

type Arguments = &'static [(&'static str, bool, Shape)];

fn is_reference(text: &str) -> bool {
    text.starts_with("${") && text.ends_with('}')
}

const REFERENCE: Shape = Shape::Text(is_reference);

/// Arguments of the resources that are rendered.
const RESOURCES: &[(&str, Arguments)] = &[
    (
        "aws_security_group",
        &[
            (
                "name",
                false,
                Shape::Text(|it| !it.starts_with("sg-") && it.len() <= 255),
            ),
            ("description", false, Shape::Text(is_aws_description)),
            ("vpc_id", false, REFERENCE),
        ],
    ),
    ("aws_vpc_security_group_ingress_rule", AWS_RULE),
    ("aws_vpc_security_group_egress_rule", AWS_RULE),
    (
        "google_compute_firewall",
        &[
            ("name", true, Shape::Text(is_google_name)),
            ("network", true, REFERENCE),
            ("target_tags", false, REFERENCE),
            (
                "direction",
                false,
                Shape::Text(|it| ["INGRESS", "EGRESS"].contains(&it)),
            ),
            ("priority", false, Shape::Number(0..=65_535)),
            (
                "source_ranges",
                false,
                Shape::List(&Shape::Text(is_net), 5_000),
            ),
            (
                "destination_ranges",
                false,
                Shape::List(&Shape::Text(is_net), 5_000),
            ),
        ],
    ),
    (
        "azurerm_network_security_group",
        &[
            ("name", true, Shape::Text(is_azure_name)),
            ("resource_group_name", true, REFERENCE),
            ("location", true, REFERENCE),
        ],
    ),
    (
        "azurerm_network_security_rule",
        &[
            ("name", true, Shape::Text(is_azure_name)),
            ("resource_group_name", true, REFERENCE),
            ("network_security_group_name", true, REFERENCE),
            (
                "direction",
                true,
                Shape::Text(|it| ["Inbound", "Outbound"].contains(&it)),
            ),
            (
                "access",
                true,
                Shape::Text(|it| ["Allow", "Deny"].contains(&it)),
            ),
            ("priority", true, Shape::Number(100..=4_096)),
            (
                "protocol",
                true,
                Shape::Text(|it| ["Tcp", "Udp", "Icmp", "Esp", "Ah", "*"].contains(&it)),
            ),
            ("source_port_range", false, Shape::Text(|it| it == "*")),
            (
                "destination_port_range",
                false,
                Shape::Text(|it| it == "*" || is_port(it)),
            ),
            (
                "destination_port_ranges",
                false,
                Shape::List(&Shape::Text(is_port), MANY),
            ),
            (
                "source_address_prefix",
                false,
                Shape::Text(|it| it == "*" || is_net(it)),
            ),
            ("source_address_prefixes", false, CIDRS),
            (
                "destination_address_prefix",
                false,
                Shape::Text(|it| it == "*" || is_net(it)),
            ),
            ("destination_address_prefixes", false, CIDRS),
        ],
    ),
];

const AWS_RULE: Arguments = &[
    ("security_group_id", true, REFERENCE),
    ("description", false, Shape::Text(is_aws_description)),
    (
        "ip_protocol",
        true,
        Shape::Text(|it| ["tcp", "udp", "icmp", "icmpv6", "-1"].contains(&it)),
    ),
    ("from_port", false, Shape::Number(-1..=65_535)),
    ("to_port", false, Shape::Number(-1..=65_535)),
    (
        "cidr_ipv4",
        false,
        Shape::Text(|it| is_net(it) && !it.contains(':')),
    ),
    (
        "cidr_ipv6",
        false,
        Shape::Text(|it| is_net(it) && it.contains(':')),
    ),
];

/// At most 255 of the characters that AWS takes.
fn is_aws_description(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    text.len() <= 255 && text.chars().all(good)
}

/// 1 to 63 characters: a lower-case letter, then letters, digits and hyphens, no hyphen at the end.
fn is_google_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(good)
        && text.as_bytes()[0].is_ascii_lowercase()
        && !text.ends_with('-')
}

/// 1 to 80 characters: letters, digits, `_`, `.` and `-`; the first a letter or digit, the last no
/// mark but `_`.
fn is_azure_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=80).contains(&text.len())
        && text.bytes().all(good)
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && !text.ends_with(['.', '-'])
}

fn check_terraform(text: &str) -> Result<(), String> {
    let mut names = BTreeSet::new();
    let mut priorities = BTreeSet::new();
    for (kind, name, block) in resources(text) {
        let known = RESOURCES.iter().find(|(known, _)| *known == kind);
        let (_, arguments) = known.ok_or(format!("no resource {kind}"))?;
        let value = serde_json::to_value(&block.arguments).unwrap();
        if let Some(misfit) = Shape::Object(arguments).misfit(&value, &format!("{kind}.{name}")) {
            return Err(misfit);
        }
        let has = |key: &str| block.arguments.contains_key(key);
        let one_of = |keys: &[&str]| match keys.iter().filter(|key| has(key)).count() {
            1 => Ok(()),
            count => Err(format!("{kind}.{name}: {count} of {keys:?}")),
        };
        let text = |key: &str| block.arguments[key].as_str().unwrap_or_default();
        if kind.starts_with("aws_vpc") {
            one_of(&["cidr_ipv4", "cidr_ipv6"])?;
            let icmp = text("ip_protocol").starts_with("icmp");
            let [from, to] = ["from_port", "to_port"].map(|key| block.arguments[key].as_i64());
            if !(icmp || (from == to && from > Some(0))) {
                return Err(format!("{kind}.{name}: ports {from:?} to {to:?}"));
            }
        }
        if kind == "google_compute_firewall" {
            let ranges = match text("direction") {
                "INGRESS" => ("source_ranges", "destination_ranges"),
                _ => ("destination_ranges", "source_ranges"),
            };
            if !has(ranges.0) || has(ranges.1) {
                return Err(format!("{kind}.{name}: ranges of the other direction"));
            }
            let verbs: BTreeSet<&str> =
                block.blocks.iter().map(|(verb, _)| verb.as_str()).collect();
            if !(verbs == ["allow"].into() || verbs == ["deny"].into()) {
                return Err(format!("{kind}.{name}: {verbs:?} in one rule"));
            }
            const WHAT: Shape = Shape::Object(&[
                (
                    "protocol",
                    true,
                    Shape::Text(|it| ["tcp", "udp", "icmp", "58", "all"].contains(&it)),
                ),
                ("ports", false, Shape::List(&Shape::Text(is_port), MANY)),
            ]);
            for (verb, what) in &block.blocks {
                let value = serde_json::to_value(&what.arguments).unwrap();
                if let Some(misfit) = WHAT.misfit(&value, &format!("{kind}.{name}.{verb}")) {
                    return Err(misfit);
                }
                let of_ports = ["tcp", "udp"].contains(&value["protocol"].as_str().unwrap());
                if of_ports != what.arguments.contains_key("ports") {
                    return Err(format!("{kind}.{name}: ports of {value}"));
                }
            }
        } else if !block.blocks.is_empty() {
            return Err(format!("{kind}.{name}: blocks within"));
        }
        if kind == "azurerm_network_security_rule" {
            one_of(&["destination_port_range", "destination_port_ranges"])?;
            one_of(&["source_address_prefix", "source_address_prefixes"])?;
            one_of(&["destination_address_prefix", "destination_address_prefixes"])?;
            let place = (
                text("direction").to_owned(),
                block.arguments["priority"].as_i64(),
            );
            if !priorities.insert(place) {
                return Err(format!("{kind}.{name}: its priority is taken"));
            }
        }
        if has("name") && !names.insert((kind.clone(), text("name").to_owned())) {
            return Err(format!("{kind}.{name}: its name is taken"));
        }
    }
    Ok(())
}

#[test]
fn terraform_resources_have_the_documented_arguments() {
    for policy in policies() {
        for format in [Format::Aws, Format::Google, Format::Azure] {
            let text = firewall(&policy, format);
            assert_eq!(check_terraform(&text), Ok(()), "{format}\n{text}");
        }
    }
    // The judge does refuse.
    for (format, from, to, part) in [
        (Format::Aws, "cidr_ipv4 ", "cidr_ipv6 ", "cidr_ipv6"),
        (Format::Aws, "ip_protocol       =", "protocol =", "protocol"),
        (Format::Google, "\"INGRESS\"", "\"EGRESS\"", "direction"),
        (
            Format::Google,
            "name          = \"s",
            "name          = \"S",
            "name",
        ),
        (
            Format::Azure,
            "priority                    = 101",
            "priority = 100",
            "priority",
        ),
        (Format::Azure, "\"Tcp\"", "\"tcp\"", "protocol"),
        (
            Format::Azure,
            "destination_port_ranges",
            "destination_port_range",
            "destination_port_range",
        ),
    ] {
        let good = firewall(&node("edge"), format);
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        let told = check_terraform(&bad).unwrap_err();
        assert!(told.contains(part), "{told}");
    }
}

/// Machines that have IPv6 only get rules of IPv6 only, and lose nothing.
#[test]
fn installations_of_ipv6_only_have_rules_in_every_dialect() {
    let text = fixture::TEXT
        .lines()
        .map(|line| match line.strip_prefix("addresses = [") {
            Some(rest) => format!("addresses = [{}", rest.split_once(", ").unwrap().1),
            None => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
        .replace("dns = [\"192.0.2.53\", ", "dns = [");
    let installation = sallyport_contract::Installation::parse(&text).unwrap();
    let view = sallyport_contract::View::Node("node1".to_owned());
    let policy = sallyport_contract::policy(sallyport_contract::catalogue(), &installation, &view);
    let policy = policy.unwrap();
    for format in [
        Format::Nftables,
        Format::Ip6tables,
        Format::Firewalld,
        Format::Ufw,
        Format::Aws,
        Format::Google,
        Format::Azure,
        Format::Kubernetes,
        Format::Cilium,
        Format::Aerleon,
    ] {
        let text = firewall(&policy, format);
        assert!(text.contains("2001:db8::12"), "{format}\n{text}");
        assert!(!text.contains("192.0.2.12"), "{format}\n{text}");
    }
    assert_eq!(check_terraform(&firewall(&policy, Format::Aws)), Ok(()));
    assert_eq!(check_terraform(&firewall(&policy, Format::Google)), Ok(()));
    assert_eq!(check_terraform(&firewall(&policy, Format::Azure)), Ok(()));
    assert_eq!(cilium(&firewall(&policy, Format::Cilium)), None);
    let v4 = firewall(&policy, Format::Iptables);
    assert!(
        !v4.contains("2001:db8") && v4.contains(":INPUT DROP"),
        "{v4}"
    );
}
