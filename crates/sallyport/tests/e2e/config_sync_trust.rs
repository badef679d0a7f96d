//! Who may connect, and what a gateway makes of what it gets: enrolment, rotation, revocation,
//! authorities, shared mode, geos, refusals, waiting for a rollout, starting from a file.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::KeyPair;
use sallyport_runtime::certs::{LocalCa, NewKey, Request};
use sallyport_testkit::http::get;
use sallyport_testkit::{Echo, eventually};
use sallyport_wire::config_sync::snapshot;
use serde_json::{Value, json};

use crate::lab::{
    Control, Gateway, Handshake, Pair, after_reconnect, bytes_until_close, sallyport, soon, write,
};

const ASK: &[u8] = b"GET /v1/outlet HTTP/1.1\r\nHost: x\r\n\r\n";

#[track_caller]
fn node_issue(control: &Control) -> Option<Value> {
    let path = format!("/v2/control-planes/{}/nodes", control.id);
    let nodes = control.api("GET", &path, &Value::Null).json();
    let issues = &nodes["items"][0]["compatibility_status"]["issues"];
    issues.as_array()?.first().cloned()
}

fn wait(control: &Control, more: &[&str]) -> sallyport_testkit::Launch {
    sallyport()
        .args([
            "wait",
            "--address",
            &control.url(""),
            "--control-plane",
            &control.id,
        ])
        .args([
            "--token-file",
            &control.home().join("token").display().to_string(),
        ])
        .args(more)
}

#[test]
fn a_gateway_enrols_with_a_token_that_works_once() {
    let echo = Echo::start();
    let control = Control::start();
    control.route_to("first", echo.port());
    let path = format!("/v2/control-planes/{}/enrolment-tokens", control.id);
    let made = control.api("POST", &path, &json!({"title": "edge", "expires_in": 600}));
    assert_eq!(made.status, 201, "{}", made.text());
    let token = made.json()["item"]["token"].as_str().unwrap().to_owned();
    let listed = control.api("GET", &path, &Value::Null).json();
    assert_eq!(listed["page"]["total_count"], 1);
    assert!(
        listed["items"][0].get("token").is_none(),
        "it is shown once"
    );

    let dir = tempfile::tempdir().unwrap();
    let enrol = |out: &std::path::Path| {
        sallyport()
            .args([
                "enrol",
                "--address",
                &format!("https://localhost:{}", control.port),
            ])
            .args(["--ca", &control.ca().display().to_string()])
            .args(["--token", &token, "--out", &out.display().to_string()])
            .run(soon())
    };
    enrol(dir.path()).success();
    let pair = Pair {
        cert: dir.path().join("cluster.crt"),
        key: dir.path().join("cluster.key"),
    };
    let conf = std::fs::read_to_string(dir.path().join("cluster.conf")).unwrap();
    let name = Control::node_name(&control.prefix);
    for name in [&name, &name.replace(".cp0.", ".tp0.")] {
        assert!(conf.contains(name.as_str()), "{conf}");
    }
    let gateway = Gateway::start_with(&control, dir, &pair);
    gateway.wait_for("/first", 200, soon());

    let other = tempfile::tempdir().unwrap();
    let refused = enrol(other.path());
    assert!(
        refused.stderr.contains("used already"),
        "{}",
        refused.stderr
    );
    assert!(!other.path().join("cluster.key").exists());

    // the pin is listed with its end, and taking it away ends the link within seconds
    let path = format!("/v2/control-planes/{}/dp-client-certificates", control.id);
    let pins = control.api("GET", &path, &Value::Null).json();
    assert!(pins["items"][0]["expires_at"].as_i64().unwrap() > 1_700_000_000);
    let id = pins["items"][0]["id"].as_str().unwrap();
    let gone = control.api("DELETE", &format!("{path}/{id}"), &Value::Null);
    assert_eq!(gone.status, 204);
    gateway
        .program
        .wait_for_line("closed the link.*1008", soon());
    assert_eq!(gateway.status_of("/first"), 200, "it goes on serving");
}

