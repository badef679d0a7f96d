//! The rows of the two seed documents, compared one by one with the catalogues.

use sallyport_contract::{
    Catalogue, Direction, Entry, Names, Role, Tls, catalogue, hosted_control_plane,
    original_appliance, rows,
};

fn get<'a>(catalogue: &'a Catalogue, id: &str) -> &'a Entry {
    catalogue
        .entry(id)
        .unwrap_or_else(|| panic!("{} has no entry {id}", catalogue.name))
}

fn flows(entry: &Entry) -> String {
    entry
        .flows()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

use Direction::{Both, Inbound, Outbound};

/// id, port, direction seen from a node, required, use, note (a part of it).
const APPLIANCE: &[(&str, &str, Direction, bool, &str, &str)] = &[
    // Between cluster nodes
    ("database", "27017/tcp", Both, true, "Database", ""),
    ("node_control", "7777/tcp", Both, true, "Control", ""),
    (
        "rate_limit",
        "9001/tcp",
        Both,
        true,
        "Rate Limiting",
        "Required if rate limiting is used",
    ),
    (
        "webtask.logs",
        "8721/tcp",
        Both,
        true,
        "Webtask Logging/Control",
        "Required for logging and debugging",
    ),
    (
        "webtask.control",
        "8701/tcp",
        Both,
        true,
        "Webtask Logging/Control",
        "Required for logging and debugging",
    ),
    (
        "maintenance",
        "22/tcp",
        Both,
        false,
        "Maintenance",
        "Enables maintenance tasks to be done between nodes",
    ),
    (
        "healthcheck.icmp",
        "icmp",
        Both,
        false,
        "Healthcheck",
        "Allows healthchecks between nodes",
    ),
    // External connectivity
    (
        "appliance_cli",
        "10121/tcp",
        Inbound,
        false,
        "Command Line Interface",
        "Allows use of the Appliance Command Line Interface",
    ),
    (
        "updates.packages",
        "80/tcp 443/tcp",
        Outbound,
        true,
        "Updates",
        "Provides update packages for Appliance instances",
    ),
    (
        "updates.images",
        "5000/tcp 443/tcp",
        Outbound,
        true,
        "Updates",
        "Provides updates for Appliance Docker packages",
    ),
    (
        "updates.extensions",
        "443/tcp",
        Outbound,
        true,
        "Updates",
        "Required to run web extensions; provides update packages for instances running versions 6868 or earlier",
    ),
    (
        "examples",
        "443/tcp",
        Outbound,
        false,
        "GitHub",
        "Source to download and repackage example applications",
    ),
    (
        "usage",
        "443/tcp",
        Outbound,
        true,
        "Usage & Telemetry",
        "Provides usage and telemetry statistics",
    ),
    (
        "maintenance.jump_host",
        "22/tcp",
        Inbound,
        false,
        "Maintenance",
        "Allows access to Appliance instances for support purposes",
    ),
    (
        "healthcheck",
        "9110/tcp",
        Inbound,
        false,
        "Healthcheck",
        "Allows access to healthcheck endpoints",
    ),
];

/// id, DNS name, address; or the far end in words.
const APPLIANCE_PEERS: &[(&str, &[&str], &[&str], &str)] = &[
    (
        "appliance_cli",
        &[],
        &[],
        "CLI clients, often on the internal network",
    ),
    (
        "updates.packages",
        &["apt-mirror.it.auth0.com"],
        &["52.8.153.197"],
        "",
    ),
    (
        "updates.images",
        &["docker.it.auth0.com"],
        &["52.9.124.234"],
        "",
    ),
    ("updates.extensions", &["cdn.auth0.com"], &[], ""),
    ("examples", &["github.com"], &[], ""),
    (
        "usage",
        &["app-gateway.it.auth0.com"],
        &["52.40.103.203"],
        "",
    ),
    ("maintenance.jump_host", &[], &[], "jump host"),
    ("healthcheck", &[], &[], "monitoring endpoint"),
];

#[test]
fn the_appliance_page_row_by_row() {
    for &(id, ports, direction, required, title, note) in APPLIANCE {
        let row = get(original_appliance(), id);
        assert_eq!(flows(row), ports, "{id}");
        assert_eq!(row.direction(Role::Appliance), Some(direction), "{id}");
        assert_eq!(row.required, required, "{id}");
        assert_eq!(row.title, title, "{id}");
        assert!(row.why.contains(note), "{id}: {:?} lacks {note:?}", row.why);
        // The product offers the same row. One promise differs on purpose: nothing is sent to
        // anyone by default, so usage statistics are not required here.
        let own = get(catalogue(), id);
        assert_eq!(flows(own), ports, "own {id}");
        assert_eq!(own.direction(Role::Appliance), Some(direction), "own {id}");
        assert_eq!(own.required, required && id != "usage", "own {id}");
    }
    for &(id, hosts, addresses, peer) in APPLIANCE_PEERS {
        let row = get(original_appliance(), id);
        let text = |items: Vec<String>| items.join(" ");
        assert_eq!(
            text(row.hosts.iter().map(ToString::to_string).collect()),
            hosts.join(" ")
        );
        assert_eq!(
            text(row.addresses.iter().map(ToString::to_string).collect()),
            addresses.join(" ")
        );
        assert!(
            row.peer.as_deref().unwrap_or_default().contains(peer),
            "{id}"
        );
    }
    // The page's notes: social providers.
    for catalogue in [catalogue(), original_appliance()] {
        let row = get(catalogue, "login_providers");
        assert_eq!(row.direction(Role::Appliance), Some(Outbound));
    }
    // Rows that later revisions of the page, or other pages, have.
    for (id, ports, direction) in [
        ("user_search", "9200,9300-9400/tcp", Both),
        ("instrumentation", "3000/tcp", Both),
        ("user_traffic", "80,443,4443/tcp", Inbound),
        ("webtask_callback", "443/tcp", Outbound),
        ("dns", "53/udp+tcp", Outbound),
        ("smtp", "25,465,587/tcp", Outbound),
        ("ntp", "123/udp", Outbound),
    ] {
        let row = get(original_appliance(), id);
        assert_eq!(
            sallyport_contract::render::ports(&row.flows()),
            ports,
            "{id}"
        );
        assert_eq!(row.direction(Role::Appliance), Some(direction), "{id}");
        let foreign = |source: &String| !source.starts_with("appliance page");
        assert!(row.source.iter().all(foreign), "{id}");
    }
    assert_eq!(
        original_appliance().entries.len(),
        APPLIANCE.len() + 1 + 7,
        "a row not on the page"
    );
}

/// id, ports, role that listens, TLS, protocol.
const HOSTED_PORTS: &[(&str, &str, Role, Tls)] = &[
    // Control plane ports: 443 (TCP, HTTPS, mTLS) carries configuration and telemetry
    ("config_sync", "443/tcp", Role::ControlPlane, Tls::Mtls),
    ("telemetry", "443/tcp", Role::ControlPlane, Tls::Mtls),
    (
        "audit_log",
        "8071/tcp 8071/udp",
        Role::ControlPlane,
        Tls::Optional,
    ),
    // Data plane node ports
    ("proxy.http", "8000/tcp", Role::Gateway, Tls::None),
    ("proxy.https", "8443/tcp", Role::Gateway, Tls::Tls),
];

#[test]
fn the_ports_of_the_hosted_page() {
    for catalogue in [catalogue(), hosted_control_plane()] {
        for &(id, ports, listens, tls) in HOSTED_PORTS {
            let row = get(catalogue, id);
            assert_eq!(flows(row), ports, "{} {id}", catalogue.name);
            assert_eq!(
                row.direction(listens),
                Some(Inbound),
                "{} {id}",
                catalogue.name
            );
            assert_eq!(row.tls, tls, "{} {id}", catalogue.name);
        }
        // "can't be customized" on the control plane, "can be fully customized" on the data plane
        assert_eq!(get(catalogue, "audit_log").setting, None);
        assert_eq!(
            get(catalogue, "proxy.http").setting.as_deref(),
            Some("proxy_listen")
        );
        assert_eq!(
            get(catalogue, "proxy.https").setting.as_deref(),
            Some("proxy_listen")
        );
        // "you can use an existing proxy in your network"
        assert_eq!(
            get(catalogue, "forward_proxy").direction(Role::Gateway),
            Some(Outbound)
        );
    }
}

const GEOS: &[&str] = &["au", "eu", "in", "me", "us"];

/// id, host, in the KIC section too. The port of all of them is 443.
const HOSTED_NAMES: &[(&str, &str, bool)] = &[
    ("console", "cloud.konghq.com", true),
    ("identity", "global.api.konghq.com", true),
    ("control_planes", "GEO.api.konghq.com", true),
    ("dev_portal", "PORTAL_ID.GEO.portal.konghq.com", true),
    (
        "config_sync",
        "CONTROL_PLANE_DNS_PREFIX.GEO.cp0.konghq.com",
        true,
    ),
    (
        "telemetry",
        "CONTROL_PLANE_DNS_PREFIX.GEO.tp0.konghq.com",
        true,
    ),
    ("ip_addresses", "ip-addresses.origin.konghq.com", false),
];

#[test]
fn every_geo_and_host_name_of_the_hosted_page() {
    for &geo in GEOS {
        let names = |base| Names {
            base,
            geo: Some(geo),
            prefix: Some("control_plane_dns_prefix"),
            portal: Some("portal_id"),
        };
        for &(id, host, kic) in HOSTED_NAMES {
            let host = host.replace("GEO", geo);
            let lower = host.to_lowercase();
            let hosted = get(hosted_control_plane(), id);
            assert_eq!(
                hosted.hosts[0].render(&names("konghq.com")),
                Ok(lower.clone())
            );
            assert_eq!(flows(hosted), "443/tcp", "{id}");
            assert_eq!(hosted.direction(Role::Gateway), Some(Outbound), "{id}");
            if kic {
                assert_eq!(
                    hosted.direction(Role::IngressController),
                    Some(Outbound),
                    "{id}"
                );
            }
            // and back again, as the page writes it
            let found = hosted_control_plane()
                .match_host("konghq.com", &host)
                .expect("on the page");
            assert_eq!(found.entry.id, *id, "{host}");
            let with_geo = hosted.hosts[0].has_geo();
            assert_eq!(found.geo.as_deref(), with_geo.then_some(geo), "{host}");
            // the product has the same name on its own base domain
            let own = get(catalogue(), id);
            let want = lower.replace("konghq.com", "sallyport.example");
            assert_eq!(own.hosts[0].render(&names("sallyport.example")), Ok(want));
            assert_eq!(flows(own), "443/tcp", "{id}");
            assert_eq!(own.direction(Role::ControlPlane), Some(Inbound), "{id}");
        }
    }
}

#[test]
fn the_mesh_names_of_the_hosted_page() {
    for (catalogue, base) in [
        (hosted_control_plane(), "konghq.com"),
        (catalogue(), "a.example"),
    ] {
        for (geo, known) in [
            ("au", true),
            ("eu", true),
            ("us", true),
            ("global", true),
            ("in", false),
            ("me", false),
        ] {
            let host = format!("{geo}.mesh.sync.{base}");
            let found = catalogue.match_host(base, &host);
            assert_eq!(
                found.is_some_and(|found| found.entry.id == "mesh_sync"),
                known,
                "{host}"
            );
        }
        let row = get(catalogue, "mesh_sync");
        assert_eq!(flows(row), "443/tcp");
        assert_eq!(row.direction(Role::MeshZone), Some(Outbound));
    }
}

#[test]
fn the_data_plane_settings_shown_on_the_hosted_page() {
    // cluster_control_plane = example.us.cp0.konghq.com:443 and the like
    for (host, id) in [
        ("example.us.cp0.konghq.com", "config_sync"),
        ("example.us.tp0.konghq.com", "telemetry"),
    ] {
        let found = hosted_control_plane()
            .match_host("konghq.com", host)
            .expect("on the page");
        assert_eq!(found.entry.id, *id);
        assert_eq!(
            (found.geo.as_deref(), found.prefix.as_deref()),
            (Some("us"), Some("example"))
        );
        assert_eq!(found.entry.port().get(), 443);
    }
}

#[test]
fn every_source_row_is_shown() {
    for catalogue in [catalogue(), hosted_control_plane(), original_appliance()] {
        let all = rows(catalogue, &Default::default()).expect("no filter");
        assert_eq!(all.len(), catalogue.entries.len());
    }
}
