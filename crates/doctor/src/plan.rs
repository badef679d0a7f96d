//! From the rows that apply to what there is to try from here. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sallyport_contract::{
    Catalogue, Entry, Filter, Flow, Installation, InstallationError, Net, Role, Row, Tls,
    Transport, installation_rows,
};
use serde::Serialize;

use crate::check::{Check, Talk, Target, Then, Via};

/// Where the doctor runs, and what is known there beside the installation.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// What runs on this machine, or what is played (`client`, `operator`).
    pub roles: Vec<Role>,
    /// Its name among the installation's nodes, so that it does not dial itself.
    pub node: Option<String>,
    /// Only rows of this geo.
    pub geo: Option<String>,
    /// The system's resolvers.
    pub resolvers: Vec<IpAddr>,
    /// The forward proxy for what speaks the hybrid protocol.
    pub via: Option<Via>,
    /// Far ends by contract id that are a setting: host and port.
    pub direct: BTreeMap<String, (String, u16)>,
    /// Server names by contract id, where the settings ask for another than the host's.
    pub server_names: BTreeMap<String, String>,
    /// Addresses by host name, from the published list.
    pub published: BTreeMap<String, Vec<Net>>,
    /// Whether somebody said which authority issues the installation's certificates.
    pub issuer_known: bool,
    /// The same for rows where both ends show certificates.
    pub cluster_known: bool,
    /// The id under which the doctor presents itself to a control plane, a UUID.
    pub node_id: String,
}

/// What there is to try, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To try, in the catalogue's order.
    pub checks: Vec<Check>,
    /// Rows that apply here but cannot be tried from here.
    pub skipped: Vec<Skipped>,
}

/// A row that cannot be tried from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The contract id.
    pub id: String,
    /// What it is for.
    pub title: String,
    /// Why, and what would change it.
    pub reason: String,
}

/// The checks of `installation` as seen from `here`.
///
/// # Errors
/// A description that contradicts the catalogue, or a node that it does not have.
pub fn plan(
    catalogue: &Catalogue,
    installation: &Installation,
    here: &Here,
) -> Result<Plan, InstallationError> {
    let filter = Filter {
        role: None,
        geo: here.geo.clone(),
    };
    let mut plan = Plan::default();
    if let Some(name) = &here.node
        && !installation.nodes.iter().any(|node| node.name == *name)
    {
        let known: Vec<&str> = installation.nodes.iter().map(|it| &*it.name).collect();
        let problem = format!(
            "there is no node `{name}` in this installation; there are: {}",
            known.join(", ")
        );
        return Err(InstallationError::Problems(vec![problem]));
    }
    for row in installation_rows(catalogue, installation, &filter)? {
        if row.entry.loopback && !installation.exposed.contains(row.entry.id.as_str()) {
            continue;
        }
        // Behind a forward proxy the row starts there, but it is this machine that wants it.
        let hybrid = row.entry.protocol == "hybrid";
        let from = if hybrid { &row.entry.from } else { &row.from };
        let place = Place {
            catalogue,
            installation,
            here,
            row: &row,
        };
        if from.iter().any(|role| here.roles.contains(role)) {
            place.outbound(&mut plan);
        } else if row.to.iter().any(|role| here.roles.contains(role)) {
            let names: Vec<&str> = row.from.iter().map(|role| role.as_str()).collect();
            plan.skip(
                row.entry,
                format!(
                    "comes in; try it from there: sallyport doctor --role {}",
                    names.join(" or ")
                ),
            );
        }
    }
    Ok(plan)
}

impl Plan {
    fn skip(&mut self, entry: &Entry, reason: String) {
        let (id, title) = (entry.id.to_string(), entry.title.clone());
        self.skipped.push(Skipped { id, title, reason });
    }
}

struct Place<'a> {
    catalogue: &'a Catalogue,
    installation: &'a Installation,
    here: &'a Here,
    row: &'a Row<'a>,
}

