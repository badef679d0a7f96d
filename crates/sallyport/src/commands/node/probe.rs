//! What a node tries towards the others when the doctor asks it.

use std::net::SocketAddr;
use std::time::Duration;

use sallyport_appliance::node::State;
use sallyport_contract::{Flow, Owner, Port, PortUse, Transport};
use sallyport_doctor::{Check, Options, Talk, Target, Then, report};
use sallyport_runtime::tls::{ServerTrust, trust_store};
use sallyport_wire::node_control::name_of;
use serde_json::{Value, json};

/// Limit of each step.
const LIMIT: Duration = Duration::from_secs(3);
/// Checks at once.
const AT_ONCE: usize = 32;

/// Tries the control port and an echo of every other node; the doctor's JSON.
pub(super) async fn probe(state: &State) -> anyhow::Result<Value> {
    let mut checks = Vec::new();
    for member in state.members() {
        if member.id == state.identity.id {
            continue;
        }
        let address: SocketAddr = member.address.parse()?;
        let check = |id: &str, flow, talk| Check {
            id: id.to_owned(),
            title: sallyport_contract::entry(id).title.clone(),
            owner: Owner::Installation,
            far: format!("node {}", member.name),
            flow,
            target: Target::Address(address.ip()),
            expected: Vec::new(),
            issuer_known: true,
            server_name: Some(name_of(&member.id.to_string())),
            talk,
            via: None,
        };
        let port = PortUse {
            port: Port::try_from(address.port())?,
            transport: Transport::Tcp,
        };
        let secure = Talk::Tls {
            mutual: true,
            then: Then::Nothing,
        };
        checks.push(check("node_control", Flow::Port(port), secure));
        checks.push(check("healthcheck.icmp", Flow::IcmpEcho, Talk::Echo));
    }
    // The doctor names far ends by their addresses, people know nodes by their names.
    let names: Vec<(String, String)> = checks
        .iter()
        .map(|it| (it.target.to_string(), it.far.clone()))
        .collect();
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
    for row in told["rows"].as_array_mut().into_iter().flatten() {
        let name = names
            .iter()
            .find(|(target, _)| row["target"] == target.as_str());
        if let Some((_, far)) = name {
            row["node"] = json!(far.trim_start_matches("node "));
        }
    }
    Ok(told)
}
