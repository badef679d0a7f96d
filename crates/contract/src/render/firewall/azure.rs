//! Terraform for Azure: a network security group, stateful, first match wins.

use super::{Family, TRANSPORTS, about, heading, name, terraform_fields, terraform_list};
use crate::policy::{Policy, Rule, Side};

/// Resources of the `azurerm` provider.
///
/// The last rule of each direction denies everything, because the group's built-in rules allow the
/// whole virtual network and all of the internet outwards.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = heading(policy, "#");
    text.push_str("# Health probes of an Azure load balancer are denied too; add a rule if one is in front.\n");
    text.push_str(
        r#"
variable "resource_group_name" {
  type = string
}

variable "location" {
  type = string
}

resource "azurerm_network_security_group" "sallyport" {
  name                = "sallyport"
  resource_group_name = var.resource_group_name
  location            = var.location
}
"#,
    );
    for side in [Side::In, Side::Out] {
        let mut priority = 100;
        for rule in policy.side(side) {
            text.push_str(&format!("\n# {}\n", about(rule)));
            if rule.icmp() {
                text.push_str("# Azure allows ICMP as a whole only, not just echo requests.\n");
            }
            let families: &[Option<Family>] = match rule.peers.family(true) {
                None => &[None],
                Some(_) => &[Some(Family::V4), Some(Family::V6)],
            };
            for family in families {
                let peers = match family {
                    None => ("address_prefix", "\"*\"".to_owned()),
                    Some(family) => {
                        let nets = family.nets(rule);
                        if nets.is_empty() {
                            continue;
                        }
                        ("address_prefixes", terraform_list(&nets))
                    }
                };
                for (protocol, ports) in protocols(rule) {
                    let label = match family {
                        None => "any",
                        Some(Family::V4) => "v4",
                        Some(Family::V6) => "v6",
                    };
                    let id = format!("{}-{label}-{}", rule.id, protocol.to_lowercase());
                    text.push_str(&resource(
                        "Allow", &id, side, priority, protocol, &ports, &peers,
                    ));
                    priority += 1;
                }
            }
        }
        text.push_str("\n# Everything else\n");
        let ports = ("port_range", "\"*\"".to_owned());
        let peers = ("address_prefix", "\"*\"".to_owned());
        text.push_str(&resource("Deny", "all", side, 4096, "*", &ports, &peers));
    }
    text
}

/// The end of a key (`port_range` or `port_ranges`) and its value.
type Field = (&'static str, String);

fn protocols(rule: &Rule) -> Vec<(&'static str, Field)> {
    let mut all = Vec::new();
    for transport in TRANSPORTS {
        let ports = rule.ports(transport);
        if !ports.is_empty() {
            let protocol = if transport.as_str() == "tcp" {
                "Tcp"
            } else {
                "Udp"
            };
            all.push((protocol, ("port_ranges", terraform_list(&ports))));
        }
    }
    if rule.icmp() {
        all.push(("Icmp", ("port_range", "\"*\"".to_owned())));
    }
    all
}

fn resource(
    access: &str,
    id: &str,
    side: Side,
    priority: u32,
    protocol: &str,
    ports: &Field,
    peers: &Field,
) -> String {
    // The port is always that of the accepting end: the destination, whoever filters.
    let (way, direction, far, near) = match side {
        Side::In => ("in", "Inbound", "source", "destination"),
        Side::Out => ("out", "Outbound", "destination", "source"),
    };
    let terraform = name(id);
    let lower = access.to_lowercase();
    let mut text =
        format!("resource \"azurerm_network_security_rule\" \"{lower}_{terraform}_{way}\" {{\n");
    let fields = [
        ("name", format!("\"{lower}-{id}-{way}\"")),
        ("resource_group_name", "var.resource_group_name".to_owned()),
        (
            "network_security_group_name",
            "azurerm_network_security_group.sallyport.name".to_owned(),
        ),
        ("direction", format!("\"{direction}\"")),
        ("access", format!("\"{access}\"")),
        ("priority", priority.to_string()),
        ("protocol", format!("\"{protocol}\"")),
        ("source_port_range", "\"*\"".to_owned()),
        (&format!("destination_{}", ports.0), ports.1.clone()),
        (&format!("{far}_{}", peers.0), peers.1.clone()),
        (&format!("{near}_address_prefix"), "\"*\"".to_owned()),
    ];
    text.push_str(&terraform_fields(&fields));
    text.push_str("}\n");
    text
}
