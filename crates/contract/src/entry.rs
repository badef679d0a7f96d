//! One row of the contract: who dials whom, on which port, under which name, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::HostPattern;
use crate::port::{Flow, Port, PortUse};

/// A slug, with dotted suffixes where one slug has several rows: `proxy.http`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryId(String);

impl EntryId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The slug: what stands before the first dot.
    pub fn slug(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }
}

impl TryFrom<String> for EntryId {
    type Error = String;
    fn try_from(text: String) -> Result<EntryId, String> {
        let good = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if text.split('.').all(good) {
            Ok(EntryId(text))
        } else {
            Err(format!(
                "`{text}` is not an id: lower-case words with `_`, parted by dots, such as `proxy.http`"
            ))
        }
    }
}

impl From<EntryId> for String {
    fn from(id: EntryId) -> String {
        id.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl PartialEq<str> for EntryId {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for EntryId {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// What a machine or person at one end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A data plane.
    Gateway,
    /// Holds configuration, takes telemetry, serves the APIs and pages.
    ControlPlane,
    /// A node of the appliance cluster.
    Appliance,
    /// A Kubernetes ingress controller connected to the control plane.
    IngressController,
    /// The control plane of one mesh zone.
    MeshZone,
    /// A person or program that administers: browser, decK, command line.
    Operator,
    /// Whoever sends requests to a gateway, or reads a portal.
    Client,
    /// A monitoring system or load balancer that asks for health.
    Monitor,
    /// The relay through which support reaches a node.
    JumpHost,
    /// A service behind a gateway.
    Upstream,
    /// A forward proxy in the operator's network.
    ForwardProxy,
    /// Any other machine, named by the row's `peer`.
    External,
}

impl Role {
    /// Every role, in the order of their declaration.
    pub const ALL: [Role; 12] = [
        Role::Gateway,
        Role::ControlPlane,
        Role::Appliance,
        Role::IngressController,
        Role::MeshZone,
        Role::Operator,
        Role::Client,
        Role::Monitor,
        Role::JumpHost,
        Role::Upstream,
        Role::ForwardProxy,
        Role::External,
    ];

    /// The name used in catalogues, JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::ControlPlane => "control_plane",
            Role::Appliance => "appliance",
            Role::IngressController => "ingress_controller",
            Role::MeshZone => "mesh_zone",
            Role::Operator => "operator",
            Role::Client => "client",
            Role::Monitor => "monitor",
            Role::JumpHost => "jump_host",
            Role::Upstream => "upstream",
            Role::ForwardProxy => "forward_proxy",
            Role::External => "external",
        }
    }

    /// Whether machines of this role run the product (or connect to it as part of the platform).
    pub const fn is_product(self) -> bool {
        matches!(
            self,
            Role::Gateway
                | Role::ControlPlane
                | Role::Appliance
                | Role::IngressController
                | Role::MeshZone
        )
    }

    /// The role called `name`; `-` counts as `_`.
    pub fn from_name(name: &str) -> Option<Role> {
        let name = name.replace('-', "_");
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether the connection is encrypted, and who shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// No TLS (the protocol may have its own encryption, as SSH does).
    None,
    /// TLS or not, by setting of the far end, or by transport.
    Optional,
    /// The acceptor shows a certificate.
    Tls,
    /// Both ends show a certificate; the row says which.
    Mtls,
}

impl Tls {
    /// The name used in catalogues and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tls::None => "none",
            Tls::Optional => "optional",
            Tls::Tls => "tls",
            Tls::Mtls => "mtls",
        }
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who runs the acceptor's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// This installation.
    Installation,
    /// The organisation that runs this installation, by other means.
    Site,
    /// The vendor of the product.
    Vendor,
    /// Somebody else.
    ThirdParty,
}

impl Owner {
    /// The name used in catalogues and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Owner::Installation => "installation",
            Owner::Site => "site",
            Owner::Vendor => "vendor",
            Owner::ThirdParty => "third_party",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A row seen from one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Others connect to the role.
    Inbound,
    /// The role connects to others.
    Outbound,
    /// Both: the role's machines connect to each other.
    Both,
}

impl Direction {
    /// The direction in which `role` takes part, if it does.
    pub fn of(role: Role, from: &[Role], to: &[Role]) -> Option<Direction> {
        match (from.contains(&role), to.contains(&role)) {
            (true, true) => Some(Direction::Both),
            (true, false) => Some(Direction::Outbound),
            (false, true) => Some(Direction::Inbound),
            (false, false) => None,
        }
    }
}

/// One row of the contract.
///
/// The direction is not a field: it follows from `from` and `to`, see [`Entry::direction`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Slug with optional suffix; unique in its catalogue.
    pub id: EntryId,
    /// A few words that name the use.
    pub title: String,
    /// Ports of the acceptor; empty only for a row that is ICMP alone.
    #[serde(default)]
    pub ports: Vec<PortUse>,
    /// Whether ICMP and ICMPv6 echo requests belong to this row.
    #[serde(default)]
    pub icmp: bool,
    /// Roles that open the connection.
    pub from: Vec<Role>,
    /// Roles that accept it.
    pub to: Vec<Role>,
    /// What is spoken, in lower case: `https`, `hybrid`, `ssh`.
    pub protocol: String,
    /// TLS mode.
    pub tls: Tls,
    /// Names that the initiator uses; empty where the peer has no name of its own.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// Other spellings of `hosts` that are accepted but not handed out.
    #[serde(default)]
    pub aliases: Vec<HostPattern>,
    /// Addresses that the document named beside the host.
    #[serde(default)]
    pub addresses: Vec<std::net::IpAddr>,
    /// Geos for which the row exists; empty means those of the catalogue.
    #[serde(default)]
    pub geos: Vec<String>,
    /// The far end in words, where no host name says it.
    #[serde(default)]
    pub peer: Option<String>,
    /// The certificate that the initiator shows (rows with mTLS).
    #[serde(default)]
    pub certificate: Option<String>,
    /// Whether the product needs this row; narrowed by `when`.
    pub required: bool,
    /// The condition under which `required` holds, or the row is wanted at all.
    #[serde(default)]
    pub when: Option<String>,
    /// The feature that brings this row, one of the catalogue's `features`.
    #[serde(default)]
    pub feature: Option<String>,
    /// Who runs the acceptor's end.
    pub owner: Owner,
    /// The setting that changes the port or the far end; none means fixed.
    #[serde(default)]
    pub setting: Option<String>,
    /// Binds to loopback by default, so no firewall needs to know it.
    #[serde(default)]
    pub loopback: bool,
    /// Ids of rows that share port and name with this one on purpose.
    #[serde(default)]
    pub shares: Vec<EntryId>,
    /// What the row is for, and its notes.
    pub why: String,
    /// Where the row comes from: document, section and row, or `product`.
    pub source: Vec<String>,
}

impl Entry {
    /// The first port.
    ///
    /// # Panics
    /// For a row that is ICMP alone, which nothing can bind or dial.
    #[track_caller]
    pub fn port(&self) -> Port {
        match self.ports.first() {
            Some(first) => first.port,
            None => panic!("`{}` of the network contract has no port", self.id),
        }
    }

    /// Everything a packet filter has to pass for this row.
    pub fn flows(&self) -> Vec<Flow> {
        let ports = self.ports.iter().copied().map(Flow::Port);
        ports.chain(self.icmp.then_some(Flow::IcmpEcho)).collect()
    }

    /// The row as `role` sees it, or `None` if it does not concern that role.
    pub fn direction(&self, role: Role) -> Option<Direction> {
        Direction::of(role, &self.from, &self.to)
    }
}
