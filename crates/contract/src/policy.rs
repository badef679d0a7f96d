//! What a packet filter on one machine, or on all machines of a role, lets through.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::Net;
use crate::catalogue::Catalogue;
use crate::entry::Role;
use crate::installation::{Installation, InstallationError, Node, installation_rows};
use crate::port::{Flow, Transport};
use crate::row::{Filter, Row};

/// Version of the JSON form of a policy.
const FORMAT_VERSION: u32 = 1;

/// Whose filter it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Any machine of a role, in one geo or all.
    Role {
        /// The role.
        role: Role,
        /// The geo, or `None` for all of them.
        geo: Option<String>,
    },
    /// The machine of this name.
    Node(String),
}

/// Which end opens the connection, seen from the filtered machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The peer connects to the machine.
    In,
    /// The machine connects to the peer.
    Out,
}

/// Addresses at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peers {
    /// Any address, IPv4 and IPv6.
    Any,
    /// These networks, and no others; a family without a network is closed.
    Nets(Vec<Net>),
}

/// New connections of one row in one direction; answers belong to the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The contract id.
    pub id: String,
    /// What it is for, in a few words.
    pub title: String,
    /// Who connects.
    pub side: Side,
    /// Ports at the accepting end, and ICMP echo requests.
    pub flows: Vec<Flow>,
    /// The other end.
    pub peers: Peers,
    /// Names of the other end (rules of side `out`), for filters that know names.
    pub hosts: Vec<String>,
}

/// A row that applies but was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withheld {
    /// The contract id.
    pub id: String,
    /// What it is for.
    pub title: String,
    /// Why it stayed closed, and what to give.
    pub reason: String,
}

/// A default-deny policy: what `rules` do not name is dropped, in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Version of this form, 1.
    pub format_version: u32,
    /// Whose policy it is, in words.
    pub title: String,
    /// Addresses of the filtered machines, where known.
    pub own: Vec<Net>,
    /// New connections that are allowed, in the catalogue's order.
    pub rules: Vec<Rule>,
    /// Rows that stayed closed.
    pub withheld: Vec<Withheld>,
}

/// The first packet of a connection, seen from the filtered machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub side: Side,
    /// Port at the accepting end, or ICMP echo.
    pub flow: Flow,
    /// Address of the other end.
    pub peer: IpAddr,
}

impl Peers {
    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            Peers::Any => true,
            Peers::Nets(nets) => nets.iter().any(|net| net.contains(address)),
        }
    }

    /// The networks of one family: `None` means any address, an empty list means none.
    pub fn family(&self, v4: bool) -> Option<Vec<Net>> {
        match self {
            Peers::Any => None,
            Peers::Nets(nets) => Some(
                nets.iter()
                    .copied()
                    .filter(|net| net.is_v4() == v4)
                    .collect(),
            ),
        }
    }
}

impl Rule {
    /// The port numbers of one transport, sorted.
    pub fn ports(&self, transport: Transport) -> Vec<u16> {
        let ports = self.flows.iter().filter_map(|flow| match flow {
            Flow::Port(port) if port.transport == transport => Some(port.port.get()),
            _ => None,
        });
        let mut ports: Vec<u16> = ports.collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether ICMP echo requests belong to it.
    pub fn icmp(&self) -> bool {
        self.flows.contains(&Flow::IcmpEcho)
    }
}

impl Policy {
    /// The rules of one side.
    pub fn side(&self, side: Side) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.side == side)
    }

    /// Whether a connection that starts with `packet` is allowed.
    pub fn allows(&self, packet: &Packet) -> bool {
        self.side(packet.side)
            .any(|rule| rule.flows.contains(&packet.flow) && rule.peers.contains(packet.peer))
    }

    /// The policy as JSON, for a later [`crate::diff`].
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .expect("strings, numbers and lists always become JSON");
        text.push('\n');
        text
    }
}

