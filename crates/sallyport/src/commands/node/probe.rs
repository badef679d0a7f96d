//! What a node tries towards the others when the doctor asks it: the contract's rows between nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use sallyport_appliance::node::{Accepts, State};
use sallyport_contract::{Entry, Installation, Net, Node, PortUse, Role, Transport};
use sallyport_doctor::{Check, Here, Options, plan, report};
use sallyport_runtime::tls::{ServerTrust, trust_store};
use sallyport_store::Member;
use sallyport_wire::node_control::name_of;
use serde_json::{Value, json};
use tracing::warn;

/// Limit of each step.
const LIMIT: Duration = Duration::from_secs(3);
/// Checks at once.
const AT_ONCE: usize = 32;
/// Every node listens there; what else one does it tells.
const CONTROL: &str = "node_control";
/// Stands for the installation's domain; no row between nodes has a name.
const BASE: &str = "cluster.invalid";

/// Whether a row is between nodes.
fn between_nodes(entry: &Entry) -> bool {
    entry.from.contains(&Role::Appliance) && entry.to.contains(&Role::Appliance)
}

/// Ports of rows between nodes on which something listens here that others can reach.
pub(super) fn accepts(state: &State) -> Accepts {
    let sockets = sallyport_doctor::bound().unwrap_or_else(|error| {
        warn!(%error, "could not look where this node listens");
        Vec::new()
    });
    let open = |port: &PortUse| {
        let mut there = sockets.iter();
        there.any(|it| it.port == *port && !it.address.is_loopback())
    };
    let rows = sallyport_contract::catalogue().entries.iter();
    let mut accepts = Accepts::new();
    for entry in rows.filter(|it| between_nodes(it)) {
        let moved = match entry.id.as_str() {
            CONTROL => Some(state.settings.node_control.listen),
            "rate_limit" => state.rate_limit(),
            _ => None,
        };
        let moved = moved.and_then(|it| it.port().try_into().ok());
        let ports = match moved {
            Some(port) => vec![PortUse {
                port,
                transport: Transport::Tcp,
            }],
            None => entry.ports.clone(),
        };
        let ports = ports.iter().filter(|it| open(it)).map(ToString::to_string);
        let ports: Vec<String> = ports.collect();
        if !ports.is_empty() {
            accepts.insert(entry.id.to_string(), ports);
        }
    }
    accepts
}

/// Tries every row between nodes that applies, towards every other node; the doctor's JSON, with
/// `node` in each row.
pub(super) async fn probe(state: &State, features: &BTreeSet<String>) -> anyhow::Result<Value> {
    let (mut checks, mut nodes) = (Vec::new(), Vec::new());
    let live = state.live();
    for member in state.members() {
        if member.id == state.identity.id {
            continue;
        }
        let accepts = live.get(&member.id).map(|it| it.accepts.clone());
        for check in towards(&member, &accepts.unwrap_or_default(), features)? {
            nodes.push(member.name.clone());
            checks.push(check);
        }
    }
    let roots = trust_store(&[&state.identity.authority])?;
    let trust = ServerTrust::Roots(std::sync::Arc::new(roots));
    let options = Options {
        limit: LIMIT,
        at_once: AT_ONCE,
        trust: trust.clone(),
        cluster: Some((trust, state.identity.tls()?)),
    };
    let outcomes = sallyport_doctor::run(checks, options, |_| {}).await;
    let mut told: Value = serde_json::from_str(&report::json(&outcomes, &[]))?;
    // The doctor names far ends by their addresses, people know nodes by their names.
    let rows = told["rows"].as_array_mut().into_iter().flatten();
    for (row, name) in rows.zip(nodes) {
        row["node"] = json!(name);
    }
    Ok(told)
}