#[test]
fn a_certificate_is_rotated_without_a_restart() {
    let control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    let old = Pair::make(dir.path());
    let first = control.pin(&old.cert());
    let gateway_dir = tempfile::tempdir().unwrap();
    let used = Pair::store(gateway_dir.path(), &old.cert(), &old.key());
    let mut gateway = Gateway::start_with(&control, gateway_dir, &used);
    gateway
        .program
        .wait_for_line("control plane connected", soon());

    let new_dir = tempfile::tempdir().unwrap();
    let new = Pair::make(new_dir.path());
    control.pin(&new.cert());
    write(&used.cert, new.cert());
    write(&used.key, new.key());
    gateway.program.signal("HUP");
    gateway.program.wait_for_line("reloaded", soon());
    let before = gateway.program.lines();
    let path = format!(
        "/v2/control-planes/{}/dp-client-certificates/{first}",
        control.id
    );
    assert_eq!(control.api("DELETE", &path, &Value::Null).status, 204);
    gateway
        .program
        .wait_for_line_after(before, "control plane connected", after_reconnect());
}

#[test]
fn an_authority_vouches_for_gateways_that_nobody_pinned() {
    let control = Control::start();
    let ca = LocalCa::create("fleet", 30).unwrap();
    let plane = format!("/v2/control-planes/{}", control.id);
    let changed = control.api("PATCH", &plane, &json!({"auth_type": "pki_client_certs"}));
    assert_eq!(changed.status, 200, "{}", changed.text());
    control.pin(&ca.pem().cert);
    let issued = |ca: &LocalCa| {
        let dir = tempfile::tempdir().unwrap();
        let key = NewKey::create().unwrap();
        let request = Request::parse(&key.request).unwrap();
        let cert = ca
            .issue_requested(request, "gw", &[] as &[&str], 30)
            .unwrap();
        let pair = Pair::store(dir.path(), &cert, &key.key);
        (dir, pair)
    };
    let (dir, pair) = issued(&ca);
    let gateway = Gateway::start_with(&control, dir, &pair);
    gateway
        .program
        .wait_for_line("control plane connected", soon());

    // of another authority, and self-signed: not one byte
    let (_dir, stranger) = issued(&LocalCa::create("others", 30).unwrap());
    let own = tempfile::tempdir().unwrap();
    let name = Control::node_name(&control.prefix);
    for pair in [&stranger, &Pair::make(own.path())] {
        let ca = control.ca();
        let handshake = Handshake {
            port: control.port,
            name: &name,
            ca: Some(&ca),
            pair: Some(pair),
            alpn: &[],
        };
        let mut stream = handshake.open().unwrap();
        _ = stream.write_all(ASK);
        assert_eq!(bytes_until_close(&mut stream), b"");
    }
    control
        .program
        .wait_for_line("data plane refused.*no authority of control plane", soon());
}

/// Kong's data planes check the name even where both sides have the same certificate.
#[test]
fn a_shared_certificate_that_kong_would_refuse_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    let (cert, key) = (
        pair.cert.display().to_string(),
        pair.key.display().to_string(),
    );
    let control = Control::start_set(&["--cluster-cert", &cert, "--cluster-cert-key", &key]);
    control.program.wait_for_line(
        "not for the name kong_clustering.*sallyport certs --name kong_clustering",
        soon(),
    );
}