impl Place<'_> {
    fn outbound(&self, plan: &mut Plan) {
        let entry = self.row.entry;
        let id = entry.id.as_str();
        if let Some((host, port)) = self.here.direct.get(id) {
            let port = format!("{port}/tcp").parse().map(Flow::Port);
            for flow in port.into_iter() {
                plan.checks.push(self.check(target(host), flow));
            }
            return;
        }
        let proxied = self.row.from.contains(&Role::ForwardProxy) && entry.protocol == "hybrid";
        if proxied && self.here.via.is_none() {
            return plan.skip(
                entry,
                "goes through the forward proxy; name it with --proxy".to_owned(),
            );
        }
        let (targets, why_none) = self.targets();
        if targets.is_empty() {
            return plan.skip(entry, why_none);
        }
        for target in targets {
            for &flow in &self.row.flows {
                plan.checks.push(self.check(target.clone(), flow));
            }
        }
    }

    /// The far ends, or why there is none.
    fn targets(&self) -> (Vec<Target>, String) {
        let entry = self.row.entry;
        if !self.row.hosts.is_empty() {
            let names = self.row.hosts.iter().cloned().map(Target::Name);
            return (names.collect(), String::new());
        }
        let mut nets: Vec<Net> = entry.addresses.iter().copied().map(Net::from).collect();
        let peers = &self.installation.peers;
        let outside = self.row.to.iter().any(|role| !role.is_product());
        let by_id = peers.get(entry.id.as_str()).filter(|_| outside);
        for role in &self.row.to {
            nets.extend(
                by_id
                    .or_else(|| peers.get(role.as_str()))
                    .into_iter()
                    .flatten(),
            );
            let nodes = self
                .installation
                .nodes
                .iter()
                .filter(|node| node.roles.contains(role));
            let others = nodes.filter(|node| self.here.node.as_ref() != Some(&node.name));
            nets.extend(others.flat_map(|node| &node.addresses));
        }
        if nets.is_empty() && entry.protocol == "dns" {
            nets.extend(self.here.resolvers.iter().copied().map(Net::from));
        }
        nets.sort();
        nets.dedup();
        let addresses: Vec<Target> = nets
            .iter()
            .filter_map(|net| net.single())
            .map(Target::Address)
            .collect();
        let to: Vec<&str> = self.row.to.iter().map(|role| role.as_str()).collect();
        let why_none = match nets.is_empty() {
            false => "its far end is known as a network only, not by name or address".to_owned(),
            true if outside => format!(
                "nobody said where it is; add hosts.\"{id}\" or peers.\"{id}\" to the installation",
                id = entry.id
            ),
            true => format!("no other node with the role {} is known", to.join(" or ")),
        };
        (addresses, why_none)
    }

    fn check(&self, target: Target, flow: Flow) -> Check {
        let entry = self.row.entry;
        let far: Vec<String> = self
            .row
            .to
            .iter()
            .map(|role| role.as_str().replace('_', " "))
            .collect();
        let expected = match &target {
            Target::Name(name) => self.expected(name),
            Target::Address(_) => Vec::new(),
        };
        Check {
            id: entry.id.to_string(),
            title: entry.title.clone(),
            owner: entry.owner,
            far: far.join(" or "),
            flow,
            target,
            expected,
            issuer_known: self.issuer_known(),
            server_name: self.here.server_names.get(entry.id.as_str()).cloned(),
            talk: self.talk(flow),
            via: self.here.via.clone().filter(|_| entry.protocol == "hybrid"),
        }
    }

    fn issuer_known(&self) -> bool {
        let entry = self.row.entry;
        let product = entry.to.iter().any(|role| role.is_product());
        (product && self.here.issuer_known) || (entry.tls == Tls::Mtls && self.here.cluster_known)
    }

    /// Addresses that `name` should have: from the published list, or the installation's `peers`.
    fn expected(&self, name: &str) -> Vec<Net> {
        let listed = self
            .here
            .published
            .iter()
            .find(|(pattern, _)| covers(pattern, name));
        let told = self.installation.peers.get(name);
        told.or(listed.map(|it| it.1)).cloned().unwrap_or_default()
    }

    fn talk(&self, flow: Flow) -> Talk {
        let entry = self.row.entry;
        let Flow::Port(port) = flow else {
            return Talk::Echo;
        };
        let name = || {
            let base = self
                .installation
                .base
                .as_ref()
                .or(self.catalogue.base.as_ref());
            base.cloned().unwrap_or_else(|| "example".to_owned())
        };
        match (entry.protocol.as_str(), port.transport) {
            ("dns", _) => return Talk::Dns(name()),
            ("ntp", _) => return Talk::Ntp,
            (_, Transport::Udp) => return Talk::Datagram,
            ("ssh", _) => return Talk::Banner("SSH-"),
            ("smtp", _) => return Talk::Banner("220"),
            _ => {}
        }
        let web = matches!(entry.protocol.as_str(), "https" | "http");
        let tls = match entry.tls {
            Tls::Tls | Tls::Mtls => true,
            Tls::Optional => web && matches!(port.port.get(), 443 | 8443 | 5000),
            Tls::None => false,
        };
        let then = match entry.protocol.as_str() {
            "hybrid" => {
                let path = match entry.id.slug() {
                    "telemetry" => "/v1/analytics/reqlog",
                    _ => "/v1/outlet",
                };
                let id = &self.here.node_id;
                Then::Upgrade(format!(
                    "{path}?node_id={id}&node_hostname=sallyport-doctor&node_version=3.10.0"
                ))
            }
            "https" | "http" => Then::Http,
            _ => Then::Nothing,
        };
        match (tls, web) {
            (true, _) => Talk::Tls {
                mutual: entry.tls == Tls::Mtls,
                then,
            },
            (false, true) => Talk::Http,
            (false, false) => Talk::Nothing,
        }
    }
}

fn target(host: &str) -> Target {
    match host.parse() {
        Ok(address) => Target::Address(address),
        Err(_) => Target::Name(host.to_ascii_lowercase()),
    }
}

/// Whether a key of the published list (`eu.api.example`, `*.eu.cp0.example`) means `name`.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => name.split_once('.').is_some_and(|(_, tail)| tail == rest),
        None => pattern == name,
    }
}