/// The rows of the contract to try towards `far`, which listens as `accepts` says.
///
/// A row applies if it is needed and the far node listens for it; what depends on a choice, if
/// `features` has it. The control port and the echo, which health checks need, always apply.
fn towards(
    far: &Member,
    accepts: &Accepts,
    features: &BTreeSet<String>,
) -> anyhow::Result<Vec<Check>> {
    let address: SocketAddr = far.address.parse()?;
    let mut ports: BTreeMap<String, Vec<PortUse>> = BTreeMap::new();
    for (id, told) in accepts {
        let known = sallyport_contract::catalogue().entry(id);
        let told: Vec<PortUse> = told.iter().filter_map(|it| it.parse().ok()).collect();
        if !told.is_empty() && known.is_some_and(between_nodes) {
            ports.insert(id.clone(), told);
        }
    }
    let control = format!("{}/tcp", address.port()).parse()?;
    ports.insert(CONTROL.to_owned(), vec![control]);
    // That the cluster has several nodes is a feature of the contract; it makes nobody listen.
    let mut asked = features.clone();
    asked.remove("appliance");
    asked.insert("ping".to_owned());
    let entry = |id: &str| sallyport_contract::catalogue().entry(id);
    let shown = ports.keys().filter_map(|id| entry(id)?.feature.clone());
    let node = |name: &str, addresses| Node {
        name: name.to_owned(),
        roles: vec![Role::Appliance],
        geo: None,
        addresses,
    };
    let installation = Installation {
        base: Some(BASE.to_owned()),
        features: asked.iter().cloned().chain(shown).collect(),
        nodes: vec![
            node("here", Vec::new()),
            node("far", vec![Net::from(address.ip())]),
        ],
        ports: ports.clone(),
        ..Installation::default()
    };
    let here = Here {
        roles: vec![Role::Appliance],
        node: Some("here".to_owned()),
        issuer_known: true,
        cluster_known: true,
        ..Here::default()
    };
    let planned = plan(sallyport_contract::catalogue(), &installation, &here)?;
    let applies = |check: &Check| {
        let Some(entry) = entry(&check.id).filter(|it| between_nodes(it)) else {
            return false;
        };
        let chosen = entry.feature.as_ref().is_some_and(|it| asked.contains(it));
        chosen || (entry.required && ports.contains_key(&check.id))
    };
    let named = planned
        .checks
        .into_iter()
        .filter(applies)
        .map(|check| Check {
            far: format!("node {}", far.name),
            server_name: Some(name_of(&far.id.to_string())),
            ..check
        });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use sallyport_store::{NodeRole, Wanted};

    use super::*;

    fn rows(accepts: &[(&str, &str)], features: &[&str]) -> Vec<String> {
        let far = Member {
            id: Default::default(),
            name: "n2".to_owned(),
            role: NodeRole::Data,
            address: "192.0.2.2:7001".to_owned(),
            wanted: Wanted::Active,
            wanted_at: 1,
            key_digest: [2; 32],
            joined_at_ms: 0,
        };
        let accepts = accepts
            .iter()
            .map(|(id, port)| ((*id).to_owned(), vec![(*port).to_owned()]));
        let features = features.iter().map(|it| (*it).to_owned()).collect();
        let checks = towards(&far, &accepts.collect(), &features).unwrap();
        let row = |it: &Check| format!("{} {}", it.id, it.place());
        checks.iter().map(row).collect()
    }

    #[test]
    fn the_rows_of_the_contract_that_apply_are_tried() {
        let control = "node_control 192.0.2.2 7001/tcp";
        let echo = "healthcheck.icmp 192.0.2.2 icmp";
        assert_eq!(rows(&[], &[]), [control, echo]);
        let told = [
            ("node_control", "7777/tcp"),
            ("rate_limit", "9100/tcp"),
            ("database", "27017/tcp"),
            ("webtask.logs", "8721/tcp"),
            ("webtask.control", "8701/tcp"),
            // A door for administrators, which nodes need only where maintenance is chosen.
            ("maintenance", "22/tcp"),
            // From a newer build, and nothing between nodes.
            ("unheard_of", "1/tcp"),
            ("healthcheck", "9110/tcp"),
        ];
        let all = [
            "database 192.0.2.2 27017/tcp",
            control,
            "rate_limit 192.0.2.2 9100/tcp",
            "webtask.logs 192.0.2.2 8721/tcp",
            "webtask.control 192.0.2.2 8701/tcp",
            echo,
        ];
        assert_eq!(rows(&told, &[]), all);
        let chosen = rows(
            &told[..1],
            &["maintenance", "rate_limit", "appliance", "deck"],
        );
        assert_eq!(
            chosen,
            [
                control,
                "rate_limit 192.0.2.2 9001/tcp",
                "maintenance 192.0.2.2 22/tcp",
                echo
            ]
        );
    }
}
