//! A request means the same here and at the upstream.

use super::*;

#[test]
fn what_an_escape_decodes_to_ends_no_header_line() {
    let echo = Echo::start();
    let gateway = routed(&echo, json!({"paths": ["~/u/[^/]+"]}));
    let seen = gateway.get("/u/x%0d%0aX-Injected:%20yes%0d%0a/rest").json();
    assert!(seen["headers"]["x-injected"].is_null(), "{seen}");
    assert_eq!(
        seen["headers"]["x-forwarded-prefix"],
        json!(["/u/x%0D%0AX-Injected:%20yes%0D%0A"])
    );
    assert_eq!(seen["path"], "/rest");
}

#[test]
fn the_upstream_reads_the_path_that_was_matched() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    let path = |target: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = gateway.raw(&head);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target} got {answer}");
        echo.last().unwrap().path
    };
    assert_eq!(path("/a|b?c|d"), "/a%7Cb?c|d");
    assert_eq!(path("/é"), "/%C3%A9");
    assert_eq!(path("http://x?a=1"), "/?a=1");
    assert_eq!(path("http://x"), "/");
    for refused in [
        "GET /%%34%31",
        "GET /%zz",
        "GET /a%00",
        "GET /%",
        "OPTIONS *",
    ] {
        let head = format!("{refused} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = gateway.raw(&head);
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{refused} got {answer}"
        );
    }
}

#[test]
fn the_host_of_the_target_is_the_host() {
    let echo = Echo::start();
    let gateway = routed(&echo, json!({"hosts": ["a.test"], "preserve_host": true}));
    let head = |host: &str| {
        format!("GET http://a.test/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    assert!(gateway.raw(&head("b.test")).starts_with("HTTP/1.1 400 "));
    assert!(echo.last().is_none(), "nobody else may read it otherwise");
    assert!(gateway.raw(&head("a.test")).starts_with("HTTP/1.1 200 "));
    let seen = echo.last().unwrap().headers;
    assert_eq!(seen.get("host"), Some("a.test"));
    assert_eq!(seen.get("x-forwarded-host"), Some("a.test"));
}

#[test]
fn a_client_cannot_take_away_who_it_is() {
    let echo = Echo::start();
    let declared = json!({
        "_format_version": "3.0",
        "services": [{"name": "s", "host": echo.addr().ip().to_string(), "port": echo.addr().port(),
            "routes": [{"name": "r", "paths": ["/"]}],
            "plugins": [{"name": "key-auth", "config": {"anonymous": "guest"}}]}],
        "consumers": [{"username": "guest"}],
    });
    let gateway = Running::declared(&declared, "");
    let seen = http::get(gateway.url("/"))
        .header("Connection", "X-Anonymous-Consumer, X-Consumer-Username")
        .send()
        .unwrap()
        .json();
    assert_eq!(seen["headers"]["x-anonymous-consumer"], json!(["true"]));
    assert_eq!(seen["headers"]["x-consumer-username"], json!(["guest"]));
}

#[test]
fn a_host_is_the_same_however_it_is_written() {
    let echo = Echo::start();
    let gateway = routed(&echo, json!({"hosts": ["a.test"]}));
    for host in [
        "a.test",
        "A.test",
        "a.test:80",
        "a.test.",
        "a.test.:80",
        "a.test:",
        "a.test:99999",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = gateway.raw(&head);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host} got {answer}");
    }
}
