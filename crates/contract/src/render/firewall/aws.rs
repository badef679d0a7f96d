//! Terraform for Amazon: a security group, which is stateful and denies what it does not list.

use super::{Family, TRANSPORTS, about, heading, name};
use crate::policy::{Policy, Rule, Side};

/// Resources of the `aws` provider, version 4.56 or newer.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = heading(policy, "#");
    text.push_str(
        r#"
variable "vpc_id" {
  type = string
}

resource "aws_security_group" "sallyport" {
  name        = "sallyport"
  description = "Network contract"
  vpc_id      = var.vpc_id
}
"#,
    );
    for rule in &policy.rules {
        text.push_str(&format!("\n# {}\n", about(rule)));
        text.push_str(&resources(rule));
    }
    text
}

fn resources(rule: &Rule) -> String {
    let (kind, side) = match rule.side {
        Side::In => ("ingress", "in"),
        Side::Out => ("egress", "out"),
    };
    let mut text = String::new();
    let mut count = 0;
    for (family, cidr, icmp, echo) in [
        (Family::V4, "cidr_ipv4", "icmp", 8),
        (Family::V6, "cidr_ipv6", "icmpv6", 128),
    ] {
        for net in family.nets(rule) {
            let mut flows: Vec<(&str, i32, i32)> = Vec::new();
            for transport in TRANSPORTS {
                let ports = rule.ports(transport).into_iter().map(i32::from);
                flows.extend(ports.map(|port| (transport.as_str(), port, port)));
            }
            if rule.icmp() {
                // For ICMP the two numbers are type and code; -1 is any code.
                flows.push((icmp, echo, -1));
            }
            for (protocol, from, to) in flows {
                count += 1;
                let (resource, id) = (name(&rule.id), &rule.id);
                text.push_str(&format!(
                    r#"resource "aws_vpc_security_group_{kind}_rule" "{resource}_{side}_{count}" {{
  security_group_id = aws_security_group.sallyport.id
  description       = "{id}"
  ip_protocol       = "{protocol}"
  from_port         = {from}
  to_port           = {to}
  {cidr}         = "{net}"
}}
"#
                ));
            }
        }
    }
    text
}
