//! Kong's Admin API of one control plane: the same entities, Kong's errors, and decK 1.4.0 on it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Answer, Lab};

impl Lab {
    async fn admin(&self, method: Method, path: &str, body: Value) -> Answer {
        self.admin_as(method, path, &[], body).await
    }

    async fn admin_as(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let addr = self.running.admin_addr.unwrap();
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        support::plain(addr, method, path, headers, body).await
    }
}

#[tokio::test]
async fn kongs_paths_and_errors_on_the_same_entities() {
    let lab = Lab::start().await;
    let root = lab.admin(Method::GET, "/", Value::Null).await;
    assert!(root.body["version"].as_str().unwrap().starts_with("3."));
    let service = json!({"name": "s", "host": "h"});
    let made = lab.admin(Method::POST, "/services", service.clone()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let same = lab.core(Method::GET, "services/s", Value::Null).await;
    assert_eq!(same.body, made.body);
    let clash = lab.admin(Method::POST, "/services", service).await;
    assert_eq!((clash.status, &clash.body["code"]), (409, &json!(5)));
    let bad = lab
        .admin(Method::POST, "/services", json!({"name": "t"}))
        .await;
    assert_eq!(
        (bad.status, &bad.body["name"]),
        (400, &json!("schema violation"))
    );
    assert!(bad.body["fields"]["host"].is_string(), "{bad:?}");
    let missing = lab.admin(Method::GET, "/services/none", Value::Null).await;
    assert_eq!(
        (missing.status, missing.body),
        (404, json!({"message": "Not found"}))
    );
    let patched = lab
        .admin(Method::PATCH, "/services/s", json!({"port": 81}))
        .await;
    assert_eq!(
        (patched.status, &patched.body["port"], &patched.body["host"]),
        (200, &json!(81), &json!("h"))
    );
    let none = lab
        .admin(Method::PATCH, "/services/none", json!({"port": 81}))
        .await;
    assert_eq!(none.status, 404);
    let route = json!({"name": "r", "paths": ["/r"]});
    lab.admin(Method::POST, "/services/s/routes", route).await;
    let held = lab.admin(Method::DELETE, "/services/s", Value::Null).await;
    assert_eq!((held.status, &held.body["code"]), (400, &json!(4)));
    assert_eq!(held.body["fields"], json!({"@referenced_by": "routes"}));
    // a hashed password is not hashed again
    lab.admin(Method::PUT, "/consumers/ann", json!({})).await;
    let login = json!({"username": "ann", "password": "secret"});
    let login = lab
        .admin(Method::POST, "/consumers/ann/basic-auth", login)
        .await;
    let path = format!(
        "/consumers/ann/basic-auth/{}",
        login.body["id"].as_str().unwrap()
    );
    let tagged = lab
        .admin(Method::PATCH, &path, json!({"tags": ["a"]}))
        .await;
    assert_eq!(tagged.body["password"], login.body["password"]);
    let again = lab
        .admin(Method::PATCH, &path, json!({"password": "other"}))
        .await;
    assert_ne!(again.body["password"], login.body["password"]);
    // pages lead on
    for number in 0..3 {
        let path = format!("/services/p{number}");
        lab.admin(Method::PUT, &path, json!({"host": "h"})).await;
    }
    let page = lab
        .admin(Method::GET, "/services?size=2", Value::Null)
        .await;
    let next = page.body["next"].as_str().unwrap();
    assert!(next.starts_with("/services?offset="), "{next}");
    let rest = lab.admin(Method::GET, next, Value::Null).await;
    assert_eq!(rest.body["data"].as_array().unwrap().len(), 2);
    for bad in [
        "/services?size=0",
        "/services?offset=x",
        "/services?tags=a,b/c",
    ] {
        let answer = lab.admin(Method::GET, bad, Value::Null).await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
    }
    let status = lab.admin(Method::GET, "/status", Value::Null).await;
    assert_eq!(status.body["database"]["reachable"], true);
    let unknown = lab
        .admin(Method::GET, "/../v2/control-planes", Value::Null)
        .await;
    assert_eq!(unknown.status, 404);
    lab.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_needs_a_token() {
    let lab = Lab::start().await;
    let path = "/services";
    let elsewhere = [("origin", "https://evil.example")];
    let refused = lab
        .admin_as(Method::GET, path, &elsewhere, Value::Null)
        .await;
    assert_eq!(refused.status, 401);
    let rebound = [("host", "evil.example:8001")];
    let refused = lab.admin_as(Method::GET, path, &rebound, Value::Null).await;
    assert_eq!(refused.status, 401);
    let token = [("kong-admin-token", lab.first.token.as_str())];
    let allowed = lab.admin_as(Method::GET, path, &token, Value::Null).await;
    assert_eq!(allowed.status, 200);
    let wrong = [("kong-admin-token", "kpat_wrong")];
    let refused = lab.admin_as(Method::GET, path, &wrong, Value::Null).await;
    assert_eq!(refused.status, 401, "a wrong token is not as good as none");
    lab.stop().await;
}

const FILE: &str = r#"
_format_version: "1.1"
services:
- name: orders
  host: orders.example
  retries: 5
  routes:
  - name: orders
    paths: [/orders]
    strip_path: true
    https_redirect_status_code: 426
    path_handling: v0
    request_buffering: true
    response_buffering: true
upstreams:
- name: pool.example
  targets:
  - target: 10.0.0.1:80
consumers:
- username: ann
  keyauth_credentials:
  - key: a-key-of-ann
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deck_works_on_the_plain_admin_api() {
    if sallyport_testkit::foreign("deck", "deck").is_none() {
        return;
    }
    let lab = Lab::start().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("kong.yml"), FILE).unwrap();
    let addr = format!("http://{}", lab.running.admin_addr.unwrap());
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("deck");
        command
            .args(arguments)
            .args(["--kong-addr", &addr])
            .env("HOME", directory.path())
            .current_dir(directory.path())
            .kill_on_drop(true);
        let output = command.output().await.unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    };
    run(&["ping"]).await;
    let said = run(&["sync", "-s", "kong.yml"]).await;
    assert!(said.contains("Created: 6"), "{said}");
    let key = lab
        .core(Method::GET, "key-auths/a-key-of-ann", Value::Null)
        .await;
    assert_eq!(key.status, 200);
    run(&["dump", "-o", "dumped.yml"]).await;
    let said = run(&["diff", "-s", "dumped.yml"]).await;
    for none in ["Created: 0", "Updated: 0", "Deleted: 0"] {
        assert!(said.contains(none), "{said}");
    }
    run(&["reset", "--force"]).await;
    let left = lab.core(Method::GET, "targets", Value::Null).await;
    assert_eq!(left.body["data"], json!([]));
    lab.stop().await;
}
