//! `sallyport node describe`: the running cluster as a description of the installation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use sallyport_appliance::node::{Settings, Status};
use sallyport_contract::{Entry, Port, Role};
use serde_json::Value;

pub(super) fn run(settings: &Settings) -> anyhow::Result<()> {
    let status: Status = serde_json::from_value(super::get(settings, "/status")?)?;
    let planes = super::get(settings, "/control-planes")?;
    crate::commands::print(text(settings, &status, &planes).trim_end())
}

/// The description, in TOML.
fn text(settings: &Settings, status: &Status, planes: &Value) -> String {
    let planes = planes.as_array().cloned().unwrap_or_default();
    let ingress = planes.iter().any(|it| it["ingress_controller"] == true);
    let mut known = Known::of(settings);
    let mut roles = vec![Role::Gateway];
    if ingress {
        known.features.insert("kic");
        roles.push(Role::IngressController);
    }
    let geo = &settings.control_planes.geo;
    let mut out = format!(
        "# The installation as node {} knows it. Beside this, say who else there is: `peers` of operator,\n\
         # monitor and dns, `nodes` that are gateways (docs/network_contract.md).\n\
         base = {:?}\ngeos = [{geo:?}]\nfeatures = {:?}\nroles = {:?}\n",
        status.node,
        settings.control_planes.base_domain,
        known.features.iter().collect::<Vec<_>>(),
        roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(),
    );
    for plane in &planes {
        let prefix = plane["prefix"].as_str().unwrap_or_default();
        _ = write!(
            out,
            "\n[[control_planes]]\nprefix = {prefix:?}\ngeo = {geo:?}\n"
        );
    }
    for node in status.nodes.iter().filter(|it| it.wanted != "removed") {
        let roles = match node.role.as_str() {
            "witness" => vec![Role::Appliance],
            _ => vec![Role::Appliance, Role::ControlPlane],
        };
        let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let address = node.address.parse::<SocketAddr>().ok();
        // A node that is alone has no address that others know.
        let single = address.filter(|it| !it.ip().is_unspecified());
        let addresses: Vec<String> = single.iter().map(|it| it.ip().to_string()).collect();
        _ = write!(
            out,
            "\n[[nodes]]\nname = {:?}\nroles = {roles:?}\naddresses = {addresses:?}\n",
            node.name
        );
    }
    for (section, values) in [
        ("ports", &known.ports),
        ("hosts", &known.hosts),
        ("peers", &known.peers),
    ] {
        if !values.is_empty() {
            _ = write!(out, "\n[{section}]\n");
            for (id, values) in values {
                _ = writeln!(out, "{id:?} = {values:?}");
            }
        }
    }
    out
}

/// What the settings say about rows of the contract.
#[derive(Default)]
struct Known {
    features: BTreeSet<&'static str>,
    ports: BTreeMap<String, Vec<String>>,
    hosts: BTreeMap<String, Vec<String>>,
    peers: BTreeMap<String, Vec<String>>,
}

impl Known {
    fn of(settings: &Settings) -> Known {
        let mut it = Known::default();
        it.features.extend(["deck", "ip_addresses", "ping"]);
        let listen = settings.control_planes.listen.port();
        let usual = sallyport_contract::entry("config_sync");
        let shared = |entry: &&Entry| {
            entry.to.contains(&Role::ControlPlane)
                && entry.ports == usual.ports
                && !entry.hosts.is_empty()
        };
        for entry in sallyport_contract::catalogue()
            .entries
            .iter()
            .filter(shared)
        {
            it.moved(entry, listen);
        }
        let own = |id| sallyport_contract::entry(id);
        let control = settings
            .node_control
            .advertise
            .unwrap_or(settings.node_control.listen);
        it.moved(own("node_control"), control.port());
        if let Some(health) = &settings.healthcheck {
            it.features.insert("monitoring");
            it.moved(own("healthcheck"), health.listen.port());
            if let Some((host, port)) = &health.smtp {
                it.features.insert("smtp");
                it.far_end("smtp", host, *port);
            }
            if let Some((host, port)) = health.internet.as_deref().and_then(of_url) {
                it.features.insert("internet_probe");
                it.far_end("healthcheck.internet", &host, port);
            }
        }
        if let Some(limit) = &settings.rate_limit {
            it.features.insert("rate_limit");
            if let Some(listen) = limit.listen {
                it.moved(own("rate_limit"), listen.port());
            }
        }
        if let Some(listen) = settings.appliance_cli {
            it.features.insert("appliance_cli");
            it.moved(own("appliance_cli"), listen.port());
        }
        if settings.control_planes.audit_log.is_some() {
            it.features.extend(["audit_log", "audit_delivery"]);
        }
        if settings.control_planes.telemetry.is_some() {
            it.features.insert("telemetry_export");
        }
        if let Some(database) = &settings.database {
            it.features.insert("database");
            for (host, port) in of_database(&database.url) {
                it.far_end("database.external", &host, port);
            }
        }
        it
    }

