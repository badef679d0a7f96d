//! One installation, described, and the rows of a catalogue that apply to it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::address::Net;
use crate::catalogue::{Catalogue, line_of};
use crate::entry::{Direction, Entry, Role};
use crate::host::{HostPattern, Names, is_label};
use crate::port::{Flow, PortUse};
use crate::row::{Filter, Row};

/// What runs where; everything is optional except what the rows need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Installation {
    /// Base domain; needed unless the catalogue has one.
    pub base: Option<String>,
    /// Roles that take part beside those of `nodes`, such as gateways in another network.
    pub roles: Vec<Role>,
    /// Geos in use.
    pub geos: Vec<String>,
    /// Control planes, whose prefixes make the names that gateways dial.
    pub control_planes: Vec<ControlPlane>,
    /// Developer portals.
    pub portals: Vec<Portal>,
    /// The machines.
    pub nodes: Vec<Node>,
    /// Features in use, of those that the catalogue lists.
    pub features: BTreeSet<String>,
    /// Ids of rows that are bound to loopback by default but open to the network here.
    pub exposed: BTreeSet<String>,
    /// Ports that differ from the catalogue's, by contract id.
    pub ports: BTreeMap<String, Vec<PortUse>>,
    /// Names of far ends that are a setting, by contract id: `smtp = ["mail.example"]`.
    pub hosts: BTreeMap<String, Vec<String>>,
    /// Addresses of far ends, by role, by contract id (for ends outside the product) or by host name.
    pub peers: BTreeMap<String, Vec<Net>>,
}

/// A control plane of the installation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// DNS prefix, one label.
    pub prefix: String,
    /// Its geo.
    pub geo: String,
}

/// A developer portal of the installation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portal {
    /// Its id, one label.
    pub id: String,
    /// Its geo.
    pub geo: String,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, unique.
    pub name: String,
    /// What runs on it.
    pub roles: Vec<Role>,
    /// The geo that it belongs to; none means all of them.
    #[serde(default)]
    pub geo: Option<String>,
    /// Its addresses, as others see them.
    #[serde(default)]
    pub addresses: Vec<Net>,
}

/// Why a description cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallationError {
    /// Not TOML, an unknown key or a wrong value.
    #[error("{}{message}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    Syntax {
        /// 1-based line, where known.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
    /// It contradicts itself or the catalogue; every problem is listed.
    #[error("{}", .0.join("; "))]
    Problems(Vec<String>),
}

impl Installation {
    /// Reads a description (TOML).
    ///
    /// # Errors
    /// Malformed TOML, unknown keys, bad values. What needs the catalogue is checked by
    /// [`installation_rows`].
    pub fn parse(text: &str) -> Result<Installation, InstallationError> {
        toml::from_str(text).map_err(|error| InstallationError::Syntax {
            line: error.span().map(|span| line_of(text, span.start)),
            message: error.message().to_owned(),
        })
    }

    /// Whether machines of `role` take part, in `nodes` or elsewhere.
    pub fn has_role(&self, role: Role) -> bool {
        let elsewhere = role == Role::ControlPlane && !self.control_planes.is_empty();
        self.roles.contains(&role)
            || self.nodes.iter().any(|node| node.roles.contains(&role))
            || elsewhere
    }

    /// Features asked for, and those that follow from the rest of the description.
    fn has_feature(&self, feature: &str) -> bool {
        let appliances = self
            .nodes
            .iter()
            .filter(|node| node.roles.contains(&Role::Appliance));
        self.features.contains(feature)
            || (feature == "dev_portal" && !self.portals.is_empty())
            || (feature == "appliance" && appliances.count() > 1)
            // Several nodes share a database, of the site unless they run one themselves.
            || (feature == "database"
                && self.has_feature("appliance")
                && !self.features.contains("database_nodes"))
    }

