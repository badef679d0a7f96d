//! What the node says about itself.

use std::collections::BTreeSet;

use sallyport_model::Kind;
use sallyport_model::schema::PluginSchemas as _;
use serde_json::{Map, Value, json};

use super::super::Node;

/// `GET /`, in Kong's shape.
pub(super) fn root(node: &Node) -> Value {
    let names = node.enabled.names();
    let available: Map<String, Value> = names
        .iter()
        .filter_map(|name| sallyport_plugins::by_name(name))
        .map(|plugin| {
            let about = json!({"version": node.version, "priority": plugin.priority()});
            (plugin.name().to_owned(), about)
        })
        .collect();
    let configuration = node.shared.configuration();
    let in_cluster: BTreeSet<String> = configuration
        .entities
        .all(Kind::Plugin)
        .iter()
        .filter_map(|entry| serde_json::from_str::<Value>(entry.raw.get()).ok())
        .filter_map(|plugin| plugin["name"].as_str().map(str::to_owned))
        .collect();
    let process = std::process::id();
    json!({
        "tagline": "Sallyport gateway",
        "version": node.version,
        "edition": "community",
        "hostname": node.hostname,
        "node_id": node.id,
        "timers": {"running": 0, "pending": 0},
        "plugins": {"available_on_server": available, "enabled_in_cluster": in_cluster},
        "lua_version": "none",
        "configuration": node.settings,
        "pids": {"master": process, "workers": [process]},
    })
}

/// `GET /plugins/enabled`.
pub(super) fn enabled_plugins(node: &Node) -> Value {
    let mut names = node.enabled.names();
    names.sort_unstable();
    json!({"enabled_plugins": names})
}

/// `GET /endpoints`.
pub(super) fn endpoints() -> Value {
    let mut paths: Vec<String> = [
        "/",
        "/config",
        "/endpoints",
        "/metrics",
        "/plugins/enabled",
        "/schemas/plugins/{name}",
        "/schemas/{name}",
        "/schemas/{name}/validate",
        "/status",
        "/tags",
        "/tags/{tags}",
        "/upstreams/{upstreams}/health",
        "/upstreams/{upstreams}/targets",
        "/upstreams/{upstreams}/targets/all",
    ]
    .map(str::to_owned)
    .into();
    for kind in Kind::ALL {
        let name = kind.collection();
        paths.push(format!("/{name}"));
        paths.push(format!("/{name}/{{{name}}}"));
    }
    paths.sort_unstable();
    json!({"data": paths, "next": null})
}
