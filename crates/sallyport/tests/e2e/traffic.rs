//! Plugins that limit, answer and edit, through a running gateway: what the upstream gets, and
//! what the client does.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use sallyport_testkit::Echo;
use sallyport_testkit::http::{Request, Response, exchange, request};
use serde_json::{Value, json};

use crate::lab::{Alone, soon};

/// A gateway with these plugins on the route `/r`, in YAML flow style.
fn gateway(upstream: &str, plugins: &[&str]) -> Alone {
    let plugins = plugins.join(", ");
    let document = format!(
        r#"
_format_version: "3.0"
services:
- name: upstream
  url: {upstream}
  routes:
  - {{name: r, paths: [/r], plugins: [{plugins}]}}
"#
    );
    Alone::start(&document, "")
}

fn url(gateway: &Alone, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", gateway.port)
}

/// The JSON that [`Echo`] answers with.
#[track_caller]
fn seen(request: Request) -> Value {
    let answer = request.send().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_request_is_edited_on_its_way_up() {
    let echo = Echo::start();
    let config = r#"{name: request-transformer, config: {
        http_method: PUT,
        remove: {headers: [x-secret], querystring: [drop], body: [password]},
        rename: {headers: ["x-old:x-new"]},
        replace: {uri: "/v2/$(query_params.id)?api=1", headers: ["host:other.example"]},
        add: {headers: ["x-id:$(headers.x_tenant or 'nobody')"], querystring: ["tenant:$(headers.x_tenant)"], body: ["via:gateway"]}}}"#;
    let gateway = gateway(&echo.url(), &[config]);
    let body = json!({"password": "x", "name": "n"});
    let request = request("POST", url(&gateway, "/r/x?id=a%20b&drop=1"))
        .header("X-Secret", "s")
        .header("X-Old", "kept")
        .header("X-Tenant", "t1")
        .json(&body);
    let seen = seen(request);
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["path"], "/v2/a%20b?api=1&id=a%20b&tenant=t1");
    let headers = &seen["headers"];
    assert_eq!(headers["x-secret"], Value::Null);
    assert_eq!(headers["x-old"], Value::Null);
    assert_eq!(headers["x-new"], json!(["kept"]));
    assert_eq!(headers["x-id"], json!(["t1"]));
    assert_eq!(headers["host"], json!(["other.example"]));
    let body = seen["body"].as_str().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, json!({"name": "n", "via": "gateway"}));
    assert_eq!(
        headers["content-length"],
        json!([body.to_string().len().to_string()])
    );
}

#[test]
fn a_request_is_shown_to_who_knows_the_trigger() {
    let document = r#"
_format_version: "3.0"
services:
- name: nowhere
  url: http://127.0.0.1:9
  routes:
  - name: shown
    paths: ['~/users/(?<id>\d+)/(\w+)']
    plugins:
    - {name: request-termination, config: {status_code: 200, echo: true, trigger: x-show}}
    - {name: correlation-id, config: {generator: tracker, echo_downstream: true}}
"#;
    let gateway = Alone::start(document, "");
    let plain = request("GET", url(&gateway, "/users/7/cart")).send();
    assert_eq!(plain.unwrap().status, 502);
    let answer = request("POST", url(&gateway, "/users/7/./cart?a=1&x-show"))
        .header("Host", "Shop.example")
        .json(&json!({"n": 1}))
        .send()
        .unwrap();
    let shown = answer.json();
    let request = &shown["request"];
    let expected = json!([
        "http", "shop.example", gateway.port, "POST", "/users/7/cart", {"a": "1", "x-show": true},
        {"n": 1}, "{\"n\":1}", {"named": {"id": "7"}, "unnamed": ["7", "cart"]},
    ]);
    let told: Vec<&Value> = [
        "scheme",
        "host",
        "port",
        "method",
        "path",
        "query",
        "body",
        "raw_body",
        "uri_captures",
    ]
    .map(|name| &request[name])
    .into();
    assert_eq!(json!(told), expected, "{shown}");
    assert_eq!(shown["matched_route"]["name"], "shown");
    assert_eq!(shown["matched_service"]["name"], "nowhere");
    let tracker = answer.header("kong-request-id").unwrap();
    let parts: Vec<&str> = tracker.split('-').collect();
    let port = gateway.port.to_string();
    assert_eq!(parts[..2], ["127.0.0.1", &*port], "{tracker}");
    assert_eq!(request["headers"]["kong-request-id"], tracker);
    assert_eq!(parts[4], "1", "the first of its connection: {tracker}");
}

#[test]
fn what_the_path_of_a_route_captures_can_be_put_in() {
    let echo = Echo::start();
    let document = format!(
        r#"
_format_version: "3.0"
services:
- name: echo
  url: {}
  routes:
  - name: users
    paths: ['~/users/(?<id>\d+)/(\w+)']
    plugins:
    - name: request-transformer
      config:
        replace: {{uri: "/v2/$(uri_captures.id)/$(uri_captures[2])"}}
        add: {{headers: ["x-all:$(uri_captures[0])", "x-none:$(uri_captures.none or 'nothing')"]}}
"#,
        echo.url()
    );
    let gateway = Alone::start(&document, "");
    let seen = seen(gateway.get("/users/42/orders?a=1"));
    assert_eq!(seen["path"], "/v2/42/orders?a=1");
    assert_eq!(seen["headers"]["x-all"], json!(["/users/42/orders"]));
    assert_eq!(seen["headers"]["x-none"], json!(["nothing"]));
}

