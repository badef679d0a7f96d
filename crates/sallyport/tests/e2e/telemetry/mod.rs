//! What gateways count, at the control plane and at foreign receivers.

mod outage;
mod receivers;

use std::io::Write;

use sallyport_testkit::http::get;
use sallyport_testkit::{Echo, eventually, free_port};
use serde_json::{Value, json};

use crate::lab::{Control, Gateway, Handshake, Pair, bytes_until_close, has_all, soon, write};
use crate::streams::{parrot, say};

/// Lines of `kong.conf` that send telemetry to a control plane.
fn to(control: &Control) -> String {
    format!(
        "cluster_telemetry_endpoint = 127.0.0.1:{}\n\
         cluster_telemetry_server_name = {}.us.tp0.sallyport.localhost\n\
         proxy_access_log = off\n",
        control.port, control.prefix
    )
}

/// A gateway that reports to its control plane, with more lines for its `kong.conf`.
#[track_caller]
fn reporting(control: &Control, more: &str) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    Gateway::start_set(control, dir, &pair, &format!("{}{more}", to(control)))
}

/// The answer to a query of a control plane's telemetry.
#[track_caller]
fn query(control: &Control, arguments: &str) -> Value {
    let path = format!("/v2/control-planes/{}/telemetry?{arguments}", control.id);
    let answer = control.api("GET", &path, &Value::Null);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Requests that a control plane knows of.
#[track_caller]
fn requests(control: &Control, arguments: &str) -> u64 {
    query(control, arguments)["total"]["requests"]
        .as_u64()
        .unwrap()
}

/// Waits until a control plane knows of so many requests, and that there are no more.
#[track_caller]
fn wait_for_requests(control: &Control, arguments: &str, expected: u64) {
    eventually(&format!("{expected} requests are told"), soon(), || {
        let told = requests(control, arguments);
        assert!(
            told <= expected,
            "{told} requests are told, there were {expected}"
        );
        told == expected
    });
}

/// The value of a metric without labels in an exposition.
#[track_caller]
fn metric(text: &str, name: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
        .parse()
        .unwrap()
}

fn metrics_of(gateway: &Gateway) -> String {
    gateway.ask_status("/metrics").text()
}

#[test]
fn what_a_gateway_counts_is_told_by_every_dimension() {
    let control = Control::start();
    let gateway = reporting(&control, "");
    let echo = Echo::start();
    control.route_to("orders", echo.port());
    control.route_to("closed", 1);
    let consumer = control.put("consumers/alice", &json!({}));
    let key = control.core(
        "POST",
        "consumers/alice/key-auth",
        &json!({"key": "secret"}),
    );
    assert_eq!(key.status, 201, "{}", key.text());
    let route = control.core("GET", "routes/orders", &Value::Null).json();
    let plugin = json!({"name": "key-auth", "route": {"id": route["id"]}});
    control.put("plugins/00000000-0000-4000-8000-000000000001", &plugin);
    gateway.wait_for("/closed", 502, soon());
    eventually("the key is wanted", soon(), || {
        gateway.status_of("/orders") == 401
    });
    let before = |what: &str| requests(&control, what);
    eventually("the first requests are told", soon(), || before("") > 0);
    for _ in 0..5 {
        let answer = get(gateway.url("/orders?x"))
            .header("apikey", "secret")
            .send()
            .unwrap();
        assert_eq!(answer.status, 200);
    }
    let alice = consumer["id"].as_str().unwrap();
    wait_for_requests(&control, &format!("filter[consumer]={alice}"), 5);

    let by = query(
        &control,
        "group_by=consumer,route,service,upstream,status_class,node&interval=minute",
    );
    let all = by["data"].as_array().unwrap();
    let hers: Vec<&Value> = all
        .iter()
        .filter(|it| it["consumer"]["name"] == "alice")
        .collect();
    let her = hers[0];
    assert_eq!(her["route"]["name"], "orders");
    assert_eq!(her["service"]["name"], "orders");
    assert_eq!(
        (&her["status_class"], &her["upstream"]),
        (&json!("2xx"), &json!("127.0.0.1"))
    );
    let nodes = control.api(
        "GET",
        &format!("/v2/control-planes/{}/nodes", control.id),
        &Value::Null,
    );
    assert_eq!(her["node"], nodes.json()["items"][0]["id"]);
    assert!(her["at"].as_str().unwrap().ends_with(":00.000Z"));
    let sum = |field: &str| {
        hers.iter()
            .map(|it| it[field].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(
        (sum("requests"), sum("client_errors"), sum("server_errors")),
        (5, 0, 0)
    );
    assert!(sum("request_bytes") > 5 * 40 && sum("response_bytes") > 5 * 40);
    let latency = &her["latency_ms"];
    for (low, high) in [("p50", "p95"), ("p95", "p99"), ("p99", "max")] {
        assert!(latency[low].as_f64() <= latency[high].as_f64(), "{latency}");
    }
    assert!(her["upstream_latency_ms"]["p50"].as_f64().unwrap() > 0.0);
    // what no upstream answered has no latency of one
    let closed = query(&control, "group_by=route&filter[status_class]=5xx");
    let closed = closed["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["route"]["name"] == "closed");
    let closed = closed.unwrap();
    assert_eq!(
        (&closed["upstream_latency_ms"], &closed["requests"]),
        (&Value::Null, &closed["server_errors"])
    );
    // by hours it is the same
    assert_eq!(requests(&control, "interval=hour"), requests(&control, ""));
    let everywhere = control
        .api("GET", "/v2/telemetry?group_by=control_plane", &Value::Null)
        .json();
    assert_eq!(
        everywhere["data"][0]["control_plane"]["id"],
        control.id.as_str()
    );

    let told = metrics_of(&gateway);
    assert_eq!(metric(&told, "sallyport_telemetry_connected"), 1.0);
    assert_eq!(
        metric(&told, "sallyport_telemetry_dropped_requests_total"),
        0.0
    );
    let own = control.api("GET", "/metrics", &Value::Null).text();
    assert!(metric(&own, "sallyport_telemetry_batches_total") > 0.0);
    assert_eq!(
        metric(&own, "sallyport_telemetry_duplicate_batches_total"),
        0.0
    );
    assert_eq!(get(control.url("/metrics")).send().unwrap().status, 401);
}

#[test]
fn sessions_of_streams_count_with_a_certificate_that_was_renewed_too() {
    let control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    let first = control.pin(&pair.cert());
    let port = free_port();
    let conf = format!("{}stream_listen = 127.0.0.1:{port}\n", to(&control));
    let next = tempfile::tempdir().unwrap();
    let renewed = Pair::make(next.path());
    let mut gateway = Gateway::start_set(&control, dir, &pair, &conf);
    let upstream = parrot("p");
    let service = json!({"protocol": "tcp", "host": "127.0.0.1", "port": upstream.port()});
    let service = control.put("services/mail", &service);
    let route = json!({"service": {"id": service["id"]}, "protocols": ["tcp"],
        "destinations": [{"port": port}]});
    control.put("routes/mail", &route);
    eventually("sessions are passed on", soon(), || {
        say(port, "x") == "p: x"
    });
    let query_of = "group_by=route,upstream,status_class&filter[status_class]=2xx";
    wait_for_requests(&control, "filter[status_class]=2xx", 1);
    let told = &query(&control, query_of)["data"][0];
    assert_eq!(
        (&told["route"]["name"], &told["upstream"]),
        (&json!("mail"), &json!("127.0.0.1"))
    );
    assert_eq!(
        (&told["request_bytes"], &told["response_bytes"]),
        (&json!(1), &json!(4))
    );
    assert!(told["upstream_latency_ms"]["max"].as_f64() <= told["latency_ms"]["max"].as_f64());

    control.pin(&renewed.cert());
    write(&pair.cert, renewed.cert());
    write(&pair.key, renewed.key());
    gateway.program.signal("HUP");
    gateway.program.wait_for_line("reloaded", soon());
    let unpin = format!(
        "/v2/control-planes/{}/dp-client-certificates/{first}",
        control.id
    );
    assert_eq!(control.api("DELETE", &unpin, &Value::Null).status, 204);
    assert_eq!(say(port, "yy"), "p: yy");
    wait_for_requests(&control, "filter[status_class]=2xx", 2);
}

#[test]
fn bad_queries_say_what_is_wrong() {
    let control = Control::start();
    let path = format!("/v2/control-planes/{}/telemetry", control.id);
    for (arguments, parts) in [
        (
            "group_by=servise",
            &["group_by", "servise", "service, route"][..],
        ),
        ("from=yesterday", &["from", "2026-01-31T12:00:00Z"]),
        ("filter[route]=orders", &["filter[route]", "orders", "id"]),
    ] {
        let answer = control.api("GET", &format!("{path}?{arguments}"), &Value::Null);
        assert_eq!(answer.status, 400, "{arguments}");
        has_all(&answer.text(), parts);
    }
    let nobody = "/v2/control-planes/00000000-0000-4000-8000-000000000000/telemetry";
    assert_eq!(control.api("GET", nobody, &Value::Null).status, 404);
    assert_eq!(get(control.url(&path)).send().unwrap().status, 401);
    let empty = query(&control, "group_by=service");
    assert_eq!(empty["data"], json!([]));
    assert_eq!(empty["total"]["latency_ms"], Value::Null);
}

/// Sends a request to the telemetry host of the control plane, and reads until it closes.
#[track_caller]
fn knock(control: &Control, pair: Option<&Pair>, request: &[u8]) -> Vec<u8> {
    let name = format!("{}.us.tp0.sallyport.localhost", control.prefix);
    let ca = control.ca();
    let handshake = Handshake {
        port: control.port,
        name: &name,
        ca: Some(&ca),
        pair,
        alpn: &[],
    };
    // with TLS 1.3 a client may be through its handshake before it learns that it is refused
    let Ok(mut stream) = handshake.open() else {
        return Vec::new();
    };
    _ = stream.write_all(request);
    bytes_until_close(&mut stream)
}

/// Enterprise gateways open a WebSocket; configurations are asked for at the wrong host by mistake.
#[test]
fn analytics_are_thrown_away_with_one_line_and_a_wrong_host_is_named() {
    let control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    let upgrade = "GET /v1/analytics/reqlog?node_id=7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11&\
                   node_hostname=ee&node_version=3.10.0 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    // two frames of a client, masked with zeros, then a close
    let mut bytes = upgrade.as_bytes().to_vec();
    for frame in [
        &[0x82, 0x83, 0, 0, 0, 0, 1, 2, 3][..],
        &[0x82, 0x81, 0, 0, 0, 0, 9],
        &[0x88, 0x80, 0, 0, 0, 0],
    ] {
        bytes.extend(frame);
    }
    let answer = knock(&control, Some(&pair), &bytes);
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
    let told = "a gateway sends analytics in a form that is not public";
    control.program.wait_for_line(told, soon());
    let log = control.program.output();
    assert_eq!(log.matches("analytics").count(), 1, "{log}");
    let metrics = control.api("GET", "/metrics", &Value::Null).text();
    assert_eq!(
        metric(&metrics, "sallyport_telemetry_discarded_frames_total"),
        2.0
    );

    let wrong = upgrade
        .replace("analytics/reqlog", "outlet")
        .replace("Connection: Upgrade", "Connection: close");
    let answer = knock(&control, Some(&pair), wrong.as_bytes());
    let answer = String::from_utf8_lossy(&answer).into_owned();
    has_all(&answer, &["HTTP/1.1 404", "with cp0 in the place of tp0"]);
}

#[test]
fn only_pinned_gateways_may_report() {
    let control = Control::start();
    let batch = "POST /v1/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Content-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
    let dir = tempfile::tempdir().unwrap();
    let stranger = Pair::make(dir.path());
    let other = tempfile::tempdir().unwrap();
    let elsewhere = Pair::make(other.path());
    control.pin_to(&control.another("other"), &elsewhere.cert());
    for (pair, reason) in [
        (None, "certificate"),
        (Some(&stranger), "not pinned"),
        (Some(&elsewhere), "not pinned.*other"),
    ] {
        let before = control.program.lines();
        assert_eq!(knock(&control, pair, batch.as_bytes()), b"", "not a byte");
        let line = format!("data plane refused.*{reason}");
        control.program.wait_for_line_after(before, &line, soon());
    }
    // whoever is let in learns what is wrong
    control.pin(&stranger.cert());
    for (request, status, part) in [
        (batch.to_owned(), 400, "sallyport-batch must be"),
        (
            batch.replace("/v1/metrics", "/v1/traces"),
            404,
            "/v1/metrics",
        ),
        (batch.replace("POST", "GET"), 405, "POST"),
        (
            batch.replace(
                "Host: x",
                "Host: x\r\nSallyport-Batch: 7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11/1",
            ),
            400,
            "service.instance.id",
        ),
        (
            batch
                .replace(
                    "Host: x",
                    "Sallyport-Batch: 7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11/1",
                )
                .replace("x-protobuf", "json"),
            415,
            "application/x-protobuf",
        ),
        (
            batch
                .replace(
                    "Host: x",
                    "Sallyport-Batch: 7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11/1",
                )
                .replace("Length: 0", "Length: 99999999"),
            413,
            "larger than",
        ),
    ] {
        let answer = knock(&control, Some(&stranger), request.as_bytes());
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}\n{answer}"
        );
        has_all(&answer, &[part]);
    }
    assert_eq!(requests(&control, ""), 0);
    assert!(!control.program.output().contains("panicked"));
}
