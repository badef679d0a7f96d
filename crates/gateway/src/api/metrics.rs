//! What every gateway tells Prometheus, with the metric names of Kong's plugin.
//!
//! Metrics of services and routes are fed by the plugin through [`Metrics`]. Source: data-plane
//! reference 7.18; what only nginx and Lua have (timers, other shared dictionaries) is left out.
//!
//! [`Metrics`]: sallyport_plugins::metrics::Metrics

use std::sync::atomic::{AtomicU64, Ordering};

use sallyport_plugins::metrics::{Exposition, Family, Kind};

use super::Node;
use crate::balancer::{Health, Upstreams};
use crate::proxy::Shared;
use crate::telemetry::Counters;

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family {
        name,
        help,
        kind: Kind::Gauge,
        labels,
    }
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        help,
        kind: Kind::Counter,
        labels: &[],
    }
}

static CONNECTIONS: Family = gauge(
    "kong_nginx_connections_total",
    "Number of connections by subsystem",
    &["node_id", "subsystem", "state"],
);
static REQUESTS: Family = gauge(
    "kong_nginx_requests_total",
    "Total number of requests",
    &["node_id", "subsystem"],
);
static MEMORY: Family = gauge(
    "kong_memory_workers_lua_vms_bytes",
    "Resident bytes of the gateway's process",
    &["node_id", "pid", "kong_subsystem"],
);
static DICTIONARY: Family = gauge(
    "kong_memory_lua_shared_dict_bytes",
    "Bytes that proxy-cache keeps",
    &["node_id", "shared_dict", "kong_subsystem"],
);
static DICTIONARY_TOTAL: Family = gauge(
    "kong_memory_lua_shared_dict_total_bytes",
    "Most bytes that proxy-cache may keep",
    &["node_id", "shared_dict", "kong_subsystem"],
);
static NODE: Family = gauge(
    "kong_node_info",
    "Kong Node metadata information",
    &["node_id", "version"],
);
static DATASTORE: Family = gauge(
    "kong_datastore_reachable",
    "Datastore reachable from Kong, 0 is unreachable",
    &[],
);
static CONNECTED: Family = gauge(
    "kong_control_plane_connected",
    "Kong connected to control plane, 0 is unconnected",
    &[],
);
static SYNC_APPLIED: Family = counter(
    "sallyport_config_sync_applied_total",
    "Configurations and sets of changes put in force",
);
static SYNC_RESYNCS: Family = counter(
    "sallyport_config_sync_resyncs_total",
    "Whole configurations asked for because what was there had not the hash that was published",
);
static SYNC_REBUILDS: Family = counter(
    "sallyport_config_sync_rebuilds_total",
    "Sets of changes that took making the whole configuration anew",
);
static SYNC_REFUSED: Family = gauge(
    "sallyport_config_sync_refused",
    "Entities of the newest configuration that are not served as published",
    &[],
);
static TARGET_HEALTH: Family = gauge(
    "kong_upstream_target_health",
    "Health status of targets of upstream. States = healthchecks_off|healthy|unhealthy|dns_error, value is 1 when state is populated.",
    &["upstream", "target", "address", "state", "subsystem"],
);
static LOG_LINES_DROPPED: Family = Family {
    name: "sallyport_log_lines_dropped_total",
    help: "Lines of access logs that a disk could not take",
    kind: Kind::Counter,
    labels: &[],
};
static LOG_ENTRIES_LOST: Family = Family {
    name: "sallyport_log_queue_lost_total",
    help: "Entries of log plugins that no sink got",
    kind: Kind::Counter,
    labels: &["plugin", "reason"],
};
static LOG_ENTRIES_WAITING: Family = gauge(
    "sallyport_log_queue_entries",
    "Entries of log plugins that wait for their sink",
    &["plugin"],
);
static NODES_CONNECTED: Family = gauge(
    "sallyport_rate_limit_connected",
    "Whether a node that counts rate limits is connected",
    &[],
);
static WITHOUT_NODES: Family = counter(
    "sallyport_rate_limit_without_nodes_total",
    "Requests whose rate limit was decided without the nodes that count",
);
static ROUTES: Family = gauge(
    "sallyport_routes",
    "Routes of the configuration in force",
    &[],
);

static TELEMETRY_CONNECTED: Family = gauge(
    "sallyport_telemetry_connected",
    "Whether the control plane took the last batch of telemetry",
    &[],
);
static TELEMETRY_BATCHES: Family = counter(
    "sallyport_telemetry_batches_total",
    "Batches of telemetry that the control plane took",
);
static TELEMETRY_WAITING: Family = gauge(
    "sallyport_telemetry_waiting_records",
    "Records of telemetry that wait to be taken",
    &[],
);
static TELEMETRY_DROPPED_RECORDS: Family = counter(
    "sallyport_telemetry_dropped_records_total",
    "Records of telemetry that were given up",
);
static TELEMETRY_DROPPED_REQUESTS: Family = counter(
    "sallyport_telemetry_dropped_requests_total",
    "Requests that no telemetry tells of, as their records were given up",
);

