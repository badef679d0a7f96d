//! The rows that apply to one installation, their explanation, and what changes between two.

mod fixture;

use fixture::{installation, node, role};
use proptest::prelude::*;
use sallyport_contract::{
    Filter, Flow, Installation, Packet, Peers, Role, Side, View, catalogue, diff, explain, find,
    hosted_control_plane, installation_rows, policy, render,
};

fn ids(text: &str, role: Option<Role>) -> Vec<String> {
    let installation = Installation::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let filter = Filter { role, geo: None };
    let rows = installation_rows(catalogue(), &installation, &filter)
        .unwrap_or_else(|error| panic!("{error}"));
    rows.iter().map(|row| row.entry.id.to_string()).collect()
}

#[test]
fn a_lone_gateway_needs_little() {
    let text = r#"
        base = "sally.example"
        geos = ["eu"]
        roles = ["gateway"]
        control_planes = [{ prefix = "alpha", geo = "eu" }]
    "#;
    assert_eq!(
        ids(text, Some(Role::Gateway)),
        [
            "proxy.http",
            "proxy.https",
            "upstream",
            "admin.http",
            "admin.https",
            "config_sync",
            "telemetry",
            "dns"
        ]
    );
    // Without a control plane it is a gateway from a file, and dials nobody but its upstreams.
    assert_eq!(
        ids("base = \"a.example\"\nroles = [\"gateway\"]", None),
        [
            "proxy.http",
            "proxy.https",
            "upstream",
            "admin.http",
            "admin.https",
            "dns"
        ]
    );
    assert_eq!(ids("base = \"a.example\"", None), Vec::<String>::new());
}

#[test]
fn features_bring_their_rows() {
    let with = |more: &str| {
        format!(
            "base = \"a.example\"\ngeos = [\"eu\"]\nroles = [\"appliance\", \"control_plane\"]\n{more}"
        )
    };
    let have = |more: &str, id: &str| ids(&with(more), None).iter().any(|it| it == id);
    for (more, id) in [
        ("features = [\"rate_limit\"]", "rate_limit"),
        ("features = [\"webtask\"]", "webtask.logs"),
        ("features = [\"ping\"]", "healthcheck.icmp"),
        ("features = [\"usage\"]", "usage"),
        ("portals = [{ id = \"p\", geo = \"eu\" }]", "dev_portal"),
        ("features = [\"updates\"]", "updates.packages"),
    ] {
        assert!(!have("", id), "{id} without its feature");
        assert!(have(more, id), "{id} with its feature");
    }
    // Between nodes: only if there are several.
    let node = |name: &str| format!("[[nodes]]\nname = \"{name}\"\nroles = [\"appliance\"]\n");
    let two = format!("{}{}", node("a"), node("b"));
    assert!(!have(&node("a"), "node_control"));
    assert!(have(&two, "node_control"));
    // They share a database: one of the site, unless they run it themselves.
    assert!(!have(&node("a"), "database.external"));
    assert!(have(&two, "database.external") && !have(&two, "database"));
    let own = format!("features = [\"database_nodes\"]\n{two}");
    assert!(have(&own, "database") && !have(&own, "database.external"));
}

#[test]
fn names_are_those_of_this_installation() {
    let installation = installation();
    let rows = installation_rows(catalogue(), &installation, &Filter::default()).expect("sound");
    let hosts = |id: &str| {
        let row = rows.iter().find(|row| row.entry.id == *id);
        row.map(|row| row.hosts.join(" ")).unwrap_or_default()
    };
    assert_eq!(
        hosts("config_sync"),
        "alpha.eu.cp0.sally.example beta.us.cp0.sally.example"
    );
    assert_eq!(hosts("dev_portal"), "d6a3e6b6bc64.eu.portal.sally.example");
    assert_eq!(
        hosts("control_planes"),
        "eu.api.sally.example us.api.sally.example"
    );
    assert_eq!(hosts("console"), "cloud.sally.example");
    // no mesh zone takes part, so nothing dials mesh sync
    assert_eq!(hosts("mesh_sync"), "");
    let eu = Filter {
        role: Some(Role::Gateway),
        geo: Some("eu".to_owned()),
    };
    let rows = installation_rows(catalogue(), &installation, &eu).expect("sound");
    let telemetry = rows
        .iter()
        .find(|row| row.entry.id == "telemetry")
        .expect("applies");
    assert_eq!(telemetry.hosts, ["alpha.eu.tp0.sally.example"]);
    let table = render::table(&rows);
    assert!(
        table.contains("443,8443/tcp"),
        "moved ports are shown:\n{table}"
    );
}