#[test]
fn kongs_shared_mode_and_every_configured_geo_are_served() {
    let dir = tempfile::tempdir().unwrap();
    sallyport()
        .args(["certs", "--name", "kong_clustering", "--out"])
        .arg(dir.path())
        .run(soon())
        .success();
    let shared = Pair {
        cert: dir.path().join("cluster.crt"),
        key: dir.path().join("cluster.key"),
    };
    let (cert, key) = (
        shared.cert.display().to_string(),
        shared.key.display().to_string(),
    );
    let echo = Echo::start();
    let control = Control::start_set(&[
        "--serve-geo",
        "au,eu,in,me",
        "--cluster-cert",
        &cert,
        "--cluster-cert-key",
        &key,
    ]);
    assert!(!control.program.output().contains("is not for the name"));
    control.route_to("first", echo.port());
    control.pin(&shared.cert());
    let gateway_dir = tempfile::tempdir().unwrap();
    let pair = Pair::store(gateway_dir.path(), &shared.cert(), &shared.key());
    let port = control.port;
    let text = format!(
        "role = data_plane\ndatabase = off\nprefix = {dir}/prefix\nproxy_listen = 127.0.0.1:{own}\n\
         status_listen = off\nadmin_listen = off\nlog_level = info\n\
         cluster_control_plane = 127.0.0.1:{port}\ncluster_cert = {cert}\ncluster_cert_key = {key}\n",
        dir = gateway_dir.path().display(),
        own = sallyport_testkit::free_port(),
        cert = pair.cert.display(),
        key = pair.key.display(),
    );
    write(&gateway_dir.path().join("kong.conf"), text);
    let gateway = sallyport()
        .args(["gateway", "-c", "kong.conf"])
        .dir(gateway_dir.path())
        .start();
    gateway.wait_for_line("configuration in force.*routes: 1", soon());

    for geo in ["au", "eu", "in", "me", "us"] {
        let dir = tempfile::tempdir().unwrap();
        let pair = Pair::make(dir.path());
        control.pin(&pair.cert());
        let name = format!("{}.{geo}.cp0.sallyport.localhost", control.prefix);
        let gateway = Gateway::start_at((&control, control.port, &name), dir, &pair, "");
        gateway.wait_for("/first", 200, soon());
    }
}

#[test]
fn one_bad_object_is_refused_alone_and_the_control_plane_shows_it() {
    let echo = Echo::start();
    let control = Control::start();
    control.route_to("first", echo.port());
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    // a gateway that was told to do without most plugins
    let gateway = Gateway::start_set(&control, dir, &pair, "plugins = key-auth");
    gateway.wait_for("/first", 200, soon());
    wait(&control, &["--timeout", "30"]).run(soon()).success();

    // one that only watches opens nothing when it is left out
    control.put(
        "plugins/7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d12",
        &json!({"name": "http-log", "config": {"http_endpoint": "http://127.0.0.1:1/"}}),
    );
    control.route_to("second", echo.port());
    gateway.wait_for("/second", 200, soon());
    assert_eq!(gateway.status_of("/first"), 200);
    eventually("the control plane shows what was refused", soon(), || {
        node_issue(&control).is_some_and(|issue| {
            issue["code"] == "entity_refused"
                && issue["affected_resources"][0]["type"] == "plugins"
                && issue["description"].as_str().unwrap().contains("http-log")
        })
    });
    // so this version is not live everywhere, and `wait` says why
    let late = wait(&control, &["--timeout", "1"]).run(soon());
    assert!(late.stderr.contains("http-log"), "{}", late.stderr);

    // one that guards closes what it guards; other changes cost no more because of it
    let guard = "plugins/7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d13";
    let routes = control.core("GET", "routes", &Value::Null).json();
    let mut routes = routes["data"].as_array().unwrap().iter();
    let route = routes.find(|route| route["name"] == "second").unwrap();
    let scope = json!({"id": route["id"]});
    control.put(guard, &json!({"name": "cors", "route": scope}));
    gateway.wait_for("/second", 503, soon());
    control.route_to("third", echo.port());
    gateway.wait_for("/third", 200, soon());
    assert_eq!(gateway.status_of("/second"), 503);
    assert_eq!(control.core("DELETE", guard, &Value::Null).status, 204);
    gateway.wait_for("/second", 200, soon());

    let path = "plugins/7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d12";
    assert_eq!(control.core("DELETE", path, &Value::Null).status, 204);
    wait(&control, &["--timeout", "30"]).run(soon()).success();
    assert_eq!(node_issue(&control), None);
    control.wait_in_sync(1);
    let sync = gateway.ask_status("/status").json()["config_sync"].clone();
    assert_eq!(sync["rebuilds"], 0, "{sync}");
    // a version that is not there yet is no wait at all
    let never = wait(&control, &["--version", "4711"]).run(soon());
    assert!(
        never.stderr.contains("there is no version 4711 yet"),
        "{}",
        never.stderr
    );
    let named = |name: &str| {
        let wait = sallyport().args(["wait", "--address", &control.url("")]);
        let token = control.home().join("token").display().to_string();
        wait.args(["--token-file", &token, "--control-plane", name])
            .run(soon())
    };
    named("default").success();
    let unknown = named("no such one");
    let reason = "there is no control plane \"no such one\"";
    assert!(unknown.stderr.contains(reason), "{}", unknown.stderr);
}