/// Client connections now.
pub(super) struct Connections {
    pub(super) active: u64,
    /// Those with a request under way, as far as one connection carries one.
    pub(super) writing: u64,
    pub(super) waiting: u64,
}

pub(super) fn connections(shared: &Shared) -> Connections {
    let active = shared.open.load(Ordering::Relaxed);
    let under_way = shared.under_way.load(Ordering::Relaxed);
    let writing = u64::try_from(under_way).unwrap_or(0).min(active);
    Connections {
        active,
        writing,
        waiting: active - writing,
    }
}

/// The whole exposition.
pub(super) fn text(node: &Node) -> String {
    let mut out = Exposition::default();
    let shared = &node.shared;
    let id = node.id.to_string();
    let accepted = shared.accepted.load(Ordering::Relaxed);
    let requests = shared.requests.load(Ordering::Relaxed);
    let now = connections(shared);
    for (state, count) in [
        ("accepted", accepted),
        ("active", now.active),
        ("handled", accepted),
        ("reading", 0),
        ("total", requests),
        ("waiting", now.waiting),
        ("writing", now.writing),
    ] {
        out.value(&CONNECTIONS, &[&id, "http", state], count as f64);
    }
    out.value(&REQUESTS, &[&id, "http"], requests as f64);
    out.value(&DATASTORE, &[], 1.0);
    if let Some(link) = &node.link {
        let connected = link.borrow().is_connected();
        out.value(&CONNECTED, &[], f64::from(u8::from(connected)));
    }
    if let Some(sync) = &node.sync {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        out.value(&SYNC_APPLIED, &[], count(&sync.applied));
        out.value(&SYNC_RESYNCS, &[], count(&sync.resyncs));
        out.value(&SYNC_REBUILDS, &[], count(&sync.rebuilds));
        out.value(&SYNC_REFUSED, &[], count(&sync.refused));
    }
    out.value(&NODE, &[&id, &node.version], 1.0);
    let process = std::process::id().to_string();
    out.value(&MEMORY, &[&id, &process, "http"], resident_bytes() as f64);
    let (cache, dictionary) = (&shared.node.cache, [&id[..], "kong_db_cache", "http"]);
    out.value(&DICTIONARY, &dictionary, cache.bytes() as f64);
    out.value(&DICTIONARY_TOTAL, &dictionary, cache.bytes_max() as f64);
    target_health(&mut out, shared);
    out.value(&ROUTES, &[], shared.configuration().routes() as f64);
    out.value(&LOG_LINES_DROPPED, &[], node.logs.dropped() as f64);
    if let Some(counters) = &node.telemetry {
        telemetry(&mut out, counters);
    }
    if let Some(nodes) = &node.nodes {
        let connected = nodes.connected.load(Ordering::Relaxed);
        out.value(&NODES_CONNECTED, &[], f64::from(u8::from(connected)));
        let without = nodes.without.load(Ordering::Relaxed);
        out.value(&WITHOUT_NODES, &[], without as f64);
    }
    for (plugin, loss, count) in node.log_queues.lost() {
        out.value(&LOG_ENTRIES_LOST, &[plugin, loss.as_str()], count as f64);
    }
    for (plugin, waiting) in node.log_queues.waiting() {
        out.value(&LOG_ENTRIES_WAITING, &[plugin], waiting as f64);
    }
    shared.metrics.write(&mut out);
    out.into_text()
}

fn telemetry(out: &mut Exposition, counters: &Counters) {
    let value = |of: &AtomicU64| of.load(Ordering::Relaxed) as f64;
    let connected = counters.connected.load(Ordering::Relaxed);
    out.value(&TELEMETRY_CONNECTED, &[], f64::from(u8::from(connected)));
    out.value(&TELEMETRY_BATCHES, &[], value(&counters.sent));
    out.value(&TELEMETRY_WAITING, &[], value(&counters.waiting));
    out.value(
        &TELEMETRY_DROPPED_RECORDS,
        &[],
        value(&counters.dropped_records),
    );
    out.value(
        &TELEMETRY_DROPPED_REQUESTS,
        &[],
        value(&counters.dropped_requests),
    );
}

/// One line for each address of a target, or for a target without any, and each state.
fn target_health(out: &mut Exposition, shared: &Shared) {
    const STATES: [Health; 4] = [
        Health::HealthchecksOff,
        Health::Healthy,
        Health::Unhealthy,
        Health::DnsError,
    ];
    for upstream in Upstreams(shared.balancers.clone()).health() {
        for target in &upstream.targets {
            let known = target
                .addresses
                .iter()
                .map(|address| (address.address.to_string(), address.health));
            let none = target.addresses.is_empty();
            let none = none.then(|| (String::new(), target.health));
            for (address, health) in known.chain(none) {
                for state in STATES {
                    let word = state.as_str().to_ascii_lowercase();
                    let labels = [&upstream.name[..], &target.target, &address, &word, "http"];
                    let value = f64::from(u8::from(health == state));
                    out.value(&TARGET_HEALTH, &labels, value);
                }
            }
        }
    }
}

/// Memory of this process; 0 where the system does not tell.
pub(super) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}
