//! firewalld: a zone for what comes in and a policy for what goes out.

use super::{Family, TRANSPORTS, about, heading};
use crate::policy::{Policy, Rule, Side};

/// A shell script that writes both files, loads them and makes the zone the default.
///
/// firewalld itself lets answers to open connections and loopback pass.
pub(super) fn render(policy: &Policy) -> String {
    let mut text = String::from("#!/bin/sh\n");
    text.push_str(&heading(policy, "#"));
    text.push_str(
        "# FIREWALLD_DIR: where the files go, /etc/firewalld unless set; then they are loaded too.\n\
         set -eu\n\
         dir=\"${FIREWALLD_DIR:-/etc/firewalld}\"\n\
         mkdir -p \"$dir/zones\" \"$dir/policies\"\n",
    );
    text.push_str("cat > \"$dir/zones/sallyport.xml\" <<'XML'\n");
    text.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<zone target=\"DROP\">\n");
    text.push_str("  <short>sallyport</short>\n");
    text.push_str(&body(policy, Side::In));
    text.push_str("</zone>\nXML\ncat > \"$dir/policies/sallyport-out.xml\" <<'XML'\n");
    text.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<policy target=\"DROP\">\n");
    text.push_str("  <short>sallyport-out</short>\n");
    text.push_str("  <ingress-zone name=\"HOST\"/>\n  <egress-zone name=\"ANY\"/>\n");
    text.push_str(&body(policy, Side::Out));
    text.push_str(
        "</policy>\nXML\n\
         if [ -z \"${FIREWALLD_DIR:-}\" ]; then\n  \
         firewall-cmd --reload\n  \
         firewall-cmd --set-default-zone=sallyport\n\
         fi\n",
    );
    text
}

fn body(policy: &Policy, side: Side) -> String {
    // Without these IPv6 cannot find its neighbours.
    let router = if side == Side::In {
        "advertisement"
    } else {
        "solicitation"
    };
    let mut text = String::new();
    for kind in [
        "neighbour-solicitation",
        "neighbour-advertisement",
        &format!("router-{router}"),
    ] {
        text.push_str(&format!(
            "  <rule family=\"ipv6\"><icmp-type name=\"{kind}\"/><accept/></rule>\n"
        ));
    }
    for rule in policy.side(side) {
        // Two dashes would end an XML comment.
        let mut words = about(rule);
        while words.contains("--") {
            words = words.replace("--", "-");
        }
        text.push_str(&format!("  <!-- {words} -->\n"));
        for line in lines(rule) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

fn lines(rule: &Rule) -> Vec<String> {
    let end = if rule.side == Side::In {
        "source"
    } else {
        "destination"
    };
    let mut lines = Vec::new();
    for (family, name) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        for net in family.peers(rule) {
            let peer = net
                .map(|net| format!("<{end} address=\"{net}\"/>"))
                .unwrap_or_default();
            let mut add = |what: String| {
                lines.push(format!(
                    "<rule family=\"{name}\">{peer}{what}<accept/></rule>"
                ));
            };
            for transport in TRANSPORTS {
                for port in rule.ports(transport) {
                    add(format!("<port port=\"{port}\" protocol=\"{transport}\"/>"));
                }
            }
            if rule.icmp() {
                add("<icmp-type name=\"echo-request\"/>".to_owned());
            }
        }
    }
    lines
}
