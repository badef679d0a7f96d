//! The OpenAPI document of the running control plane, judged by Schemathesis, which sends what the
//! document allows and what it does not: no answer may be a 5xx, of a status, type or shape that the
//! document does not have.

use sallyport_testkit::{Deadline, Program, foreign};
use serde_json::{Value, json};

use crate::lab::{Control, write};

/// What is left out: whatever would take the control plane away that all the others are about, and
/// the past versions, which the same handlers answer.
const LEFT_OUT: &str = r"^/v2/control-planes/\{cp\}/versions/\{version\}/core-entities";

#[test]
fn schemathesis_finds_no_answer_that_the_document_does_not_have() {
    let Some(schemathesis) = foreign("schemathesis", "PyPI package schemathesis") else {
        return;
    };
    let control = Control::start();
    let made = |path: &str, body: Value| {
        let made = control.core("PUT", path, &body).json();
        made["id"].as_str().unwrap().to_owned()
    };
    let service = made("services/orders", json!({"host": "orders.example"}));
    made("routes/orders", json!({"paths": ["/orders"]}));
    made("upstreams/pool.example", json!({}));
    made("consumers/ann", json!({}));
    let me = control.api("GET", "/v3/users/me", &Value::Null).json();
    let organization = control
        .api("GET", "/v3/organizations/me", &Value::Null)
        .json();
    let dir = tempfile::tempdir().unwrap();
    let parameters = [
        ("cp", control.id.as_str()),
        ("user", me["id"].as_str().unwrap()),
        ("organization", organization["id"].as_str().unwrap()),
        ("parent", service.as_str()),
        ("table", "services"),
        ("plugin", "key-auth"),
        ("kind", "service"),
        ("version", "1"),
    ];
    let mut settings = String::from("[parameters]\n");
    for (name, value) in parameters {
        settings.push_str(&format!("\"path.{name}\" = \"{value}\"\n"));
    }
    write(&dir.path().join("schemathesis.toml"), &settings);
    let done = Program::new(&schemathesis)
        .args(["run", &control.url("/openapi.json")])
        .args([
            "--header",
            &format!("Authorization: Bearer {}", control.token()),
        ])
        .args(["--exclude-path-regex", LEFT_OUT])
        .args(["--exclude-operation-id", "delete-v2-control-planes-by-cp"])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,\
             response_schema_conformance",
        ])
        .args(["--phases", "coverage,fuzzing", "--max-examples", "4"])
        .args(["--seed", "1", "--workers", "2", "--no-shrink"])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .env("HOME", dir.path())
        .dir(dir.path())
        .run(Deadline::secs(500));
    assert!(done.status.success(), "{}\n{}", done.stdout, done.stderr);
}
