//! Prometheus' text format.

use std::fmt::Write;

use sallyport_store::NodeRole;

use super::checks::{Check, Verdict};
use super::machine::Memory;
use crate::node::State;

/// The metrics of a node; `checks` are the answers that are at hand.
pub(super) fn text(state: &State, checks: &[(Check, Verdict)]) -> String {
    let mut out = String::new();
    let mut gauge = |name: &str, help: &str, lines: &[(String, u64)]| {
        let name = format!("sallyport_healthcheck_{name}");
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (labels, value) in lines {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let plain = |value: u64| vec![(String::new(), value)];
    gauge(
        "serving",
        "Whether /testall answers OK.",
        &plain(u64::from(state.serving().0)),
    );
    let checked: Vec<(String, u64)> = checks
        .iter()
        .map(|(check, verdict)| {
            let labels = format!("{{check=\"{}\"}}", check.as_str());
            (labels, u64::from(*verdict != Verdict::Failed))
        })
        .collect();
    gauge(
        "check",
        "Whether a check is well; those that are not configured are.",
        &checked,
    );
    let live = state.live();
    let members = state.members();
    let there: Vec<(String, u64)> = members
        .iter()
        .map(|it| {
            let labels = format!("{{node=\"{}\",role=\"{}\"}}", it.name, it.role);
            (labels, u64::from(live.contains_key(&it.id)))
        })
        .collect();
    gauge(
        "node_live",
        "Whether a node of the cluster is there.",
        &there,
    );
    let lease = state.lease();
    gauge(
        "leader",
        "Whether this node leads.",
        &plain(u64::from(lease.mine().is_some())),
    );
    gauge("epoch", "Epoch of the leader.", &plain(lease.epoch));
    let data = members
        .iter()
        .filter(|it| it.role == NodeRole::Data)
        .count();
    gauge(
        "data_nodes",
        "Data nodes of the cluster.",
        &plain(u64::try_from(data).unwrap_or(0)),
    );
    if let Some(memory) = Memory::now() {
        gauge(
            "memory_available_bytes",
            "Memory available.",
            &plain(memory.available * 1024),
        );
    }
    if let Some(percent) = state.vitals.borrow().cpu_percent {
        gauge(
            "cpu_busy_percent",
            "Share of the last minute that processors were busy.",
            &plain(percent),
        );
    }
    out
}
