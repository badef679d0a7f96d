//! The real decK 1.4.0 against the core-entities of a control plane.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::process::Output;

use http::Method;
use serde_json::Value;
use support::Lab;

/// A file that names every default that decK 1.4.0 does not know of itself.
const SPELLED_OUT: &str = r#"
_format_version: "1.1"
services:
- name: orders
  host: orders.upstream.example
  port: 8080
  protocol: http
  path: /api
  retries: 5
  connect_timeout: 60000
  read_timeout: 60000
  write_timeout: 60000
  tags: [shop]
  routes:
  - name: orders
    paths: [/orders]
    methods: [GET, POST]
    protocols: [http, https]
    strip_path: true
    preserve_host: false
    https_redirect_status_code: 426
    path_handling: v0
    regex_priority: 0
    request_buffering: true
    response_buffering: true
    plugins:
    - name: key-auth
      enabled: true
      protocols: [grpc, grpcs, http, https]
      config: KEY_AUTH
consumers:
- username: alice
  custom_id: "1"
  keyauth_credentials:
  - key: alices-secret
plugins:
- name: rate-limiting
  enabled: true
  protocols: [grpc, grpcs, http, https]
  config: RATE_LIMITING
upstreams:
- name: orders.upstream.example
  algorithm: round-robin
  hash_on: none
  hash_fallback: none
  hash_on_cookie_path: /
  slots: 10000
  healthchecks:
    threshold: 0
    active: {type: http, https_verify_certificate: true}
    passive: {type: http}
  targets:
  - target: 127.0.0.1:9001
    weight: 100
  - target: 127.0.0.1:9002
    weight: 50
"#;

/// Runs decK with the connection arguments of the lab.
async fn deck(lab: &Lab, arguments: &[&str]) -> Output {
    let address = format!(
        "https://{}/v2/control-planes/{}/core-entities",
        lab.running.local_addr,
        lab.cp()
    );
    let mut command = tokio::process::Command::new("deck");
    command
        .args(arguments)
        .args(["--kong-addr", &address, "--tls-skip-verify"])
        .args([
            "--headers",
            &format!("Authorization:Bearer {}", lab.first.token),
        ])
        .env("HOME", lab.directory.path())
        .kill_on_drop(true);
    command.output().await.unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = told(output);
    assert!(output.status.success(), "{text}");
    text
}