#[test]
fn what_a_refused_plugin_was_to_guard_is_closed_and_nothing_else() {
    closed("");
}

/// Where whole configurations travel, the control plane learns of it by an error report.
#[test]
fn what_is_refused_of_a_whole_configuration_is_closed_and_told_as_well() {
    closed("sallyport_sync = v1\n");
}

/// With this line in `kong.conf` of the gateway.
fn closed(conf: &str) {
    let echo = Echo::start();
    let mut control = Control::start();
    control.route_to("open", echo.port());
    control.route_to("guarded", echo.port());
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    let conf = format!("plugins = key-auth,session\n{conf}");
    let mut gateway = Gateway::start_set(&control, dir, &pair, &conf);
    gateway.wait_for("/guarded", 200, soon());

    // its secret is in a vault that this machine does not have
    let plugin = "plugins/7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d12";
    let routes = control.core("GET", "routes", &Value::Null).json();
    let mut routes = routes["data"].as_array().unwrap().iter();
    let route = routes.find(|route| route["name"] == "guarded").unwrap();
    let route = json!({"id": route["id"]});
    let session =
        |secret: &str| json!({"name": "session", "route": route, "config": {"secret": secret}});
    let missing = "{vault://env/no-such-secret}";
    control.put(plugin, &session(missing));
    gateway.wait_for("/guarded", 503, soon());
    let answer = get(gateway.url("/guarded")).send().unwrap();
    let text = answer.text();
    assert!(
        text.contains("refused a part of its configuration"),
        "{text}"
    );
    assert_eq!(gateway.status_of("/open"), 200);
    let line = gateway.program.wait_for_line("entity refused", soon()).line;
    assert!(
        line.contains("NO_SUCH_SECRET") && line.contains("closed: true"),
        "{line}"
    );
    eventually("the control plane shows it", soon(), || {
        node_issue(&control).is_some_and(|issue| {
            let text = |field: &str| issue[field].as_str().unwrap_or_default().to_owned();
            text("description").contains("NO_SUCH_SECRET") && text("resolution").contains("503")
        })
    });
    let late = wait(&control, &["--timeout", "1"]).run(soon());
    assert!(late.stderr.contains("NO_SUCH_SECRET"), "{}", late.stderr);
    // other changes go on, and a restart without a control plane does not open it
    control.route_to("later", echo.port());
    gateway.wait_for("/later", 200, soon());
    assert_eq!(gateway.status_of("/guarded"), 503);
    control.kill9();
    gateway.kill9_and_start();
    assert_eq!(gateway.status_of("/guarded"), 503);
    assert_eq!(gateway.status_of("/open"), 200);
    control.start_again();
    control.put(plugin, &session("a good secret of many bytes"));
    gateway.wait_for("/guarded", 200, after_reconnect());
    // now there is a version to go on with
    control.put(plugin, &session(missing));
    eventually("the version before is kept", soon(), || {
        node_issue(&control).is_some_and(|issue| {
            let resolution = issue["resolution"].as_str().unwrap_or_default();
            resolution.contains("an earlier version")
        })
    });
    assert_eq!(gateway.status_of("/guarded"), 200);
    control.put(plugin, &session("another good secret of many bytes"));
    wait(&control, &["--timeout", "30"]).run(soon()).success();
    assert_eq!(node_issue(&control), None);
}