#[test]
fn the_global_mesh_name_is_there_for_every_geo() {
    let text = "base = \"a.example\"\ngeos = [\"me\", \"us\"]\nroles = [\"mesh_zone\", \"control_plane\"]\nfeatures = [\"mesh_sync\"]";
    let installation = Installation::parse(text).expect("well-formed");
    let rows = installation_rows(catalogue(), &installation, &Filter::default()).expect("sound");
    let mesh = rows
        .iter()
        .find(|row| row.entry.id == "mesh_sync")
        .expect("applies");
    assert_eq!(
        mesh.hosts,
        ["us.mesh.sync.a.example", "global.mesh.sync.a.example"]
    );
}

#[test]
fn gateways_behind_a_forward_proxy_dial_only_the_proxy() {
    let text = r#"
        base = "a.example"
        geos = ["eu"]
        roles = ["gateway"]
        control_planes = [{ prefix = "alpha", geo = "eu" }]
        features = ["forward_proxy"]
        ports = { forward_proxy = ["8080/tcp"] }
        hosts = { forward_proxy = ["proxy.a.example"] }
        peers = { forward_proxy = ["192.0.2.80"] }
    "#;
    let gateway = ids(text, Some(Role::Gateway));
    assert!(gateway.contains(&"forward_proxy".to_owned()));
    assert!(!gateway.contains(&"config_sync".to_owned()), "{gateway:?}");
    let proxy = ids(text, Some(Role::ForwardProxy));
    assert_eq!(proxy, ["config_sync", "telemetry", "forward_proxy"]);
    let installation = Installation::parse(text).expect("well-formed");
    let view = View::Role {
        role: Role::Gateway,
        geo: None,
    };
    let policy = policy(catalogue(), &installation, &view).expect("sound");
    let rule = policy
        .rules
        .iter()
        .find(|rule| rule.id == "forward_proxy")
        .expect("opened");
    assert_eq!(
        (rule.side, rule.hosts.join(" ")),
        (Side::Out, "proxy.a.example".to_owned())
    );
    assert_eq!(
        rule.peers,
        Peers::Nets(vec!["192.0.2.80".parse().expect("an address")])
    );
}

#[test]
fn the_hosted_products_are_served_too() {
    let text = r#"
        geos = ["us"]
        roles = ["gateway"]
        control_planes = [{ prefix = "example", geo = "us" }]
    "#;
    let installation = Installation::parse(text).expect("well-formed");
    let filter = Filter {
        role: Some(Role::Gateway),
        geo: None,
    };
    let rows = installation_rows(hosted_control_plane(), &installation, &filter).expect("sound");
    let hosts: Vec<&str> = rows
        .iter()
        .flat_map(|row| &row.hosts)
        .map(String::as_str)
        .collect();
    assert_eq!(
        hosts,
        [
            "cloud.konghq.com",
            "global.api.konghq.com",
            "example.us.cp0.konghq.com",
            "example.us.tp0.konghq.com"
        ]
    );
}

#[track_caller]
fn check_problem(text: &str, want: &str) {
    let error = match Installation::parse(text) {
        Err(error) => error.to_string(),
        Ok(installation) => installation_rows(catalogue(), &installation, &Filter::default())
            .expect_err(text)
            .to_string(),
    };
    assert!(error.contains(want), "{error:?} lacks {want:?}");
}

