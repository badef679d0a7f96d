//! `sallyport ports`: the network contract for people and machines.

use serde_json::Value;

use crate::lab::{has_all, sallyport, soon};

#[track_caller]
fn ports(args: &[&str]) -> String {
    sallyport()
        .arg("ports")
        .args(args)
        .run(soon())
        .success()
        .stdout
}

#[test]
fn the_table_names_ports_directions_and_hosts() {
    let table = ports(&[]);
    let line = |id: &str| {
        let found = table.lines().find(|line| line.starts_with(id));
        found
            .unwrap_or_else(|| panic!("no row {id}:\n{table}"))
            .to_owned()
    };
    has_all(&line("proxy.http "), &["8000/tcp", "client → gateway"]);
    has_all(&line("proxy.https "), &["8443/tcp", "tls"]);
    has_all(
        &line("config_sync "),
        &["443/tcp", "mtls", "<prefix>.<geo>.cp0.<base>"],
    );
    has_all(
        &line("telemetry "),
        &["443/tcp", "mtls", "<prefix>.<geo>.tp0.<base>"],
    );
    for line in table.lines() {
        assert!(line.chars().count() <= 100, "wider than a terminal: {line}");
    }
}

#[test]
fn json_is_for_machines() {
    let json: Value = serde_json::from_str(&ports(&["--format", "json"])).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["id"] == "config_sync").unwrap();
    assert_eq!(row["flows"][0]["port"], 443);
    assert_eq!(row["tls"], "mtls");
    assert!(row["hosts"][0].as_str().unwrap().contains(".cp0."), "{row}");
    // every row of the table is there
    let table = ports(&[]);
    for id in rows.iter().map(|row| row["id"].as_str().unwrap()) {
        assert!(table.contains(id), "{id} is missing in the table");
    }
}

#[test]
fn one_role_and_one_geo() {
    let gateway: Value =
        serde_json::from_str(&ports(&["--format", "json", "--role", "gateway"])).unwrap();
    let ids: Vec<&str> = gateway["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["id"].as_str())
        .collect();
    assert!(
        ids.contains(&"proxy.http") && ids.contains(&"config_sync"),
        "{ids:?}"
    );
    assert!(!ids.contains(&"database"), "{ids:?}");
    let hosted = ports(&["--catalogue", "hosted", "--geo", "eu"]);
    has_all(&hosted, &["eu.api.konghq.com"]);
    assert!(!hosted.contains("us.api.konghq.com"), "{hosted}");
}

#[test]
fn other_formats_have_the_same_rows() {
    assert!(ports(&["--format", "markdown"]).contains("| `proxy.http` |"));
    assert!(
        ports(&["--format", "csv"])
            .lines()
            .any(|line| line.starts_with("proxy.http,"))
    );
}

#[test]
fn what_is_unknown_is_named_with_what_there_is() {
    let check = |args: &[&str], parts: &[&str]| {
        let done = sallyport().arg("ports").args(args).run(soon());
        assert!(!done.status.success(), "{done:?}");
        assert_eq!(done.stdout, "");
        has_all(&done.stderr, parts);
    };
    check(
        &["--role", "firewall"],
        &["--role", "firewall", "gateway", "control_plane"],
    );
    check(&["--format", "xml"], &["xml", "json", "csv"]);
    check(&["--geo", "xx"], &["xx"]);
    check(&["--catalogue", "nowhere.toml"], &["nowhere.toml"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let done = sallyport_testkit::Program::new("sh")
        .args(["-c", "\"$0\" ports --format json | head -n 1; echo done"])
        .arg(env!("CARGO_BIN_EXE_sallyport"))
        .run(soon())
        .success();
    assert_eq!(done.stdout, "{\ndone\n");
    assert_eq!(done.stderr, "");
}
