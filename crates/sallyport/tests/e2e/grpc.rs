//! gRPC through a gateway, between a client and a server of another project.

use sallyport_testkit::http::request;
use sallyport_testkit::{Deadline, Program, eventually, free_port, free_ports};
use serde_json::{Value, json};

use crate::lab::{Doors, python, soon, write};

const GRPCIO: (&str, &str) = ("grpc", "grpcio of PyPI");

fn document([plain, tls]: [u16; 2]) -> String {
    let dead = free_port();
    format!(
        r#"
_format_version: "3.0"
consumers:
- {{username: caller, keyauth_credentials: [{{key: secret}}]}}
upstreams:
- name: several.test
  targets: [{{target: "127.0.0.1:{dead}"}}, {{target: "127.0.0.1:{plain}"}}]
services:
- name: several
  url: grpc://several.test
  routes: [{{name: several, paths: [/several], strip_path: true}}]
- name: plain
  url: grpc://127.0.0.1:{plain}
  routes:
  - {{name: plain, protocols: [grpc, grpcs], paths: [/t.Echo]}}
  - {{name: secure, protocols: [grpcs], paths: [/secure]}}
- name: through
  url: grpc://127.0.0.1:{plain}
  routes:
  - {{name: through, paths: [/plain], strip_path: true}}
  - {{name: key, paths: [/key], strip_path: true, plugins: [{{name: key-auth}}]}}
- name: silent
  url: grpc://127.0.0.1:{plain}
  read_timeout: 300
  routes: [{{name: silent, paths: [/silent], strip_path: true}}]
- name: tls
  url: grpcs://127.0.0.1:{tls}
  routes: [{{name: tls, paths: [/tls], strip_path: true}}]
- name: dead
  url: grpc://127.0.0.1:{dead}
  retries: 1
  routes: [{{name: dead, paths: [/dead], strip_path: true}}]
"#
    )
}

#[test]
fn calls_of_every_kind_pass_both_ways() {
    let Some(python) = python(GRPCIO.0, GRPCIO.1) else {
        return;
    };
    let serve = free_ports();
    let gateway = Doors::start(&document(serve), "nginx_main_worker_processes = 1");
    let script = gateway.dir.path().join("grpc_calls.py");
    write(&script, include_str!("grpc_calls.py"));
    let asked = json!({
        "serve": serve, "cert": gateway.cert, "key": gateway.key,
        "plain": gateway.plain, "tls": gateway.tls,
    });
    let done = Program::new(&python)
        .arg(&script)
        .arg(asked.to_string())
        .run(Deadline::secs(240));
    let seen: Value = serde_json::from_str(&done.success().stdout).unwrap();
    for door in ["plain", "tls"] {
        let mut expected = json!({
            "unary": ["one", "1", "2", "00ff", true],
            "seen": ["kept", true],
            "big": true,
            "many": true,
            "shared": true,
            "client": 500 * 1001 - 1,
            "server": 10 * 1000 + 90 * 2000 + 400 * 3000,
            "bidi": [["hello", "A", "B", "C"], "done"],
            "fail": ["INVALID_ARGUMENT", "100 % böse"],
            "why": "because",
            "early": ["RESOURCE_EXHAUSTED", "enough"],
            "deadline": "DEADLINE_EXCEEDED",
            "deadline_seen": true,
            "cancel_seen": true,
            "nowhere": ["NOT_FOUND", "no Route matched with those values"],
            "several": true,
            "dead": ["INTERNAL", "An invalid response was received from the upstream server"],
            "key": ["UNAUTHENTICATED", "No API key found in request"],
            "with_key": "in",
            "silent": ["DEADLINE_EXCEEDED", "The upstream server is timing out"],
            "only_tls": ["CANCELLED", "gRPC request matched gRPCs route"],
        });
        if door == "tls" {
            // stripped of nothing: the server has no method of that name
            expected["only_tls"] = json!(["UNIMPLEMENTED", "Method not found!"]);
        }
        assert_eq!(seen[door], expected, "{door}");
    }
}

#[test]
fn what_is_no_call_is_told_so() {
    let gateway = Doors::start(&document(free_ports()), "");
    let post = |kind: &str| {
        let url = format!("http://127.0.0.1:{}/t.Echo/Unary", gateway.plain);
        let request = request("POST", url).header("Content-Type", kind);
        request
            .header("Accept", "application/json")
            .body("x")
            .send()
            .unwrap()
    };
    let json = post("application/json");
    assert_eq!(json.status, 415);
    assert_eq!(
        json.json()["message"],
        "Non-gRPC request matched gRPC route"
    );
    let old = post("application/grpc");
    assert_eq!(old.status, 426);
    assert_eq!(old.header("upgrade"), Some("HTTP/2"));
    assert_eq!(old.json()["message"], "Please use HTTP2 protocol");
}

/// The health protocol of gRPC, asked of a server of another project.
#[test]
fn targets_are_asked_for_their_health() {
    let Some(python) = python(GRPCIO.0, GRPCIO.1) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [port, status] = free_ports();
    let document = format!(
        r#"
_format_version: "3.0"
upstreams:
- name: calls.test
  targets: [{{target: "127.0.0.1:{port}"}}]
  healthchecks:
    active:
      type: grpc
      timeout: 5
      healthy: {{interval: 0.1, successes: 1}}
      unhealthy: {{interval: 0.1, http_failures: 1, tcp_failures: 1, timeouts: 1}}
services:
- {{name: calls, protocol: grpc, host: calls.test, port: 80, routes: [{{paths: [/]}}]}}
"#
    );
    let more = format!("status_listen = 127.0.0.1:{status}");
    let _gateway = Doors::start(&document, &more);
    let script = dir.path().join("health.py");
    write(&script, include_str!("grpc_health.py"));
    let health = || {
        let url = format!("http://127.0.0.1:{status}/upstreams/calls.test/health");
        let answer = sallyport_testkit::http::get(url).send().unwrap().json();
        answer["data"][0]["health"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let is = |wanted: &str| {
        let what = format!("the target is {wanted}");
        eventually(&what, soon(), || health() == wanted);
    };
    is("UNHEALTHY"); // nobody is there
    for (serving, expected) in [
        ("1", "HEALTHY"),
        ("2", "UNHEALTHY"),
        ("1", "HEALTHY"),
        ("none", "UNHEALTHY"),
    ] {
        let server = Program::new(&python)
            .arg(&script)
            .args([&port.to_string(), serving])
            .start();
        server.wait_for_line("serving", soon());
        is(expected);
        drop(server);
    }
}