#[test]
fn a_new_gateway_starts_from_an_exported_file_while_the_control_plane_is_away() {
    let echo = Echo::start();
    let mut control = Control::start();
    control.route_to("first", echo.port());
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    let export = |id: &str| {
        let path = format!("/v2/control-planes/{id}/snapshot?valid_days=2");
        let file = control.api("GET", &path, &Value::Null);
        assert_eq!(file.status, 200);
        file
    };
    let file = export(&control.id);
    let foreign = dir.path().join("other.snapshot");
    write(&foreign, &export(&control.another("other")).body);
    let keys = control.api("GET", "/v3/audit-log-webhook/jwks.json", &Value::Null);
    let (snapshot, key) = (dir.path().join("cp.snapshot"), dir.path().join("keys.json"));
    write(&snapshot, &file.body);
    write(&key, keys.text());
    control.kill9();

    // its settings, and proof that it has nothing to serve of itself
    let gateway = Gateway::start_with(&control, dir, &pair);
    gateway.wait_for("/first", 404, soon());
    let dir = gateway.into_dir();
    let text = std::fs::read_to_string(dir.path().join("kong.conf")).unwrap();
    // one flipped bit
    let mut bytes = file.body.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = dir.path().join("damaged.snapshot");
    write(&damaged, &bytes);
    let start_with = |file: &std::path::Path, key: &std::path::Path| {
        sallyport()
            .args([
                "gateway",
                "-c",
                "kong.conf",
                "--bootstrap",
                &file.display().to_string(),
            ])
            .args(["--bootstrap-key", &key.display().to_string()])
            .dir(dir.path())
    };
    let start = |file: &std::path::Path| start_with(file, &key);
    let refused = start(&damaged).run(soon());
    assert!(
        refused.stderr.contains("its signature is not of this key"),
        "{}",
        refused.stderr
    );

    // too old, with a good signature: of a key that we have as well
    let exported = snapshot::read(&file.body).unwrap();
    let header = snapshot::Header {
        expires_at: 1_700_000_000,
        ..exported.header
    };
    let mut old = snapshot::unsigned(&header, exported.payload);
    let own = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    old.extend(own.sign(&old).as_ref());
    let (expired, own_key) = (dir.path().join("old.snapshot"), dir.path().join("own.key"));
    write(&expired, &old);
    write(&own_key, URL_SAFE_NO_PAD.encode(own.public_key()));
    let refused = start_with(&expired, &own_key).run(soon());
    assert!(!refused.status.success());
    let reason = "it could be started from until 2023-11-14T22:13:20Z only; export a new one";
    assert!(refused.stderr.contains(reason), "{}", refused.stderr);

    // of another control plane, with a good signature
    let refused = start(&foreign).run(soon());
    let reason = "this gateway dials the one with the prefix";
    assert!(refused.stderr.contains(reason), "{}", refused.stderr);

    let gateway = start(&snapshot).start();
    gateway.wait_for_line("starting from an exported configuration", soon());
    gateway.wait_for_line("last-known-good configuration in force.*routes: 1", soon());
    let port = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("proxy_listen = 127.0.0.1:"))
        .unwrap()
        .to_owned();
    let get = |path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        get(url).send().map_or(0, |answer| answer.status)
    };
    eventually("it serves without a control plane", soon(), || {
        get("/first") == 200
    });
    // and goes on from there with changes only
    control.start_again();
    control.route_to("second", echo.port());
    eventually("what changed comes", after_reconnect(), || {
        get("/second") == 200
    });
}