    /// Every contradiction, in reading order.
    pub(crate) fn problems(&self, catalogue: &Catalogue) -> Vec<String> {
        let mut found = Vec::new();
        let base = self.base.as_deref().or(catalogue.base.as_deref());
        if base.is_none() && catalogue.entries.iter().any(needs_base) {
            found.push("base: needed, the catalogue has no base domain of its own".to_owned());
        }
        if base.is_some_and(|base| base.is_empty() || !base.split('.').all(is_label)) {
            found.push(format!(
                "base: `{}` is not a domain",
                base.unwrap_or_default()
            ));
        }
        let mut known: BTreeSet<&String> = catalogue.geos.iter().collect();
        known.extend(catalogue.entries.iter().flat_map(|entry| &entry.geos));
        let listed: Vec<&str> = known.iter().map(|geo| geo.as_str()).collect();
        for geo in self
            .geos
            .iter()
            .chain(self.nodes.iter().filter_map(|node| node.geo.as_ref()))
        {
            if !known.contains(geo) {
                found.push(format!(
                    "geos: there is no geo `{geo}`; known are {}",
                    listed.join(", ")
                ));
            }
        }
        let placed = self
            .control_planes
            .iter()
            .map(|it| ("control_planes", &it.prefix, &it.geo));
        let portals = self.portals.iter().map(|it| ("portals", &it.id, &it.geo));
        for (key, name, geo) in placed.chain(portals) {
            if !is_label(name) {
                found.push(format!("{key}: `{name}` is not a DNS label"));
            }
            if !self.geos.contains(geo) {
                found.push(format!(
                    "{key}: `{name}` is in geo `{geo}`, which is not among `geos`"
                ));
            }
        }
        let mut names = BTreeSet::new();
        for node in &self.nodes {
            if !names.insert(&node.name) {
                found.push(format!("nodes: two are called `{}`", node.name));
            }
            if node.roles.is_empty() {
                found.push(format!("nodes: `{}` has no role", node.name));
            }
        }
        for feature in &self.features {
            if !catalogue.features.contains_key(feature) {
                found.push(format!("features: the catalogue knows no `{feature}`"));
            }
        }
        let ids = self.exposed.iter().map(|id| ("exposed", id));
        let ids = ids.chain(self.ports.keys().map(|id| ("ports", id)));
        for (key, id) in ids.chain(self.hosts.keys().map(|id| ("hosts", id))) {
            if catalogue.entry(id).is_none() {
                found.push(format!("{key}: the catalogue has no entry `{id}`"));
            }
        }
        for (id, hosts) in &self.hosts {
            let own = catalogue
                .entry(id)
                .is_some_and(|entry| !entry.hosts.is_empty());
            if own {
                found.push(format!(
                    "hosts: the names of `{id}` come from the catalogue"
                ));
            }
            for host in hosts.iter().filter(|host| !host.split('.').all(is_label)) {
                found.push(format!("hosts: `{host}` of `{id}` is not a host name"));
            }
        }
        for (id, ports) in &self.ports {
            if ports.is_empty() {
                found.push(format!("ports: `{id}` has no port"));
            }
        }
        for key in self.peers.keys() {
            let role = Role::from_name(key).is_some_and(|role| role.as_str() == key);
            match catalogue.entry(key) {
                Some(entry)
                    if !entry
                        .from
                        .iter()
                        .chain(&entry.to)
                        .any(|role| !role.is_product()) =>
                {
                    found.push(format!(
                        "peers: both ends of `{key}` are the product's; give `nodes` their addresses, \
                         or use the name of a role"
                    ));
                }
                None if !role && !is_domain(key) => {
                    found.push(format!(
                        "peers: `{key}` is no role, no contract id and no host name"
                    ));
                }
                _ => {}
            }
        }
        found
    }
}

fn is_domain(text: &str) -> bool {
    text.contains('.') && text.split('.').all(is_label)
}

fn needs_base(entry: &Entry) -> bool {
    entry.hosts.iter().any(|host| host.on_base)
}