    /// Notes a port that is not the contract's.
    fn moved(&mut self, entry: &Entry, port: u16) {
        let Ok(port) = Port::try_from(port) else {
            return;
        };
        if !entry.ports.iter().any(|it| it.port == port) {
            let text = format!("{}/tcp", port.get());
            self.ports.insert(entry.id.to_string(), vec![text]);
        }
    }

    /// Notes where the far end of a row is.
    fn far_end(&mut self, id: &str, host: &str, port: u16) {
        self.moved(sallyport_contract::entry(id), port);
        let into = match host.parse::<IpAddr>() {
            Ok(_) => &mut self.peers,
            Err(_) => &mut self.hosts,
        };
        into.entry(id.to_owned())
            .or_default()
            .push(host.to_ascii_lowercase());
    }
}

/// Host and port of an http or https URL.
fn of_url(url: &str) -> Option<(String, u16)> {
    let uri: http::Uri = url.parse().ok()?;
    let port = match uri.scheme_str() {
        Some("http") => 80,
        _ => 443,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), uri.port_u16().unwrap_or(port)))
}

/// Hosts and ports of a PostgreSQL URL, which may name several; sockets are left out.
fn of_database(url: &str) -> Vec<(String, u16)> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    let host = |text: &str| {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().ok()?)
            }
            _ => (text, 5432),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty() && !host.contains('%')).then(|| (host.to_owned(), port))
    };
    hosts.split(',').filter_map(host).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sallyport_contract::{Filter, Installation, catalogue, installation_rows};
    use serde_json::json;

    use super::*;

    fn status() -> Status {
        let node = |name: &str, role: &str, at: u8| {
            json!({"name": name, "id": "00000000-0000-0000-0000-000000000000", "role": role,
                   "address": format!("192.0.2.{at}:7777"), "live": true, "leader": false,
                   "wanted": "active", "state": null, "serving": null, "version": null})
        };
        serde_json::from_value(json!({
            "cluster": "00000000-0000-0000-0000-000000000000", "node": "n1", "revision": 1,
            "leader": null, "epoch": 0, "majority": true, "database": true,
            "nodes": [node("n1", "data", 1), node("n2", "data", 2), node("w1", "witness", 3)],
        }))
        .unwrap()
    }

    fn rows(file: &str, planes: Value) -> BTreeMap<String, String> {
        let settings = Settings::parse(Path::new("node.toml"), file, "n1").unwrap();
        let text = text(&settings, &status(), &planes);
        let installation = Installation::parse(&text).unwrap_or_else(|it| panic!("{it}\n{text}"));
        let rows = installation_rows(catalogue(), &installation, &Filter::default());
        let rows = rows.unwrap_or_else(|it| panic!("{it}\n{text}"));
        rows.iter()
            .map(|row| {
                let ports = sallyport_contract::render::ports(&row.flows);
                (
                    row.entry.id.to_string(),
                    format!("{ports} {}", row.hosts.join(" ")),
                )
            })
            .collect()
    }

    #[test]
    fn a_description_has_the_rows_of_the_settings() {
        let none = rows("[database]\nurl = \"postgres:///x?host=%2Frun\"", json!([]));
        for id in [
            "rate_limit",
            "smtp",
            "healthcheck",
            "kic",
            "database",
            "appliance_cli",
        ] {
            assert!(!none.contains_key(id), "{id} in {none:?}");
        }
        for id in [
            "node_control",
            "healthcheck.icmp",
            "database.external",
            "identity",
        ] {
            assert!(none.contains_key(id), "{id} not in {none:?}");
        }
        let all = rows(
            "[database]\nurl = \"postgres://u:p%40@DB1.example:6543,192.0.2.9:6543/x?sslmode=require\"\n\
             [control_planes]\nlisten = \"0.0.0.0:8443\"\nbase_domain = \"sally.example\"\ngeo = \"eu\"\n\
             [node_control]\nadvertise = \"192.0.2.1:7001\"\n\
             [healthcheck]\nlisten = \"0.0.0.0:9111\"\nsmtp = \"mail.example:25\"\n\
             internet = \"https://www.example.com/\"\n\
             [rate_limit]\nconf = \"b.yml\"\nlisten = \"0.0.0.0:9100\"\n[appliance_cli]\n",
            json!([{"prefix": "0123456789", "ingress_controller": true}]),
        );
        for (id, row) in [
            ("config_sync", "8443/tcp 0123456789.eu.cp0.sally.example"),
            ("kic", "8443/tcp eu.kic.api.sally.example"),
            ("node_control", "7001/tcp "),
            ("healthcheck", "9111/tcp "),
            ("smtp", "25/tcp mail.example"),
            ("healthcheck.internet", "443/tcp www.example.com"),
            ("rate_limit", "9100/tcp "),
            ("appliance_cli", "10121/tcp "),
            ("database.external", "6543/tcp db1.example"),
        ] {
            assert_eq!(
                all.get(id).map(String::as_str),
                Some(row),
                "{id} in {all:#?}"
            );
        }
    }
}
