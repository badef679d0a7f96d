//! Terraform for Google Cloud: stateful firewall rules by network tag.

use super::{Family, TRANSPORTS, about, heading, name, terraform_fields, terraform_list};
use crate::policy::{Policy, Rule, Side};

/// Resources of the `google` provider.
///
/// A rule cannot mix families, and cannot tell one ICMP type from another.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = heading(policy, "#");
    text.push_str(
        r#"
variable "network" {
  type = string
}

variable "target_tags" {
  type = list(string)
}
"#,
    );
    for rule in &policy.rules {
        text.push_str(&format!("\n# {}\n", about(rule)));
        if rule.icmp() {
            text.push_str("# Google Cloud allows ICMP as a whole only, not just echo requests.\n");
        }
        for family in Family::BOTH {
            let nets = family.nets(rule);
            if !nets.is_empty() {
                text.push_str(&allow(rule, family, &nets));
            }
        }
    }
    // What is not allowed above would meet the implied rules, and those let everything out.
    text.push_str("\n# Everything else\n");
    for side in [Side::In, Side::Out] {
        for family in Family::BOTH {
            let deny = "  deny {\n    protocol = \"all\"\n  }\n";
            let nets = [family.everything().to_owned()];
            text.push_str(&resource("deny", "all", side, family, &nets, 65_534, deny));
        }
    }
    text
}

fn allow(rule: &Rule, family: Family, nets: &[String]) -> String {
    let mut blocks = String::new();
    for transport in TRANSPORTS {
        let ports = rule.ports(transport);
        if !ports.is_empty() {
            let ports = terraform_list(&ports);
            blocks.push_str(&format!(
                "  allow {{\n    protocol = \"{transport}\"\n    ports    = {ports}\n  }}\n"
            ));
        }
    }
    if rule.icmp() {
        let protocol = if family == Family::V4 { "icmp" } else { "58" };
        blocks.push_str(&format!(
            "  allow {{\n    protocol = \"{protocol}\"\n  }}\n"
        ));
    }
    resource("allow", &rule.id, rule.side, family, nets, 1_000, &blocks)
}

fn resource(
    verb: &str,
    id: &str,
    side: Side,
    family: Family,
    nets: &[String],
    priority: u32,
    blocks: &str,
) -> String {
    let (way, direction, ranges) = match side {
        Side::In => ("in", "INGRESS", "source_ranges"),
        Side::Out => ("out", "EGRESS", "destination_ranges"),
    };
    let family = if family == Family::V4 { "v4" } else { "v6" };
    // `_` is not allowed in the names that Google keeps; `--` stands for the dot of an id.
    let shown = id.replace('.', "--").replace('_', "-");
    let terraform = name(id);
    let fields = terraform_fields(&[
        (
            "name",
            format!("\"sallyport-{verb}-{shown}-{way}-{family}\""),
        ),
        ("network", "var.network".to_owned()),
        ("target_tags", "var.target_tags".to_owned()),
        ("direction", format!("\"{direction}\"")),
        ("priority", priority.to_string()),
        (ranges, terraform_list(nets)),
    ]);
    format!(
        "resource \"google_compute_firewall\" \"{verb}_{terraform}_{way}_{family}\" {{\n{fields}\n{blocks}}}\n"
    )
}