/// Exactly the rows that apply to `installation`, with concrete names, in the catalogue's order.
///
/// A row applies if both of its ends take part, its feature (if any) is used, and, where it has names,
/// at least one of them exists. With the feature `forward_proxy`, what gateways say to the control
/// plane in the hybrid protocol starts at the proxy.
///
/// # Errors
/// [`InstallationError::Problems`] with everything that contradicts the catalogue.
pub fn installation_rows<'a>(
    catalogue: &'a Catalogue,
    installation: &Installation,
    filter: &Filter,
) -> Result<Vec<Row<'a>>, InstallationError> {
    let mut problems = installation.problems(catalogue);
    if let Some(geo) = &filter.geo
        && !installation.geos.contains(geo)
    {
        problems.push(format!("there is no geo `{geo}` in this installation"));
    }
    if !problems.is_empty() {
        return Err(InstallationError::Problems(problems));
    }
    let rows = catalogue
        .entries
        .iter()
        .filter_map(|entry| row(catalogue, installation, filter, entry));
    Ok(rows.collect())
}

fn row<'a>(
    catalogue: &'a Catalogue,
    installation: &Installation,
    filter: &Filter,
    entry: &'a Entry,
) -> Option<Row<'a>> {
    if entry
        .feature
        .as_ref()
        .is_some_and(|feature| !installation.has_feature(feature))
    {
        return None;
    }
    let present = |roles: &[Role]| -> Vec<Role> {
        let there = |role: &&Role| !role.is_product() || installation.has_role(**role);
        roles.iter().filter(there).copied().collect()
    };
    let (mut from, to) = (present(&entry.from), present(&entry.to));
    if entry.protocol == "hybrid" && installation.has_feature("forward_proxy") {
        for role in from.iter_mut().filter(|role| **role == Role::Gateway) {
            *role = Role::ForwardProxy;
        }
    }
    let both_outside = !from.iter().chain(&to).any(|role| role.is_product());
    if from.is_empty() || to.is_empty() || both_outside {
        return None;
    }
    let direction = match filter.role {
        Some(role) => Some(Direction::of(role, &from, &to)?),
        None => None,
    };
    let mut hosts = Vec::new();
    for pattern in &entry.hosts {
        hosts.extend(names(catalogue, installation, filter, entry, pattern));
    }
    if hosts.is_empty() && !entry.hosts.is_empty() {
        return None;
    }
    hosts.extend(
        installation
            .hosts
            .get(entry.id.as_str())
            .into_iter()
            .flatten()
            .cloned(),
    );
    let flows = match installation.ports.get(entry.id.as_str()) {
        Some(ports) => ports.iter().copied().map(Flow::Port).collect(),
        None => entry.flows(),
    };
    Some(Row {
        entry,
        flows,
        from,
        to,
        hosts,
        direction,
    })
}

/// The names that `pattern` stands for in this installation.
fn names(
    catalogue: &Catalogue,
    installation: &Installation,
    filter: &Filter,
    entry: &Entry,
    pattern: &HostPattern,
) -> Vec<String> {
    let base = installation
        .base
        .as_deref()
        .or(catalogue.base.as_deref())
        .unwrap_or_default();
    let wanted = |geo: &str| {
        let here = filter
            .geo
            .as_deref()
            .is_none_or(|only| only == geo || geo == "global");
        here && catalogue.geos_of(entry).iter().any(|known| known == geo)
    };
    let none = Names {
        base,
        ..Names::default()
    };
    let places: Vec<Names<'_>> = if pattern.has_prefix() {
        let planes = installation.control_planes.iter();
        planes
            .map(|it| Names {
                geo: Some(&it.geo),
                prefix: Some(&it.prefix),
                ..none
            })
            .collect()
    } else if pattern.has_portal() {
        let portals = installation.portals.iter();
        portals
            .map(|it| Names {
                geo: Some(&it.geo),
                portal: Some(&it.id),
                ..none
            })
            .collect()
    } else if pattern.has_geo() {
        // `global` is no place where anything runs, but some services have a name for it.
        let geos = installation.geos.iter().map(String::as_str);
        let geos = geos.filter(|geo| *geo != "global").chain(["global"]);
        geos.map(|geo| Names {
            geo: Some(geo),
            ..none
        })
        .collect()
    } else {
        vec![none]
    };
    let fits = |names: &&Names<'_>| !pattern.has_geo() || names.geo.is_some_and(&wanted);
    // The parts were checked before; a name that is too long in all is left out by the same rule.
    places
        .iter()
        .filter(fits)
        .filter_map(|names| pattern.render(names).ok())
        .collect()
}