#[test]
fn a_wrong_description_lists_every_problem() {
    check_problem("base = 3", "line 1: invalid type");
    check_problem("bse = \"x\"", "unknown field `bse`");
    check_problem(
        "\n[peers]\ndns = [\"10.0.0.1/8\"]",
        "line 3: `10.0.0.1/8` has bits beyond its prefix; write `10.0.0.0/8`",
    );
    check_problem(
        "[peers]\ndns = [\"x\"]",
        "`x` is neither an IP address nor a network",
    );
    check_problem("", "base: needed");
    check_problem("base = \"a..b\"", "base: `a..b` is not a domain");
    let base = "base = \"a.example\"\ngeos = [\"eu\"]\n";
    let with = |more: &str| format!("{base}{more}");
    check_problem(
        "base = \"a.example\"\ngeos = [\"xx\"]",
        "there is no geo `xx`; known are au, eu",
    );
    check_problem(
        &with("features = [\"warp\"]"),
        "features: the catalogue knows no `warp`",
    );
    check_problem(
        &with("exposed = [\"nope\"]"),
        "exposed: the catalogue has no entry `nope`",
    );
    check_problem(
        &with("ports = { nope = [\"1/tcp\"] }"),
        "ports: the catalogue has no entry `nope`",
    );
    check_problem(
        &with("ports = { status = [] }"),
        "ports: `status` has no port",
    );
    check_problem(
        &with("hosts = { console = [\"x.example\"] }"),
        "hosts: the names of `console` come from",
    );
    check_problem(
        &with("hosts = { smtp = [\"a b\"] }"),
        "`a b` of `smtp` is not a host name",
    );
    check_problem(&with("peers = { nope = [] }"), "peers: `nope` is no role");
    check_problem(
        &with("peers = { config_sync = [] }"),
        "both ends of `config_sync` are the product's",
    );
    check_problem(
        &with("control_planes = [{ prefix = \"a.b\", geo = \"eu\" }]"),
        "`a.b` is not a DNS label",
    );
    check_problem(
        &with("control_planes = [{ prefix = \"a\", geo = \"us\" }]"),
        "not among `geos`",
    );
    check_problem(
        &with(
            "[[nodes]]\nname = \"n\"\nroles = []\n[[nodes]]\nname = \"n\"\nroles = [\"gateway\"]",
        ),
        "nodes: `n` has no role; nodes: two are called `n`",
    );
    let unknown = View::Node("nobody".to_owned());
    let error = policy(catalogue(), &installation(), &unknown)
        .expect_err("unknown")
        .to_string();
    assert_eq!(
        error,
        "there is no node `nobody` in this installation; there are: node1, node2, edge"
    );
}

#[track_caller]
fn check_find(query: &str, want: &[&str]) {
    let found = find(catalogue(), "sally.example", query);
    let ids: Vec<&str> = found.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, want, "{query}");
}