/// The policy of `view` for what applies to `installation`.
///
/// Rows bound to loopback are left out unless `exposed`. Peers are the addresses of `nodes` and
/// `peers`. Where some are not known (a role listed in `roles`, or a node without addresses, and no
/// word about it in `peers`), outgoing rules allow any address, incoming ones only for roles that may
/// be anywhere (clients, gateways); for all others they are withheld, not opened to the world.
///
/// # Errors
/// A description that contradicts the catalogue, or a node that it does not have.
pub fn policy(
    catalogue: &Catalogue,
    installation: &Installation,
    view: &View,
) -> Result<Policy, InstallationError> {
    let (roles, geo, own, title) = match view {
        View::Role { role, geo } => {
            let nodes = installation
                .nodes
                .iter()
                .filter(|node| node.roles.contains(role));
            let nodes = nodes.filter(|node| same_place(node, geo.as_deref()));
            let own: Vec<Net> = nodes
                .flat_map(|node| node.addresses.iter().copied())
                .collect();
            let place = geo
                .as_ref()
                .map(|geo| format!(" in {geo}"))
                .unwrap_or_default();
            let name = role.as_str().replace('_', " ");
            (vec![*role], geo.clone(), own, format!("role {name}{place}"))
        }
        View::Node(name) => {
            let Some(node) = installation.nodes.iter().find(|node| node.name == *name) else {
                let known: Vec<&str> = installation.nodes.iter().map(|it| &*it.name).collect();
                let problem = format!(
                    "there is no node `{name}` in this installation; there are: {}",
                    known.join(", ")
                );
                return Err(InstallationError::Problems(vec![problem]));
            };
            let title = format!("node {name}");
            (
                node.roles.clone(),
                node.geo.clone(),
                node.addresses.clone(),
                title,
            )
        }
    };
    let mut policy = Policy {
        format_version: FORMAT_VERSION,
        title: format!("{title} ({})", catalogue.title),
        own: Net::aggregate(own),
        rules: Vec::new(),
        withheld: Vec::new(),
    };
    let itself = match view {
        View::Node(name) => Some(name.as_str()),
        View::Role { .. } => None,
    };
    let filter = Filter {
        role: None,
        geo: geo.clone(),
    };
    for row in installation_rows(catalogue, installation, &filter)? {
        if row.entry.loopback && !installation.exposed.contains(row.entry.id.as_str()) {
            continue;
        }
        for (side, near, far) in [
            (Side::In, &row.to, &row.from),
            (Side::Out, &row.from, &row.to),
        ] {
            if near.iter().any(|role| roles.contains(role)) {
                let ends = Ends {
                    installation,
                    row: &row,
                    side,
                    itself,
                    geo: geo.as_deref(),
                };
                ends.open(far, &mut policy);
            }
        }
    }
    Ok(policy)
}

fn same_place(node: &Node, geo: Option<&str>) -> bool {
    match (&node.geo, geo) {
        (Some(its), Some(wanted)) => its == wanted,
        _ => true,
    }
}

/// What is known about the far ends of one role; both empty and known: only the machine itself.
struct Far {
    nets: Vec<Net>,
    /// There are others, whose addresses nobody gave.
    others: bool,
}

struct Ends<'a> {
    installation: &'a Installation,
    row: &'a Row<'a>,
    side: Side,
    itself: Option<&'a str>,
    geo: Option<&'a str>,
}

impl Ends<'_> {
    /// Adds the rule for the far ends `roles`, or says why not.
    fn open(&self, roles: &[Role], policy: &mut Policy) {
        let entry = self.row.entry;
        let (id, title) = (entry.id.to_string(), entry.title.clone());
        let (mut any, mut nets) = (false, Vec::new());
        for &role in roles {
            let far = self.far(role);
            nets.extend(far.nets);
            if far.others && (self.side == Side::Out || is_public(role)) {
                any = true;
            } else if far.others {
                policy.withheld.push(Withheld {
                    id: id.clone(),
                    title: title.clone(),
                    reason: format!("the addresses of `{role}` are not known (peers.{role})"),
                });
            }
        }
        if !any && nets.is_empty() {
            return;
        }
        let peers = if any {
            Peers::Any
        } else {
            Peers::Nets(Net::aggregate(nets))
        };
        let hosts = if self.side == Side::Out {
            self.row.hosts.clone()
        } else {
            Vec::new()
        };
        let flows = self.row.flows.clone();
        policy.rules.push(Rule {
            id,
            title,
            side: self.side,
            flows,
            peers,
            hosts,
        });
    }

    fn far(&self, role: Role) -> Far {
        let peers: &BTreeMap<String, Vec<Net>> = &self.installation.peers;
        let entry = self.row.entry;
        if !role.is_product()
            && let Some(nets) = peers.get(entry.id.as_str())
        {
            return Far {
                nets: nets.clone(),
                others: false,
            };
        }
        let mut nets: Vec<Net> = peers.get(role.as_str()).cloned().unwrap_or_default();
        if self.side == Side::Out {
            nets.extend(entry.addresses.iter().copied().map(Net::from));
            let named = self.row.hosts.iter().filter_map(|host| peers.get(host));
            nets.extend(named.flatten());
        }
        let told = !nets.is_empty() || peers.contains_key(role.as_str());
        let geo = self
            .geo
            .filter(|_| entry.hosts.iter().any(|host| host.has_geo()));
        let its = self
            .installation
            .nodes
            .iter()
            .filter(|node| node.roles.contains(&role));
        let its: Vec<&Node> = its.filter(|node| same_place(node, geo)).collect();
        let far = its
            .iter()
            .filter(|node| self.itself != Some(node.name.as_str()));
        let without = far.clone().any(|node| node.addresses.is_empty());
        nets.extend(far.flat_map(|node| &node.addresses));
        let elsewhere = self.installation.roles.contains(&role) || its.is_empty();
        Far {
            nets,
            others: !told && (elsewhere || without),
        }
    }
}

/// Roles whose machines may be anywhere: they are let in by certificate or key, not by address.
fn is_public(role: Role) -> bool {
    matches!(
        role,
        Role::Client
            | Role::Gateway
            | Role::IngressController
            | Role::MeshZone
            | Role::ForwardProxy
    )
}