fn told(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

#[track_caller]
fn summary(text: &str, created: u32, updated: u32, deleted: u32) {
    for (what, count) in [
        ("Created", created),
        ("Updated", updated),
        ("Deleted", deleted),
    ] {
        assert!(
            text.contains(&format!("{what}: {count}\n")),
            "{what} {count}:\n{text}"
        );
    }
}

/// A plugin's defaults as this control plane fills them, for the spelled-out file.
async fn defaults(lab: &Lab, plugin: &str, config: Value) -> Value {
    let body = serde_json::json!({"name": plugin, "config": config});
    let made = lab.core(Method::POST, "plugins", body).await;
    assert_eq!(made.status, 201, "{:?}", made.body);
    let path = format!("plugins/{}", made.body["id"].as_str().unwrap());
    assert_eq!(
        lab.core(Method::DELETE, &path, Value::Null).await.status,
        204
    );
    made.body["config"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deck_pings_syncs_dumps_and_sees_no_difference() {
    if sallyport_testkit::foreign("deck", "deck").is_none() {
        return;
    }
    let lab = Lab::start().await;
    let key_auth = defaults(&lab, "key-auth", serde_json::json!({})).await;
    let limits = serde_json::json!({"minute": 5, "policy": "local"});
    let limits = defaults(&lab, "rate-limiting", limits).await;
    let text = SPELLED_OUT
        .replace("KEY_AUTH", &key_auth.to_string())
        .replace("RATE_LIMITING", &limits.to_string());
    let file = lab.directory.path().join("kong.yml");
    std::fs::write(&file, text).unwrap();
    let state = ["-s", file.to_str().unwrap()];

    let text = succeeded(&deck(&lab, &["ping"]).await);
    assert!(text.contains("Successfully connected to Kong!"), "{text}");
    assert!(text.contains("3.10.0"), "{text}");
    summary(
        &succeeded(&deck(&lab, &[&["sync"], &state[..]].concat()).await),
        9,
        0,
        0,
    );
    summary(
        &succeeded(&deck(&lab, &[&["sync"], &state[..]].concat()).await),
        0,
        0,
        0,
    );
    summary(
        &succeeded(&deck(&lab, &[&["diff"], &state[..]].concat()).await),
        0,
        0,
        0,
    );

    let revision = lab
        .store
        .revision(lab.first.control_plane.id)
        .await
        .unwrap();
    let found = lab.core(Method::GET, "routes/orders", Value::Null).await;
    assert_eq!(
        (found.status, &found.body["paths"][0]),
        (200, &Value::from("/orders"))
    );

    dump_has_no_difference(&lab).await;

    // One field of one entity: one write, and nothing left to do.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("retries: 5", "retries: 7")).unwrap();
    let output = deck(&lab, &[&["sync"], &state[..]].concat()).await;
    summary(&succeeded(&output), 0, 1, 0);
    let diff = deck(&lab, &[&["diff"], &state[..]].concat()).await;
    summary(&succeeded(&diff), 0, 0, 0);
    let now = lab
        .store
        .revision(lab.first.control_plane.id)
        .await
        .unwrap();
    assert_eq!(now, revision + 1);

    refused_with_a_reason(&lab).await;

    succeeded(&deck(&lab, &["reset", "--force"]).await);
    let left = lab
        .store
        .snapshot(lab.first.control_plane.id)
        .await
        .unwrap();
    assert_eq!(
        left.entities.keys().collect::<Vec<_>>(),
        Vec::<&sallyport_model::Kind>::new()
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deck_syncs_certificates_with_their_names() {
    if sallyport_testkit::foreign("deck", "deck").is_none() {
        return;
    }
    let lab = Lab::start().await;
    let pair = sallyport_runtime::certs::self_signed_localhost(30).unwrap();
    let ca = sallyport_runtime::certs::LocalCa::create("test", 30).unwrap();
    let id = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
    let document = serde_json::json!({
        "_format_version": "1.1",
        "certificates": [{"id": id, "cert": pair.cert, "key": pair.key,
                          "snis": [{"name": "a.example"}, {"name": "*.a.example"}]}],
        "ca_certificates": [{"cert": ca.pem().cert}],
        "services": [{"name": "s", "host": "a", "protocol": "https", "port": 443, "retries": 5,
                      "client_certificate": {"id": id}}],
    });
    let file = lab.directory.path().join("kong.yml");
    std::fs::write(&file, document.to_string()).unwrap();
    let state = ["-s", file.to_str().unwrap()];
    let sync = deck(&lab, &[&["sync"], &state[..]].concat()).await;
    summary(&succeeded(&sync), 5, 0, 0);
    let diff = deck(&lab, &[&["diff"], &state[..]].concat()).await;
    summary(&succeeded(&diff), 0, 0, 0);
    let dumped = lab.directory.path().join("dump.yml");
    let to = dumped.to_str().unwrap();
    succeeded(&deck(&lab, &["dump", "-o", to]).await);
    let text = std::fs::read_to_string(&dumped).unwrap();
    for part in ["'*.a.example'", "ca_certificates:", "client_certificate:"] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let diff = deck(&lab, &["diff", "-s", to]).await;
    summary(&succeeded(&diff), 0, 0, 0);
    succeeded(&deck(&lab, &["reset", "--force"]).await);
    let left = lab.core(Method::GET, "snis", Value::Null).await;
    assert_eq!(left.body["data"], serde_json::json!([]));
    lab.stop().await;
}

async fn dump_has_no_difference(lab: &Lab) {
    let dumped = lab.directory.path().join("dump.yml");
    let to = dumped.to_str().unwrap();
    succeeded(&deck(lab, &["dump", "-o", to]).await);
    let text = std::fs::read_to_string(&dumped).unwrap();
    for part in [
        "alices-secret",
        "/orders",
        "127.0.0.1:9002",
        "rate-limiting",
        "custom_id",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    summary(&succeeded(&deck(lab, &["diff", "-s", to]).await), 0, 0, 0);
}

/// What decK prints when the control plane refuses names the thing.
async fn refused_with_a_reason(lab: &Lab) {
    let check = async |text: &str, parts: &[&str]| {
        let file = lab.directory.path().join("bad.yml");
        std::fs::write(&file, format!("_format_version: \"1.1\"\n{text}")).unwrap();
        let state = file.to_str().unwrap();
        let output = deck(lab, &["sync", "-s", state, "--select-tag", "bad"]).await;
        assert!(!output.status.success());
        let text = told(&output);
        for part in parts {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    };
    check("plugins: [{name: no-such-plugin}]", &["no-such-plugin"]).await;
    check(
        "plugins: [{name: key-auth, config: {kye_names: [a]}}]",
        &["kye_names"],
    )
    .await;
    check("services: [{name: big, host: h, port: 70000}]", &["port"]).await;
    check("services: [{name: orders, host: h}]", &["name", "orders"]).await;
    let oauth2 = "consumers: [{username: bob, oauth2_credentials: [{name: app, client_id: c, \
                  client_secret: s, redirect_uris: ['https://a.example']}]}]";
    check(oauth2, &["oauth2", "not supported by this build"]).await;
}
