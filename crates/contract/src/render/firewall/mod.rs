//! Firewall rules in the dialects that people have, all from one [`Policy`].
//!
//! Rules allow the first packet of a connection towards the accepting port; answers pass because the
//! filter remembers connections. Everything else is dropped. Filters that know only addresses get
//! the names as comments.

mod aerleon;
mod allow_list;
mod aws;
mod azure;
mod cilium;
mod firewalld;
mod google;
mod iptables;
mod kubernetes;
mod nftables;
mod squid;
mod ufw;

use std::fmt;

use crate::address::Net;
use crate::policy::{Peers, Policy, Rule, Side};
use crate::port::Transport;

/// A dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `nft -f`, both families in one table.
    Nftables,
    /// `iptables-restore`, IPv4.
    Iptables,
    /// `ip6tables-restore`, IPv6.
    Ip6tables,
    /// A shell script that writes firewalld's zone and policy files.
    Firewalld,
    /// A shell script of `ufw` commands.
    Ufw,
    /// Terraform, AWS security group.
    Aws,
    /// Terraform, Google Cloud firewall rules.
    Google,
    /// Terraform, Azure network security group.
    Azure,
    /// Kubernetes `NetworkPolicy`.
    Kubernetes,
    /// `CiliumNetworkPolicy`, which knows names.
    Cilium,
    /// Access rules for squid.
    Squid,
    /// Aerleon policy with its definitions.
    Aerleon,
    /// One `host:port/transport` a line.
    AllowList,
    /// The policy itself, for machines and for a later comparison.
    Json,
}

impl Format {
    /// Every dialect.
    pub const ALL: [Format; 14] = [
        Format::Nftables,
        Format::Iptables,
        Format::Ip6tables,
        Format::Firewalld,
        Format::Ufw,
        Format::Aws,
        Format::Google,
        Format::Azure,
        Format::Kubernetes,
        Format::Cilium,
        Format::Squid,
        Format::Aerleon,
        Format::AllowList,
        Format::Json,
    ];

    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Nftables => "nftables",
            Format::Iptables => "iptables",
            Format::Ip6tables => "ip6tables",
            Format::Firewalld => "firewalld",
            Format::Ufw => "ufw",
            Format::Aws => "aws",
            Format::Google => "google",
            Format::Azure => "azure",
            Format::Kubernetes => "kubernetes",
            Format::Cilium => "cilium",
            Format::Squid => "squid",
            Format::Aerleon => "aerleon",
            Format::AllowList => "allow-list",
            Format::Json => "json",
        }
    }

    /// The dialect called `name`.
    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `policy` in the dialect `format`, ready to be written to a file.
pub fn firewall(policy: &Policy, format: Format) -> String {
    match format {
        Format::Nftables => nftables::render(policy),
        Format::Iptables => iptables::render(policy, Family::V4),
        Format::Ip6tables => iptables::render(policy, Family::V6),
        Format::Firewalld => firewalld::render(policy),
        Format::Ufw => ufw::render(policy),
        Format::Aws => aws::render(policy),
        Format::Google => google::render(policy),
        Format::Azure => azure::render(policy),
        Format::Kubernetes => kubernetes::render(policy),
        Format::Cilium => cilium::render(policy),
        Format::Squid => squid::render(policy),
        Format::Aerleon => aerleon::render(policy),
        Format::AllowList => allow_list::render(policy),
        Format::Json => policy.json(),
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// `rule`'s networks of this family: one `None` for any address, nothing if the family is closed.
    fn peers(self, rule: &Rule) -> Vec<Option<Net>> {
        match rule.peers.family(self == Family::V4) {
            None => vec![None],
            Some(nets) => nets.into_iter().map(Some).collect(),
        }
    }

    /// Every address of this family.
    const fn everything(self) -> &'static str {
        match self {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        }
    }

    /// As [`Family::peers`], with any address written out as a network.
    fn nets(self, rule: &Rule) -> Vec<String> {
        let text = |net: Option<Net>| {
            net.map_or_else(|| self.everything().to_owned(), |net| net.to_string())
        };
        self.peers(rule).into_iter().map(text).collect()
    }
}

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// Text for a comment: one line, nothing but printable ASCII.
fn plain(text: &str) -> String {
    let safe = |c: char| {
        if c == ' ' || c.is_ascii_graphic() {
            c
        } else {
            '?'
        }
    };
    text.chars().map(safe).collect()
}

/// Lines that head every file, each after `mark`: whose rules, what is closed and why, and where any
/// address was the best that could be said.
fn heading(policy: &Policy, mark: &str) -> String {
    let mut text = format!("{mark} Network contract, {}\n", plain(&policy.title));
    text.push_str(&format!(
        "{mark} Everything that is not listed is dropped, in both directions.\n"
    ));
    for it in &policy.withheld {
        text.push_str(&format!(
            "{mark} NOT OPENED: {}: {}\n",
            plain(&it.id),
            plain(&it.reason)
        ));
    }
    text
}

/// One line of words about `rule`: id, title, and the names behind "any address".
fn about(rule: &Rule) -> String {
    let mut text = format!("{}: {}", plain(&rule.id), plain(&rule.title));
    let way = if rule.side == Side::In { "from" } else { "to" };
    match (&rule.peers, rule.hosts.is_empty()) {
        (Peers::Any, true) => text.push_str(&format!(" ({way} any address)")),
        (Peers::Any, false) => {
            text.push_str(&format!(
                " ({way} any address, for {})",
                plain(&rule.hosts.join(", "))
            ));
        }
        (Peers::Nets(_), true) => {}
        (Peers::Nets(_), false) => text.push_str(&format!(" ({})", plain(&rule.hosts.join(", ")))),
    }
    text
}

/// `id` as a name for dialects that do not take its dots.
fn name(id: &str) -> String {
    id.replace('.', "-")
}

/// `1, 2, 3` with any separator.
fn join<T: ToString>(items: &[T], separator: &str) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(separator)
}

/// `key = value` lines of Terraform, aligned as `terraform fmt` does it.
fn terraform_fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    fields
        .iter()
        .map(|(key, value)| format!("  {key:<width$} = {value}\n"))
        .collect()
}

/// `["a", "b"]`
fn terraform_list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|it| format!("\"{}\"", it.to_string()))
        .collect();
    format!("[{}]", items.join(", "))
}