#[test]
fn a_response_is_edited_on_its_way_down() {
    let echo = Echo::start();
    let config = r#"{name: response-transformer, config: {
        remove: {json: [headers, upstream]}, rename: {json: ["path:where"]},
        add: {headers: ["x-added:1"], json: ["n:5"], json_types: [number]}}}"#;
    let gateway = gateway(&echo.url(), &[config]);
    let answer = gateway.get("/r/a").send().unwrap();
    assert_eq!(answer.header("x-added"), Some("1"));
    let expected = json!({"body": "", "method": "GET", "n": 5, "where": "/a"});
    assert_eq!(answer.json(), expected);
    let length = answer.text().len().to_string();
    assert_eq!(answer.header("content-length"), Some(&*length));
}

#[test]
fn large_bodies_are_refused_however_they_come() {
    let echo = Echo::start();
    let config =
        "{name: request-size-limiting, config: {allowed_payload_size: 1, size_unit: kilobytes}}";
    let gateway = gateway(&echo.url(), &[config]);
    let post = |bytes: usize| request("POST", url(&gateway, "/r")).body(vec![b'x'; bytes]);
    assert_eq!(post(1024).send().unwrap().status, 200);
    let over = post(1025).send().unwrap();
    assert_eq!(over.status, 413);
    assert_eq!(over.json()["message"], "Request size limit exceeded");
    // without a length: read up to the limit
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], gateway.port));
    let chunked = |bytes: usize| {
        let head = "POST /r HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = format!("{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes));
        {
            let bytes = head.to_owned() + &body;
            let answer = exchange(addr, bytes.as_bytes(), soon()).unwrap();
            String::from_utf8(answer).unwrap()
        }
    };
    assert!(chunked(1024).starts_with("HTTP/1.1 200"));
    assert!(chunked(1025).starts_with("HTTP/1.1 413"));
    assert_eq!(echo.count(), 2);
}

#[test]
fn the_gateway_can_answer_by_itself() {
    let echo = Echo::start();
    let stop =
        "{name: request-termination, config: {status_code: 418, message: no, trigger: x-stop}}";
    let go = "{name: correlation-id, config: {header_name: X-Id, generator: uuid, echo_downstream: true}}";
    let gateway = gateway(&echo.url(), &[stop, go]);
    let answer = gateway.get("/r").header("X-Stop", "1").send().unwrap();
    assert_eq!(answer.status, 418);
    assert_eq!(answer.text(), r#"{"message":"no"}"#);
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(
        answer.header("x-id").map(str::len),
        Some(36),
        "later phases run"
    );
    assert_eq!(echo.count(), 0);
    let passed = gateway.get("/r").header("X-Id", "mine").send().unwrap();
    assert_eq!((passed.status, passed.header("x-id")), (200, Some("mine")));
    assert_eq!(passed.json()["headers"]["x-id"], json!(["mine"]));
}

#[test]
fn clients_are_redirected() {
    let config = "{name: redirect, config: {location: 'https://new.example/ignored', keep_incoming_path: true, status_code: 308}}";
    let gateway = gateway("http://127.0.0.1:9", &[config]);
    let answer = gateway.get("/r/a?b=c").send().unwrap();
    assert_eq!(answer.status, 308);
    assert_eq!(
        answer.header("location"),
        Some("https://new.example/r/a?b=c")
    );
    assert_eq!(answer.text(), "redirecting");
}

#[test]
fn a_stored_response_spares_the_upstream() {
    let echo = Echo::start();
    let config =
        "{name: proxy-cache, config: {strategy: memory, content_type: ['application/json']}}";
    let gateway = gateway(&echo.url(), &[config]);
    let status = |answer: &Response| answer.header("x-cache-status").unwrap().to_owned();
    let first = gateway.get("/r?a=1&b=2").send().unwrap();
    assert_eq!((first.status, &*status(&first)), (200, "Miss"));
    // connections land on any of the workers; all of them have it
    for _ in 0..10 {
        let hit = gateway.get("/r?b=2&a=1").send().unwrap();
        assert_eq!((hit.status, &*status(&hit)), (200, "Hit"));
        assert_eq!(hit.text(), first.text());
        assert_eq!(hit.header("x-cache-key"), first.header("x-cache-key"));
        assert!(hit.header("age").is_some());
        assert_ne!(
            hit.header("x-kong-request-id"),
            first.header("x-kong-request-id")
        );
    }
    assert_eq!(echo.count(), 1);
    assert_eq!(status(&gateway.get("/r?a=2").send().unwrap()), "Miss");
    let post = request("POST", url(&gateway, "/r?a=1&b=2")).send().unwrap();
    assert_eq!(status(&post), "Bypass");
    assert_eq!(echo.count(), 3);
}

/// An upstream whose responses cost one `video` each; it serves this many connections.
fn costly(connections: usize) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Kong-Limit: video=1\r\n\
                          Connection: close\r\n\r\nvideo";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, serve)
}

#[test]
fn what_upstreams_say_that_responses_cost_is_limited() {
    let (upstream, serve) = costly(3);
    let config = "{name: response-ratelimiting, config: {limits: {video: {year: 2}}}}";
    let gateway = gateway(&upstream, &[config]);
    for left in ["1", "0"] {
        let answer = gateway.get("/r").send().unwrap();
        assert_eq!((answer.status, &*answer.text()), (200, "video"));
        assert_eq!(answer.header("x-ratelimit-limit-video-year"), Some("2"));
        assert_eq!(
            answer.header("x-ratelimit-remaining-video-year"),
            Some(left)
        );
        assert_eq!(answer.header("x-kong-limit"), None);
    }
    let over = gateway.get("/r").send().unwrap();
    assert_eq!((over.status, &*over.text()), (429, ""));
    assert_eq!(over.header("content-length"), Some("0"));
    serve.join().unwrap();
}
