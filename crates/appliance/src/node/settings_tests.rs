use std::path::Path;

use sallyport_store::NodeRole;

use super::settings::Settings;

fn parse(text: &str) -> Result<Settings, String> {
    let parsed = Settings::parse(Path::new("/etc/sallyport/node.toml"), text, "a0-1");
    parsed.map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let error = parse(text).unwrap_err();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn an_empty_file_is_a_single_node_on_the_contracts_ports() {
    let it = parse("").unwrap();
    assert_eq!((it.name.as_str(), it.role), ("a0-1", NodeRole::Data));
    assert_eq!(it.data, Path::new("/etc/sallyport/data"));
    assert_eq!(it.node_control.listen.to_string(), "0.0.0.0:7777");
    assert_eq!(it.control_planes.listen.to_string(), "0.0.0.0:443");
    assert_eq!(
        (it.database, it.healthcheck, it.rate_limit),
        (None, None, None)
    );
}

#[test]
fn a_misspelt_key_is_named_with_its_line_and_the_nearest_one() {
    let line = "/etc/sallyport/node.toml:2:";
    refused(
        "[node_control]\nlisen = \"0.0.0.0:1\"",
        &[line, "\"lisen\"", "did you mean \"listen\"?"],
    );
    refused(
        "\n[nodecontrol]\n",
        &[line, "did you mean \"node_control\"?"],
    );
    refused(
        "[node]\nquorum = 2",
        &[line, "\"quorum\"", "name, role, data"],
    );
    refused("[node]\nname = 7", &[line, "string"]);
    refused(
        "[node_control]\nlisten = \"7777\"",
        &[line, "socket address"],
    );
}

#[test]
fn values_that_cannot_work_are_refused_by_key() {
    refused(
        "[node]\nname = \"Node One\"",
        &["node.name", "\"Node One\"", "a0-1"],
    );
    refused(
        "[node]\nrole = \"arbiter\"",
        &["node.role", "arbiter", "data, witness"],
    );
    refused(
        "[node_control]\nadvertise = \"0.0.0.0:7777\"",
        &["node_control.advertise"],
    );
    refused("[healthcheck]\nkey = \"short\"", &["healthcheck.key", "16"]);
    refused(
        "[healthcheck]\nkey_file = \"none\"",
        &["key_file", "/etc/sallyport/none"],
    );
    refused(
        "[control_planes]\ncluster_cert = \"a.crt\"",
        &["control_planes.cluster_cert", "cluster_cert_key"],
    );
    refused(
        "[healthcheck]\ncertificate = \"a.crt\"",
        &["healthcheck.certificate", "certificate_key"],
    );
    refused(
        "[healthcheck]\nsmtp = \"mail\"",
        &["healthcheck.smtp", "host:port"],
    );
    refused(
        "[healthcheck]\ninternet = \"example.com\"",
        &["healthcheck.internet"],
    );
}

#[test]
fn the_address_for_other_nodes_is_the_listeners_if_that_is_one() {
    let one = parse("[node_control]\nlisten = \"192.0.2.1:7000\"").unwrap();
    assert_eq!(one.advertised().unwrap().to_string(), "192.0.2.1:7000");
    let error = parse("").unwrap().advertised().unwrap_err().to_string();
    assert!(error.contains("node_control.advertise"), "{error}");
}

#[test]
fn secrets_are_not_printed() {
    let text =
        "[database]\nurl = \"postgres://u:hidden@db/x\"\n[healthcheck]\nkey = \"0123456789abcdef\"";
    let printed = format!("{:?}", parse(text).unwrap());
    assert!(
        !printed.contains("hidden") && !printed.contains("0123456789"),
        "{printed}"
    );
}

#[test]
fn a_node_publishes_its_own_address_unless_it_is_told_others() {
    #[track_caller]
    fn check(text: &str, ingress: &[&str], egress: &[&str]) {
        let (to, from) = parse(text).unwrap().published();
        let words = |nets: Vec<sallyport_contract::Net>| -> Vec<String> {
            nets.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            (words(to), words(from)),
            (
                ingress.iter().map(|it| (*it).to_owned()).collect(),
                egress.iter().map(|it| (*it).to_owned()).collect(),
            )
        );
    }
    check("", &[], &[]);
    let own = ["192.0.2.11/32"];
    check(
        "[node_control]\nadvertise = \"192.0.2.11:7777\"",
        &own,
        &own,
    );
    check("[node_control]\nlisten = \"192.0.2.11:7777\"", &own, &own);
    check(
        "[node_control]\nadvertise = \"10.0.0.1:7777\"\n[control_planes]\nlisten = \"192.0.2.11:443\"",
        &own,
        &own,
    );
    check("[control_planes]\nlisten = \"127.0.0.1:443\"", &[], &[]);
    let behind = "[node_control]\nlisten = \"10.0.0.1:7777\"\n[control_planes]\ningress = []\n\
                  egress = [\"192.0.2.11\"]";
    check(behind, &[], &own);
    refused(
        "[control_planes]\ningress = [\"192.0.2.1/24\"]",
        &["node.toml:2:", "192.0.2.0/24"],
    );
}