#[test]
fn ports_ids_and_names_are_explained() {
    check_find("8721", &["webtask.logs"]);
    check_find("8721/udp", &[]);
    check_find("8071/udp", &["audit_log"]);
    check_find("22", &["maintenance", "maintenance.jump_host"]);
    check_find("icmp", &["healthcheck.icmp"]);
    check_find("proxy", &["proxy.http", "proxy.https"]);
    check_find("maintenance", &["maintenance"]);
    check_find("X.eu.CP0.sally.example", &["config_sync"]);
    check_find("eu.api.sally.example", &["control_planes", "core_entities"]);
    check_find("99999", &[]);
    check_find("", &[]);
    let text = explain(find(catalogue(), "", "8721")[0]);
    insta::assert_snapshot!(text, @r"
    webtask.logs: Webtask logging
      why       Carries the output of webtasks to the node where somebody watches it.
      who       appliance → appliance
      port      8721/tcp
      protocol  webtask
      TLS       yes, on both ends: the node's certificate, issued by the cluster's CA
      required  yes, if webtasks are used: logging and debugging need it
      run by    this installation
      setting   none: the port is fixed
      source    appliance page: Between cluster nodes, 8721
    ");
    for entry in &catalogue().entries {
        assert!(explain(entry).contains(&entry.why));
    }
}

#[test]
fn csv_quotes_what_needs_it() {
    let installation = installation();
    let rows = installation_rows(catalogue(), &installation, &Filter::default()).expect("sound");
    let text = render::csv(&rows);
    assert_eq!(text.matches("\r\n").count(), rows.len() + 1);
    assert!(
        text.contains(
            "proxy.https,\"Proxy, HTTPS\",\"443,8443/tcp\",client,gateway,,https,tls,yes,,"
        )
    );
}

fn packet(side: Side, flow: &str, peer: &str) -> Packet {
    let flow = Flow::try_from(flow.to_owned()).expect("a flow");
    Packet {
        side,
        flow,
        peer: peer.parse().expect("an address"),
    }
}

#[track_caller]
fn check_packet(name: &str, side: Side, flow: &str, peer: &str, want: bool) {
    assert_eq!(
        node(name).allows(&packet(side, flow, peer)),
        want,
        "{name} {side:?} {flow} {peer}"
    );
}

#[test]
fn policies_know_directions_and_peers() {
    use Side::{In, Out};
    // the gateway dials the control plane, never the other way round
    check_packet("edge", Out, "443/tcp", "192.0.2.11", true);
    check_packet("node1", In, "443/tcp", "192.0.2.20", true);
    check_packet("node1", Out, "443/tcp", "192.0.2.20", false);
    check_packet("node1", Out, "8443/tcp", "192.0.2.20", false);
    // clients reach the proxy; upstreams are reached, and reach nothing
    check_packet("edge", In, "8000/tcp", "203.0.113.9", true);
    check_packet("edge", In, "443/tcp", "2001:db8:9::1", true);
    check_packet("edge", Out, "8000/tcp", "203.0.113.9", false);
    check_packet("edge", Out, "80/tcp", "172.16.1.1", true);
    check_packet("edge", In, "80/tcp", "172.16.1.1", false);
    check_packet("edge", Out, "80/tcp", "203.0.113.9", false);
    // loopback rows stay closed unless exposed
    check_packet("edge", In, "8007/tcp", "192.0.2.99", true);
    check_packet("edge", In, "8007/tcp", "192.0.2.98", false);
    check_packet("edge", In, "8001/tcp", "10.1.1.1", false);
    // nodes among themselves, both families, not with the gateway and not with themselves
    for peer in ["192.0.2.12", "2001:db8::12"] {
        for flow in ["27017/tcp", "7777/tcp", "9001/tcp", "icmp"] {
            check_packet("node1", In, flow, peer, true);
            check_packet("node1", Out, flow, peer, true);
        }
        check_packet("node1", In, "27017/udp", peer, false);
    }
    for peer in ["192.0.2.20", "192.0.2.11", "10.1.1.1"] {
        check_packet("node1", In, "27017/tcp", peer, false);
        check_packet("node1", Out, "27017/tcp", peer, false);
    }
    // operators use the command line; the jump host is not known and stays closed
    check_packet("node1", In, "10121/tcp", "10.200.0.1", true);
    check_packet("node1", In, "10121/tcp", "11.0.0.1", false);
    check_packet("node1", In, "22/tcp", "10.1.1.1", false);
    let withheld = node("node1").withheld;
    assert_eq!(withheld.len(), 1);
    assert!(withheld[0].reason.contains("peers.jump_host"));
    // resolvers by id, the outside name by host
    check_packet("edge", Out, "53/udp", "2001:db8::53", true);
    check_packet("edge", Out, "53/udp", "192.0.2.54", false);
    check_packet("node1", Out, "443/tcp", "203.0.113.7", true);
}

#[test]
fn ends_that_nobody_described_are_open_outwards_and_closed_inwards() {
    let ask = |more: &str, view: View| {
        let text = format!(
            "base = \"a.example\"\ngeos = [\"eu\"]\ncontrol_planes = [{{ prefix = \"p\", geo = \"eu\" }}]\n{more}"
        );
        let installation = Installation::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        policy(catalogue(), &installation, &view).unwrap_or_else(|error| panic!("{error}"))
    };
    let peers = |policy: &sallyport_contract::Policy, id: &str, side: Side| {
        let rule = policy
            .rules
            .iter()
            .find(|rule| rule.id == *id && rule.side == side);
        rule.map(|rule| rule.peers.clone())
    };
    let known = |nets: &[&str]| {
        Some(Peers::Nets(
            nets.iter()
                .map(|net| net.parse().expect("a network"))
                .collect(),
        ))
    };
    let gateway = View::Role {
        role: Role::Gateway,
        geo: None,
    };
    let control = View::Role {
        role: Role::ControlPlane,
        geo: None,
    };
    let node = |name: &str, role: &str, rest: &str| {
        format!("[[nodes]]\nname = \"{name}\"\nroles = [\"{role}\"]\n{rest}\n")
    };
    let lone = ask("roles = [\"gateway\"]", gateway.clone());
    assert_eq!(peers(&lone, "config_sync", Side::Out), Some(Peers::Any));
    // a host name with addresses narrows it
    let named = ask(
        "roles = [\"gateway\"]\n[peers]\n\"p.eu.cp0.a.example\" = [\"192.0.2.1\"]",
        gateway,
    );
    assert_eq!(
        peers(&named, "config_sync", Side::Out),
        known(&["192.0.2.1"])
    );
    assert_eq!(peers(&named, "telemetry", Side::Out), Some(Peers::Any));
    // known gateways only, unless there are others elsewhere, or one without addresses
    let edge = node("edge", "gateway", "addresses = [\"192.0.2.9\"]");
    let only = ask(&edge, control.clone());
    assert_eq!(peers(&only, "config_sync", Side::In), known(&["192.0.2.9"]));
    let more = ask(&format!("roles = [\"gateway\"]\n{edge}"), control.clone());
    assert_eq!(peers(&more, "config_sync", Side::In), Some(Peers::Any));
    let bare = ask(
        &format!("{edge}{}", node("two", "gateway", "")),
        control.clone(),
    );
    assert_eq!(peers(&bare, "config_sync", Side::In), Some(Peers::Any));
    let told = ask(
        &format!("roles = [\"gateway\"]\npeers = {{ gateway = [\"198.51.100.0/24\"] }}\n{edge}"),
        control,
    );
    assert_eq!(
        peers(&told, "config_sync", Side::In),
        known(&["192.0.2.9", "198.51.100.0/24"])
    );
    // operators are never everybody by default
    let cli = "features = [\"appliance_cli\"]\n";
    let appliance = || View::Node("a".to_owned());
    let closed = ask(&format!("{cli}{}", node("a", "appliance", "")), appliance());
    assert_eq!(peers(&closed, "appliance_cli", Side::In), None);
    assert_eq!(closed.withheld.len(), 1);
    let open = ask(
        &format!(
            "{cli}peers = {{ operator = [\"0.0.0.0/0\"] }}\n{}",
            node("a", "appliance", "")
        ),
        appliance(),
    );
    assert_eq!(
        peers(&open, "appliance_cli", Side::In),
        known(&["0.0.0.0/0"])
    );
}

#[test]
fn a_role_in_a_geo_sees_only_that_geo() {
    let names = |geo: Option<&str>| -> String {
        let policy = role(Role::Gateway, geo);
        let rule = policy
            .rules
            .iter()
            .find(|rule| rule.id == "config_sync")
            .expect("opened");
        rule.hosts.join(" ")
    };
    assert_eq!(names(Some("us")), "beta.us.cp0.sally.example");
    assert_eq!(
        names(None),
        "alpha.eu.cp0.sally.example beta.us.cp0.sally.example"
    );
    // a role view of nodes includes all of them on both sides
    let appliance = role(Role::Appliance, None);
    for peer in ["192.0.2.11", "192.0.2.12"] {
        assert!(appliance.allows(&packet(Side::In, "27017/tcp", peer)));
        assert!(appliance.allows(&packet(Side::Out, "27017/tcp", peer)));
    }
}

#[test]
fn a_change_prints_what_to_add_and_remove() {
    let before = node("node1");
    assert!(diff(&before.json(), &before).expect("a policy").is_empty());
    let text = fixture::TEXT
        .replace("\"rate_limit\", ", "")
        .replace("192.0.2.12", "192.0.2.13")
        .replace("[peers]", "[peers]\njump_host = [\"198.51.100.1\"]");
    let installation = Installation::parse(&text).expect("well-formed");
    let after = policy(catalogue(), &installation, &View::Node("node1".to_owned())).expect("sound");
    let change = diff(&before.json(), &after).expect("a policy");
    insta::assert_snapshot!(change, @r"
    - in  from 192.0.2.12/32 7777/tcp (node_control)
    - in  from 192.0.2.12/32 8071/tcp (audit_log)
    - in  from 192.0.2.12/32 8071/udp (audit_log)
    - in  from 192.0.2.12/32 9001/tcp (rate_limit)
    - in  from 2001:db8::12/128 9001/tcp (rate_limit)
    - in  from 192.0.2.12/32 27017/tcp (database)
    - in  from 192.0.2.12/32 icmp (healthcheck.icmp)
    - out to 192.0.2.12/32 7777/tcp (node_control)
    - out to 192.0.2.12/32 8071/tcp (audit_log)
    - out to 192.0.2.12/32 8071/udp (audit_log)
    - out to 192.0.2.12/32 9001/tcp (rate_limit)
    - out to 2001:db8::12/128 9001/tcp (rate_limit)
    - out to 192.0.2.12/32 27017/tcp (database)
    - out to 192.0.2.12/32 icmp (healthcheck.icmp)
    + in  from 198.51.100.1/32 22/tcp (maintenance.jump_host)
    + in  from 192.0.2.13/32 7777/tcp (node_control)
    + in  from 192.0.2.13/32 8071/tcp (audit_log)
    + in  from 192.0.2.13/32 8071/udp (audit_log)
    + in  from 192.0.2.13/32 27017/tcp (database)
    + in  from 192.0.2.13/32 icmp (healthcheck.icmp)
    + out to 192.0.2.13/32 7777/tcp (node_control)
    + out to 192.0.2.13/32 8071/tcp (audit_log)
    + out to 192.0.2.13/32 8071/udp (audit_log)
    + out to 192.0.2.13/32 27017/tcp (database)
    + out to 192.0.2.13/32 icmp (healthcheck.icmp)
    ");
    let back = diff(&after.json(), &before).expect("a policy");
    assert_eq!((back.add, back.remove), (change.remove, change.add));
    assert!(
        diff("{}", &after)
            .expect_err("no policy")
            .to_string()
            .contains("missing field")
    );
    let newer = after
        .json()
        .replace("\"format_version\": 1", "\"format_version\": 2");
    let error = diff(&newer, &after).expect_err("too new").to_string();
    assert_eq!(
        error,
        "the policy is of format 2, this build reads format 1"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_text_never_panics(text in ".{0,200}", query in "\\PC{0,80}") {
        let _ = Installation::parse(&text).map(|it| {
            installation_rows(catalogue(), &it, &Filter::default()).map(|rows| rows.len())
        });
        let _ = diff(&text, &node("edge"));
        let _ = find(catalogue(), "sally.example", &query);
    }

    #[test]
    fn a_damaged_description_never_panics(at in 0usize..1500, cut in 0usize..60, put in ".{0,10}") {
        let start = at.min(fixture::TEXT.len());
        let end = (start + cut).min(fixture::TEXT.len());
        let text = format!("{}{put}{}", &fixture::TEXT[..start], &fixture::TEXT[end..]);
        if let Ok(installation) = Installation::parse(&text) {
            for node in &installation.nodes {
                let view = View::Node(node.name.clone());
                if let Ok(policy) = policy(catalogue(), &installation, &view) {
                    for format in render::firewall::Format::ALL {
                        let _ = render::firewall::firewall(&policy, format);
                    }
                }
            }
        }
    }
}
