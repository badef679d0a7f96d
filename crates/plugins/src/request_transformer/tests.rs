use http::request::Builder;

use super::*;
use crate::exchange::Captures;
use crate::testing::exchange;
use crate::trial::{Trial, get, lines, post, problems};

/// What the upstream sees: target, headers but `content-type`, and body.
#[track_caller]
fn upstream(config: Value, mut exchange: Exchange, body: &str) -> (String, Vec<String>, String) {
    let trial = Trial::new(&RequestTransformer, config);
    let answer = trial.access(&mut exchange, body.as_bytes());
    assert!(answer.is_none(), "{answer:?}");
    let mut headers = lines(&exchange.request.headers);
    headers.retain(|line| !line.starts_with("content-type"));
    let body = match &exchange.body {
        RequestBody::Here(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        _ => body.to_owned(),
    };
    (exchange.request.uri.to_string(), headers, body)
}

#[track_caller]
fn check_headers(config: Value, given: &[(&str, &str)], expected: &[&str]) {
    let request = given
        .iter()
        .fold(Builder::new().uri("/"), |request, (name, value)| {
            request.header(*name, *value)
        });
    assert_eq!(upstream(config, exchange(request), "").1, expected);
}

#[test]
fn headers_are_edited_section_by_section() {
    let one = [("x-a", "1"), ("x-b", "2")];
    check_headers(json!({"remove": {"headers": ["X-A"]}}), &one, &["x-b: 2"]);
    check_headers(
        json!({"rename": {"headers": ["X-A:X-B"]}}),
        &one,
        &["x-b: 1"],
    );
    check_headers(
        json!({"rename": {"headers": ["X-C:X-B"]}}),
        &one,
        &["x-a: 1", "x-b: 2"],
    );
    check_headers(
        json!({"replace": {"headers": ["X-A:new:value", "x-c:no"]}}),
        &one,
        &["x-b: 2", "x-a: new:value"],
    );
    check_headers(
        json!({"add": {"headers": ["x-a:no", "x-c:3"]}}),
        &one,
        &["x-a: 1", "x-b: 2", "x-c: 3"],
    );
    check_headers(
        json!({"append": {"headers": ["x-a:2", "x-c:3"]}}),
        &one,
        &["x-a: 1", "x-b: 2", "x-a: 2", "x-c: 3"],
    );
    // remove runs before add
    let config = json!({"add": {"headers": ["authorization:Basic test"]},
                        "remove": {"headers": ["authorization"]}});
    check_headers(
        config,
        &[("authorization", "old")],
        &["authorization: Basic test"],
    );
}

#[test]
fn the_host_can_only_be_replaced() {
    let config = json!({"remove": {"headers": ["host"]}, "add": {"headers": ["host:no"]},
                        "replace": {"headers": ["Host:$(headers.host).new"]}});
    let mut exchange = exchange(Builder::new().uri("/").header("host", "old"));
    Trial::new(&RequestTransformer, config).access(&mut exchange, b"");
    assert_eq!(exchange.upstream_host.unwrap(), "old.new");
    assert_eq!(exchange.request.headers.get_str(&HOST), Some("old"));
}

#[track_caller]
fn check_query(config: Value, uri: &str, expected: &str) {
    assert_eq!(upstream(config, get(uri), "").0, expected);
}

#[test]
fn arguments_are_edited() {
    let of = |section: &str, pair: &str| json!({section: {"querystring": [pair]}});
    check_query(of("remove", "a"), "/p?a=1&b=2&a=3", "/p?b=2");
    check_query(of("remove", "a"), "/p?a=1", "/p");
    check_query(of("rename", "a:c"), "/p?a=1&b=2", "/p?c=1&b=2");
    check_query(of("replace", "a:x y"), "/p?a=1&b=2", "/p?a=x%20y&b=2");
    check_query(of("replace", "c:3"), "/p?a=1", "/p?a=1");
    check_query(of("add", "a:2"), "/p?a=1", "/p?a=1");
    check_query(of("add", "c[0]:2"), "/p", "/p?c%5B0%5D=2");
    check_query(of("append", "a:2"), "/p?a=1", "/p?a=1&a=2");
    // what is not edited is not rewritten
    check_query(of("add", "b:2"), "/p?a=$&a=+,/:;?@", "/p?a=$&a=+,/:;?@&b=2");
    check_query(json!({}), "/p?a=%7e", "/p?a=%7e");
}

#[track_caller]
fn check_body(config: Value, content_type: &str, body: &str, expected: &str) {
    let config = Value::Object(
        config
            .as_object()
            .unwrap()
            .iter()
            .map(|(section, list)| (section.clone(), json!({ "body": list })))
            .collect(),
    );
    assert_eq!(upstream(config, post("/", content_type), body).2, expected);
}

#[test]
fn json_bodies_are_edited() {
    let json = "application/json; charset=utf-8";
    let body = r#"{"a":1,"b":"x"}"#;
    check_body(json!({"remove": ["a"]}), json, body, r#"{"b":"x"}"#);
    check_body(json!({"rename": ["a:c"]}), json, body, r#"{"b":"x","c":1}"#);
    check_body(
        json!({"replace": ["a:2", "z:3"]}),
        json,
        body,
        r#"{"a":"2","b":"x"}"#,
    );
    check_body(
        json!({"add": ["a:2", "z:3"]}),
        json,
        body,
        r#"{"a":1,"b":"x","z":"3"}"#,
    );
    check_body(
        json!({"append": ["a:2", "b:y", "z:3"]}),
        json,
        body,
        r#"{"a":["2"],"b":["x","y"],"z":["3"]}"#,
    );
    check_body(json!({"add": ["a:1"]}), json, "", r#"{"a":"1"}"#);
    // not what the type says, or nothing to do: not a byte changes
    for body in ["[1]", "{", "1", "\"a\"", r#"{ "b" : 1 }"#] {
        check_body(
            json!({"remove": ["a"], "rename": ["a:c"]}),
            json,
            body,
            body,
        );
    }
    check_body(json!({"add": ["a:1"]}), "text/plain", "x", "x");
}

#[test]
fn forms_are_edited() {
    let form = "application/x-www-form-urlencoded";
    check_body(json!({"remove": ["a"]}), form, "a=1&b=2", "b=2");
    check_body(
        json!({"rename": ["a:c"], "replace": ["b:3"]}),
        form,
        "a=1&b=2",
        "c=1&b=3",
    );
    check_body(
        json!({"add": ["c:x y"], "append": ["a:2"]}),
        form,
        "a=1",
        "a=1&c=x%20y&a=2",
    );
    check_body(json!({"add": ["c:1"]}), form, "", "c=1");
    let multipart = "multipart/form-data; boundary=b";
    let part = |name: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = part("a", "1") + &part("b", "2") + "--b--\r\n";
    let after = part("c", "1") + &part("b", "3") + &part("d", "4") + "--b--\r\n";
    let config = json!({"rename": ["a:c"], "replace": ["b:3"], "add": ["d:4", "b:no"]});
    check_body(config, multipart, &body, &after);
}

#[test]
fn a_body_that_is_too_large_to_edit_is_refused() {
    let config = json!({"remove": {"body": ["password"]}});
    let trial = Trial::new(&RequestTransformer, config);
    let mut exchange = post("/", "application/json");
    exchange.body = RequestBody::TooLarge;
    let seen = trial.ask(&mut exchange, &vec![b' '; BODY_BYTES_MAX as usize + 1]);
    assert_eq!(seen.status, 413);
}

#[test]
fn the_method_changes_and_a_form_becomes_a_query() {
    let mut post = post("/p?a=1", "application/x-www-form-urlencoded");
    let trial = Trial::new(&RequestTransformer, json!({"http_method": "GET"}));
    assert!(trial.access(&mut post, b"a=2&b=3").is_none());
    assert_eq!(post.request.method, Method::GET);
    assert_eq!(post.request.uri, "/p?a=1&a=2&b=3");
    let mut get = get("/p?a=1");
    let trial = Trial::new(&RequestTransformer, json!({"http_method": "POST"}));
    assert!(trial.access(&mut get, b"").is_none());
    assert_eq!(
        (get.request.method, get.request.uri.to_string()),
        (Method::POST, "/p?a=1".into())
    );
}

fn captured() -> Exchange {
    let mut exchange = exchange(
        Builder::new()
            .uri("/u/7/x?q=20&q2=a%0d%0ab")
            .header("x-old", "was"),
    );
    exchange.uri_captures = Captures {
        indexed: vec![Some("/u/7".to_owned()), Some("7".to_owned())],
        named: vec![("id".to_owned(), "7".to_owned())],
    };
    exchange
}

#[test]
fn templates_read_the_request_as_it_came() {
    let config = json!({
        "remove": {"headers": ["x-old"], "querystring": ["q"]},
        "replace": {"uri": "/v2/$(uri_captures[\"id\"])$(uri_captures[0])?x"},
        "add": {
            "headers": ["x-new:$(headers['x-old']) $(query_params.q)", "x-line:$(query_params.q2)"],
            "querystring": ["old:$(headers.x_old)", "none:$(uri_captures.none or 'default')"],
        },
    });
    let trial = Trial::new(&RequestTransformer, config);
    let mut exchange = captured();
    assert!(trial.access(&mut exchange, b"").is_none());
    assert_eq!(exchange.upstream_path.as_deref(), Some("/v2/7/u/7?x"));
    assert_eq!(
        exchange.request.uri,
        "/u/7/x?q2=a%0d%0ab&old=was&none=default"
    );
    assert_eq!(
        lines(&exchange.request.headers),
        ["x-new: was 20", "x-line: a%0D%0Ab"],
        "nobody adds lines of his own"
    );
    assert_eq!(exchange.uri_captures, captured().uri_captures);
}

#[test]
fn what_cannot_be_rendered_is_500() {
    for config in [
        json!({"replace": {"uri": "$(uri_captures.id)"}}),
        json!({"add": {"headers": ["a:$('x' .. headers.none)"]}}),
        json!({"add": {"querystring": ["a:$('x' .. headers.none)"]}}),
    ] {
        let trial = Trial::new(&RequestTransformer, config);
        assert_eq!(trial.ask(&mut captured(), b"").status, 500);
    }
}

#[test]
fn bad_configurations_are_named() {
    for (config, part) in [
        (json!({"http_method": "HELLO!"}), "invalid value: HELLO!"),
        (
            json!({"add": {"querystring": ["a:"]}}),
            "key 'a' has no value",
        ),
        (
            json!({"add": {"headers": ["a b:1"]}}),
            "'a b' is not a valid header",
        ),
        (json!({"add": {"headers": ["a"]}}), "invalid value: a"),
        (
            json!({"rename": {"headers": ["a:b c"]}}),
            "'b c' is not a valid header",
        ),
        (
            json!({"remove": {"headers": ["ä"]}}),
            "'ä' is not a valid header",
        ),
        (json!({"replace": {"body": ["a:$(10 * 3)"]}}), "needs Lua"),
        (
            json!({"replace": {"uri": "/$(os.exit())"}}),
            "'os' needs Lua",
        ),
        (json!({"replace": {"path": "/"}}), "unknown field"),
    ] {
        let found = problems(&RequestTransformer, config);
        assert!(found.contains(part), "{part:?} is not in {found:?}");
    }
}
