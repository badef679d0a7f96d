//! `key-auth` through a running gateway: who is let in, and what the two sides get to see.

use sallyport_testkit::Echo;
use sallyport_testkit::http::{Response, request};

use crate::lab::Alone;

fn document(echo: &Echo) -> String {
    format!(
        r#"
_format_version: "3.0"
services:
- name: echo
  url: {}
  routes:
  - {{name: open, paths: [/open]}}
  - name: shut
    paths: [/shut]
    plugins: [{{name: key-auth}}]
  - name: hidden
    paths: [/hidden]
    plugins:
    - {{name: key-auth, config: {{hide_credentials: true, key_names: [x-key], realm: shop}}}}
  - name: body
    paths: [/body]
    plugins:
    - {{name: key-auth, config: {{hide_credentials: true, key_in_body: true}}}}
consumers:
- {{username: eve, keyauth_credentials: [{{key: old-secret, ttl: 60, created_at: 1}},
    {{key: new-secret, ttl: 3600}}]}}
- {{username: alice, custom_id: "0815", keyauth_credentials: [{{key: alices-secret}}]}}
- {{username: bob, keyauth_credentials: [{{key: bobs-secret}}]}}
"#,
        echo.url()
    )
}

#[track_caller]
fn refused(answer: &Response, message: &str, challenge: &str) {
    assert_eq!(answer.status, 401);
    let body = answer.json();
    assert_eq!(body["message"], message);
    assert_eq!(
        body["request_id"].as_str(),
        answer.header("x-kong-request-id")
    );
    assert_eq!(answer.header("www-authenticate"), Some(challenge));
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(answer.header("server"), Some("kong/3.9.1"));
    assert!(answer.header("x-kong-response-latency").is_some());
    assert!(
        answer.header("x-kong-upstream-latency").is_none(),
        "no upstream was asked"
    );
}

#[test]
fn no_key_and_a_wrong_key_do_not_reach_the_upstream() {
    let echo = Echo::start();
    let gateway = Alone::start(&document(&echo), "");
    refused(
        &gateway.get("/shut").send().unwrap(),
        "No API key found in request",
        "Key",
    );
    let wrong = gateway
        .get("/shut")
        .header("apikey", "guessed")
        .send()
        .unwrap();
    refused(&wrong, "Unauthorized", "Key");
    let other_name = gateway
        .get("/hidden")
        .header("apikey", "alices-secret")
        .send()
        .unwrap();
    refused(
        &other_name,
        "No API key found in request",
        "Key realm=\"shop\"",
    );
    assert_eq!(echo.count(), 0);
    assert_eq!(gateway.get("/open").send().unwrap().status, 200);
}

#[test]
fn the_upstream_learns_who_it_is() {
    let echo = Echo::start();
    let gateway = Alone::start(&document(&echo), "");
    for request in [
        gateway.get("/shut").header("apikey", "alices-secret"),
        gateway.get("/shut?apikey=alices-secret"),
        // what a client claims about itself is replaced
        gateway
            .get("/shut")
            .header("apikey", "alices-secret")
            .header("X-Consumer-Username", "bob")
            .header("X-Anonymous-Consumer", "true"),
    ] {
        let seen = request.send().unwrap().json();
        let headers = &seen["headers"];
        assert_eq!(headers["x-consumer-username"], serde_json::json!(["alice"]));
        assert_eq!(headers["x-consumer-custom-id"], serde_json::json!(["0815"]));
        assert_eq!(headers["x-consumer-id"][0].as_str().unwrap().len(), 36);
        assert_eq!(
            headers["x-credential-identifier"][0]
                .as_str()
                .unwrap()
                .len(),
            36
        );
        assert!(headers["x-anonymous-consumer"].is_null(), "{headers:#}");
    }
    let bob = gateway
        .get("/shut")
        .header("apikey", "bobs-secret")
        .send()
        .unwrap()
        .json();
    assert_eq!(bob["headers"]["x-consumer-username"][0], "bob");
    assert!(bob["headers"]["x-consumer-custom-id"].is_null());
}

#[test]
fn a_hidden_key_stays_at_the_gateway() {
    let echo = Echo::start();
    let gateway = Alone::start(&document(&echo), "");
    let in_header = gateway
        .get("/hidden")
        .header("X-Key", "bobs-secret")
        .send()
        .unwrap();
    assert_eq!(in_header.status, 200);
    assert!(
        !in_header.text().contains("bobs-secret"),
        "{}",
        in_header.text()
    );
    let in_query = gateway
        .get("/hidden?a=1&x-key=bobs-secret&b=2")
        .send()
        .unwrap();
    assert_eq!(in_query.json()["path"], "/?a=1&b=2");
    let in_body = |content_type: &str, body: &str| {
        request("POST", format!("http://127.0.0.1:{}/body", gateway.port))
            .header("Content-Type", content_type)
            .body(body)
            .send()
            .unwrap()
    };
    let seen = in_body("application/json", r#"{"apikey":"bobs-secret","a":1}"#);
    assert_eq!(seen.status, 200, "{}", seen.text());
    let seen = seen.json();
    assert_eq!(seen["body"], r#"{"a":1}"#, "{seen:#}");
    assert_eq!(seen["headers"]["content-length"][0], "7", "{seen:#}");
    let form = "application/x-www-form-urlencoded";
    assert_eq!(
        in_body(form, "a=1&apikey=bobs-secret").json()["body"],
        "a=1"
    );
    assert_eq!(in_body(form, "a=1&apikey=wrong").status, 401);
}

#[test]
fn a_key_whose_time_is_over_is_none() {
    let echo = Echo::start();
    let gateway = Alone::start(&document(&echo), "");
    let with = |key: &str| gateway.get("/shut").header("apikey", key).send().unwrap();
    refused(&with("old-secret"), "Unauthorized", "Key");
    // its time began when the document was loaded
    assert_eq!(with("new-secret").status, 200);
}
