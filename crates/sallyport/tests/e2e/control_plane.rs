//! The control plane as its operators run it: logs for programs, a new certificate, groups.

use sallyport_runtime::certs::{LocalCa, PemPair};
use sallyport_testkit::http::get;
use sallyport_testkit::{Echo, eventually};
use serde_json::{Value, json};

use crate::lab::{Control, Gateway, Handshake, Pair, TlsStream, soon, write};

#[test]
fn the_log_is_json_where_it_is_asked_for() {
    let mut control = Control::start_set(&["--log-format", "json"]);
    control.program.terminate();
    control.program.wait(soon());
    let output = control.program.output();
    let mut messages = Vec::new();
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        for member in ["timestamp", "level", "target", "fields"] {
            assert!(!line[member].is_null(), "{member}: {line}");
        }
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        let fields = &line["fields"];
        if fields["message"] == "ready" {
            assert_eq!(
                (&line["level"], &fields["control_plane"]),
                (&json!("INFO"), &json!(control.id))
            );
        }
        messages.push(fields["message"].as_str().unwrap().to_owned());
    }
    assert!(messages.iter().any(|it| it == "ready"), "{messages:?}");
    assert!(messages.iter().any(|it| it == "stopping"), "{messages:?}");
}

#[test]
fn a_hangup_takes_a_new_certificate_and_drops_nobody() {
    let mut control = Control::start();
    let port = control.port;
    let open = || {
        let handshake = Handshake {
            port,
            name: "localhost",
            ca: None,
            pair: None,
            alpn: &["http/1.1"],
        };
        handshake.open().unwrap()
    };
    let shown = |stream: &TlsStream| stream.conn.peer_certificates().unwrap()[0].to_vec();
    let gateway = Gateway::start(&control);
    let mut kept = open();
    let before = shown(&kept);
    // a certificate of the same authority for the same names, as a renewal makes it
    let own = control.home();
    let read = |file: &str| std::fs::read_to_string(own.join(file)).unwrap();
    let authority = PemPair {
        cert: read("ca.crt"),
        key: read("ca.key"),
    };
    let names = read("server.names");
    let names: Vec<&str> = names.lines().collect();
    let renewed = LocalCa::load(authority)
        .unwrap()
        .issue_server(&names, 90)
        .unwrap();
    write(&own.join("server.crt"), renewed.cert);
    write(&own.join("server.key"), renewed.key);
    control.program.signal("HUP");
    control
        .program
        .wait_for_line("certificate read anew", soon());
    eventually("the new certificate is shown", soon(), || {
        shown(&open()) != before
    });
    // who was connected stays so
    let token = format!("Bearer {}", control.token());
    let ask = get(format!("https://localhost:{port}/v3/organizations/me"));
    let answer = ask
        .header("Authorization", token)
        .send_over(&mut kept)
        .unwrap();
    assert_eq!(answer.status, 200);
    let echo = Echo::start();
    control.route_to("orders", echo.port());
    gateway.wait_for("/orders", 200, soon());
    // half of a pair changes nothing
    let after = shown(&open());
    write(&own.join("server.key"), "nonsense");
    control.program.signal("HUP");
    control
        .program
        .wait_for_line("not reloaded, everything stays as it was", soon());
    assert_eq!(shown(&open()), after);
}

/// A group, and its members of these names.
fn group_of(control: &Control, names: [&str; 2]) -> (String, Vec<String>) {
    let group = json!({"name": "all", "cluster_type": "CLUSTER_TYPE_CONTROL_PLANE_GROUP"});
    let group = control.api("POST", "/v2/control-planes", &group).json();
    let group = group["id"].as_str().unwrap().to_owned();
    let members: Vec<String> = names.map(|name| control.another(name)).to_vec();
    let path = format!("/v2/control-planes/{group}/group-memberships");
    let body = json!({"members": [{"id": members[0]}, {"id": members[1]}]});
    assert_eq!(control.api("PUT", &path, &body).status, 204);
    (group, members)
}

