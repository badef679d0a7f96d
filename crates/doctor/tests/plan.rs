//! Which rows are tried from where.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use sallyport_contract::{Installation, Net, Role, catalogue};
use sallyport_doctor::{Here, Plan, Talk, Then, plan};

const INSTALLATION: &str = r#"
base = "sally.example"
geos = ["eu"]
features = ["deck", "monitoring", "ping", "rate_limit"]
exposed = ["status"]
control_planes = [{ prefix = "alpha", geo = "eu" }]
nodes = [
    { name = "edge", roles = ["gateway"], addresses = ["192.0.2.20"] },
    { name = "n1", roles = ["appliance", "control_plane"], addresses = ["192.0.2.11", "2001:db8::11"] },
    { name = "n2", roles = ["appliance"], addresses = ["192.0.2.12"] },
]
[peers]
dns = ["192.0.2.53"]
upstream = ["10.0.0.0/8"]
"#;

fn made(text: &str, here: Here) -> Plan {
    let installation = Installation::parse(text).unwrap();
    plan(catalogue(), &installation, &here).unwrap()
}

fn as_role(role: Role) -> Here {
    Here {
        roles: vec![role],
        node_id: "id".to_owned(),
        ..Here::default()
    }
}

#[track_caller]
fn check(plan: &Plan, want: &[&str]) {
    let got: Vec<String> = plan
        .checks
        .iter()
        .map(|check| format!("{} {}", check.id, check.place()))
        .collect();
    assert_eq!(got, want);
}

#[test]
fn a_gateway_tries_what_it_dials() {
    let plan = made(INSTALLATION, as_role(Role::Gateway));
    check(
        &plan,
        &[
            "config_sync alpha.eu.cp0.sally.example 443/tcp",
            "telemetry alpha.eu.tp0.sally.example 443/tcp",
            "dns 192.0.2.53 53/udp",
            "dns 192.0.2.53 53/tcp",
        ],
    );
    let Talk::Tls {
        mutual: true,
        then: Then::Upgrade(path),
    } = &plan.checks[0].talk
    else {
        panic!("{:?}", plan.checks[0]);
    };
    assert!(path.starts_with("/v1/outlet?node_id=id&"), "{path}");
    let reason = |id: &str| {
        let found = plan.skipped.iter().find(|it| it.id == id);
        found.map(|it| it.reason.as_str()).unwrap_or_default()
    };
    assert!(
        reason("upstream").contains("network only"),
        "{}",
        reason("upstream")
    );
    assert!(
        reason("proxy.http").contains("--role client"),
        "{}",
        reason("proxy.http")
    );
}

#[test]
fn a_client_and_a_monitor_try_what_comes_in() {
    let plan = made(INSTALLATION, as_role(Role::Client));
    check(
        &plan,
        &[
            "proxy.http 192.0.2.20 8000/tcp",
            "proxy.https 192.0.2.20 8443/tcp",
        ],
    );
    let plan = made(INSTALLATION, as_role(Role::Monitor));
    check(
        &plan,
        &[
            "status 192.0.2.20 8007/tcp",
            "healthcheck 192.0.2.11 9110/tcp",
            "healthcheck 192.0.2.12 9110/tcp",
            "healthcheck 2001:db8::11 9110/tcp",
        ],
    );
}

#[test]
fn a_node_tries_the_others_and_not_itself() {
    let here = Here {
        node: Some("n1".to_owned()),
        ..as_role(Role::Appliance)
    };
    let plan = made(INSTALLATION, here);
    let targets: Vec<String> = plan
        .checks
        .iter()
        .map(|check| check.target.to_string())
        .collect();
    assert!(targets.contains(&"192.0.2.12".to_owned()));
    assert!(!targets.contains(&"192.0.2.11".to_owned()), "{targets:?}");
    let installation = Installation::parse(INSTALLATION).unwrap();
    let here = Here {
        node: Some("n9".to_owned()),
        ..Here::default()
    };
    let error = plan_error(&installation, &here);
    assert!(error.contains("no node `n9`"), "{error}");
}

fn plan_error(installation: &Installation, here: &Here) -> String {
    plan(catalogue(), installation, here)
        .unwrap_err()
        .to_string()
}

#[test]
fn behind_a_forward_proxy_the_link_goes_through_it() {
    let text = INSTALLATION.replace("\"deck\"", "\"forward_proxy\"");
    let plan = made(&text, as_role(Role::Gateway));
    let skipped = plan
        .skipped
        .iter()
        .find(|it| it.id == "config_sync")
        .unwrap();
    assert!(skipped.reason.contains("--proxy"), "{skipped:?}");
    let via = Some("http://proxy.test:3128".parse().unwrap());
    let plan = made(
        &text,
        Here {
            via: via.clone(),
            ..as_role(Role::Gateway)
        },
    );
    let link = plan
        .checks
        .iter()
        .find(|it| it.id == "config_sync")
        .unwrap();
    assert_eq!(link.via, via);
    assert!(
        plan.checks
            .iter()
            .filter(|it| it.id == "dns")
            .all(|it| it.via.is_none())
    );
}

#[test]
fn names_are_expected_where_the_list_says() {
    let net: Net = "198.51.100.7".parse().unwrap();
    let published = [("*.eu.cp0.sally.example".to_owned(), vec![net])].into();
    let plan = made(
        INSTALLATION,
        Here {
            published,
            ..as_role(Role::Gateway)
        },
    );
    let expected = |id: &str| {
        plan.checks
            .iter()
            .find(|it| it.id == id)
            .unwrap()
            .expected
            .clone()
    };
    assert_eq!(expected("config_sync"), [net]);
    assert_eq!(expected("telemetry"), []);
}

#[test]
fn a_server_name_is_that_of_its_own_row() {
    let server_names = [("config_sync".to_owned(), "other.test".to_owned())].into();
    let here = Here {
        server_names,
        ..as_role(Role::Gateway)
    };
    let plan = made(INSTALLATION, here);
    let name = |id: &str| {
        let check = plan.checks.iter().find(|it| it.id == id).unwrap();
        check.server_name.clone()
    };
    assert_eq!(name("config_sync").as_deref(), Some("other.test"));
    assert_eq!(name("telemetry"), None);
}