fn put_into(control: &Control, cp: &str, path: &str, body: &Value) -> Value {
    let path = format!("/v2/control-planes/{cp}/core-entities/{path}");
    let answer = control.api("PUT", &path, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// A service at a port and a route to it, both of this name.
fn route_of(control: &Control, cp: &str, name: &str, port: u16) {
    let service = json!({"host": "127.0.0.1", "port": port});
    put_into(control, cp, &format!("services/{name}"), &service);
    let path = format!("services/{name}/routes/{name}");
    let route = json!({"paths": [format!("/{name}")]});
    put_into(control, cp, &path, &route);
}

/// A gateway whose certificate is pinned to a group gets the members' entities, and each change.
#[test]
fn a_group_drives_a_gateway_with_the_entities_of_its_members() {
    let (control, echo) = (Control::start(), Echo::start());
    let (group, members) = group_of(&control, ["blue", "green"]);
    let group = group.as_str();
    let put = |cp: &str, path: &str, body: &Value| put_into(&control, cp, path, body);
    let route = |cp: &str, name: &str, port: u16| route_of(&control, cp, name, port);
    route(&members[0], "blue", echo.port());
    route(&members[1], "green", echo.port());

    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin_to(group, &pair.cert());
    let name = Control::node_name(&control.prefix_of(group));
    let gateway = Gateway::start_at((&control, control.port, &name), dir, &pair, "");
    gateway.wait_for("/blue", 200, soon());
    gateway.wait_for("/green", 200, soon());
    // a change of a member is one of the group's
    route(&members[1], "later", echo.port());
    gateway.wait_for("/later", 200, soon());
    // a global plugin of one holds for the routes of the other
    let plugin = json!({"name": "request-termination", "config": {"status_code": 418}});
    let plugin = put(
        &members[0],
        "plugins/11111111-1111-4111-8111-111111111111",
        &plugin,
    );
    gateway.wait_for("/green", 418, soon());
    let path = format!(
        "/v2/control-planes/{}/core-entities/plugins/{}",
        members[0],
        plugin["id"].as_str().unwrap()
    );
    assert_eq!(control.api("DELETE", &path, &Value::Null).status, 204);
    gateway.wait_for("/green", 200, soon());
    // what clashes with what another member has is left out, and told
    route(&members[1], "blue", 1);
    let status = format!("/v2/control-planes/{group}/group-status");
    let status = control.api("GET", &status, &Value::Null).json();
    assert_eq!(status["item"]["state"], "CONFLICT", "{status}");
    route(&members[1], "last", echo.port());
    gateway.wait_for("/last", 200, soon());
    assert_eq!(gateway.status_of("/blue"), 200);
    // reading through the group shows what it serves
    let path = format!("/v2/control-planes/{group}/core-entities/routes");
    let shown = control.api("GET", &path, &Value::Null).json();
    let mut names: Vec<&str> = shown["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["blue", "green", "last", "later"]);
    // whoever leaves takes its entities along, and what clashed with them comes in
    let path = format!("/v2/control-planes/{group}/group-memberships/remove");
    let body = json!({"members": [{"id": members[0]}]});
    assert_eq!(control.api("POST", &path, &body).status, 204);
    gateway.wait_for("/blue", 502, soon());
    assert_eq!(gateway.status_of("/green"), 200);
}

/// One that was away while two members changed, and the control plane was started anew, gets the changes
/// alone, and runs what the group serves; while a member left, it gets everything.
#[test]
fn a_gateway_of_a_group_that_was_away_gets_what_changed() {
    let (mut control, echo) = (Control::start(), Echo::start());
    let (group, members) = group_of(&control, ["blue", "green"]);
    let [blue, green] = [0, 1].map(|at| members[at].as_str());
    for n in 0..5 {
        route_of(&control, blue, &format!("blue-{n}"), echo.port());
        route_of(&control, green, &format!("green-{n}"), echo.port());
    }
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin_to(&group, &pair.cert());
    let name = Control::node_name(&control.prefix_of(&group));
    let mut gateway = Gateway::start_at((&control, control.port, &name), dir, &pair, "");
    gateway.wait_for("/green-4", 200, soon());
    let in_sync = |control: &Control| {
        let what = "the gateway runs what is expected of those of the group";
        eventually(what, soon(), || control.in_sync_of(&group) == 1);
    };
    in_sync(&control);
    gateway.program.kill9();

    route_of(&control, blue, "new", echo.port());
    let moved = json!({"paths": ["/moved"]});
    put_into(&control, green, "services/green-1/routes/green-1", &moved);
    route_of(&control, green, "more", echo.port());
    let path = format!("/v2/control-planes/{blue}/core-entities/routes/blue-2");
    assert_eq!(control.api("DELETE", &path, &Value::Null).status, 204);
    control.kill9();
    control.start_again();
    gateway.kill9_and_start();
    for (path, status) in [
        ("/new", 200),
        ("/moved", 200),
        ("/more", 200),
        ("/blue-2", 404),
        ("/green-1", 404),
        ("/blue-4", 200),
    ] {
        gateway.wait_for(path, status, soon());
    }
    in_sync(&control);
    let counted = |control: &Control| {
        let text = control.api("GET", "/metrics", &Value::Null).text();
        ["changes", "everything"].map(|answer| {
            let name = format!("sallyport_config_sync_answers_total{{answer=\"{answer}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name));
            line.unwrap().parse::<u32>().unwrap()
        })
    };
    assert_eq!(counted(&control), [1, 0]);

    gateway.program.kill9();
    let path = format!("/v2/control-planes/{group}/group-memberships/remove");
    let body = json!({"members": [{"id": blue}]});
    assert_eq!(control.api("POST", &path, &body).status, 204);
    gateway.kill9_and_start();
    gateway.wait_for("/new", 404, soon());
    gateway.wait_for("/more", 200, soon());
    in_sync(&control);
    assert_eq!(counted(&control), [1, 1]);
}
