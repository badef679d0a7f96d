//! Spans of one request, as Kong's plugin tells them.

use serde_json::{Value, json};

use super::Zipkin;
use crate::finished::{Part, PartOf, Try};
use crate::testing::queued;
use crate::trial::{Trial, get, problems};

fn config(more: Value) -> Value {
    let mut config = json!({"http_endpoint": "http://zipkin.example:9411/api/v2/spans",
        "sample_ratio": 1});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    config
}

fn tried(start_ns: u64, failed: bool) -> Try {
    Try {
        balancer_start: start_ns / 1_000_000,
        balancer_start_ns: start_ns,
        ip: Some([127, 0, 0, 1].into()),
        port: Some(8080),
        balancer_latency: 0,
        balancer_latency_ns: 51_000,
        keepalive: false,
        state: failed.then_some("failed"),
        code: failed.then_some(502),
        status: None,
    }
}

/// All spans of a request with two tries.
fn spans(more: Value) -> Vec<Value> {
    let tries = vec![tried(1_003_000_000, true), tried(1_004_000_000, false)].leak();
    let part = |what, start_ns, end_ns| Part {
        what,
        start_ns,
        end_ns,
    };
    let parts = vec![
        part(PartOf::Access, 1_001_000_000, 1_002_000_000),
        part(PartOf::HeaderFilter, 1_007_000_000, 1_008_000_000),
    ]
    .leak();
    let seen = queued(&Zipkin, config(more), |finished| {
        finished.tries = tries;
        finished.parts = parts;
    });
    assert_eq!(seen.sink(), "zipkin.example:9411");
    let payload = seen.payloads(1);
    serde_json::from_str(&payload[0]).unwrap()
}

#[test]
fn a_request_is_a_tree_of_spans() {
    let all = spans(json!({"static_tags": [{"name": "zone", "value": "a"}]}));
    let names: Vec<&str> = all.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "GET (balancer try 1)",
            "GET (balancer try 2)",
            "GET (proxy)",
            "GET"
        ]
    );
    let [first, second, proxy, request] = &all[..] else {
        unreachable!()
    };
    for child in [first, second, proxy] {
        assert_eq!(child["traceId"], request["traceId"]);
        assert_eq!(child["parentId"], request["id"]);
        assert_eq!(child["kind"], "CLIENT");
        assert_eq!(child["remoteEndpoint"]["ipv4"], "127.0.0.1");
        assert_eq!(child["remoteEndpoint"]["port"], 8080);
    }
    assert_eq!(request["kind"], "SERVER");
    assert_eq!(request["parentId"], Value::Null);
    assert_eq!(request["traceId"].as_str().unwrap().len(), 32);
    assert_eq!(request["timestamp"], 1_000_000);
    assert_eq!(request["duration"], 9_000);
    assert_eq!(
        request["tags"],
        json!({"lc": "kong", "http.method": "GET", "http.host": "api.example", "zone": "a",
               "http.path": "/v1/orders", "http.protocol": "HTTP/1.1", "http.status_code": "200",
               "kong.node.id": "00000000-0000-0000-0000-000000000000"})
    );
    let times = |span: &Value| {
        let annotations = span["annotations"].as_array().unwrap().iter();
        let one = |it: &Value| {
            (
                it["value"].as_str().unwrap().to_owned(),
                it["timestamp"].clone(),
            )
        };
        json!(
            annotations
                .map(one)
                .collect::<std::collections::BTreeMap<_, _>>()
        )
    };
    assert_eq!(times(request), json!({"krs": 1_000_000, "krf": 1_001_000}));
    assert_eq!(
        times(proxy),
        json!({"kas": 1_001_000, "kaf": 1_002_000, "khs": 1_007_000, "khf": 1_008_000,
               "kbs": 1_008_000, "kbf": 1_009_000})
    );
    assert_eq!(first["duration"], 51);
    assert_eq!(first["tags"]["error"], "true");
    assert_eq!(first["tags"]["http.status_code"], "502");
    assert_eq!(second["tags"]["error"], Value::Null);
    assert_eq!(proxy["tags"]["peer.hostname"], "orders.example");
}

#[test]
fn phases_may_be_tags_and_names_have_paths() {
    let all = spans(json!({"phase_duration_flavor": "tags", "http_span_name": "method_path"}));
    let (proxy, request) = (&all[2], &all[3]);
    assert_eq!(request["name"], "GET /v1/orders");
    assert_eq!(request["tags"]["kong.rewrite.duration_ms"], "1");
    assert_eq!(proxy["tags"]["kong.access.duration_ms"], "1");
    assert_eq!(proxy["tags"]["kong.body_filter.duration_ms"], "1");
    assert_eq!(proxy["annotations"], Value::Null);
}

#[test]
fn what_nobody_samples_is_not_told() {
    let none = queued(&Zipkin, config(json!({"sample_ratio": 0})), |_| ());
    assert_eq!(none.payloads(1), [""; 0]);
}

#[test]
fn the_trace_goes_upstream_and_to_the_client() {
    let config = config(json!({"http_response_header_for_traceid": "X-Trace", "sample_ratio": 0}));
    let trial = Trial::new(&Zipkin, config);
    let mut exchange = get("/");
    let seen = trial.ask(&mut exchange, b"");
    let trace = seen.header("x-trace").unwrap().to_owned();
    let header = |name| crate::testing::header(&exchange, name).unwrap();
    assert_eq!(header("x-b3-traceid"), trace);
    assert_eq!(header("x-b3-sampled"), "0");
    assert_eq!(header("x-b3-parentspanid").len(), 16);
    assert_ne!(header("x-b3-parentspanid"), header("x-b3-spanid"));
    // the caller's span is shared, as B3 has it, and its decision counts
    let mut exchange = crate::testing::exchange(
        http::Request::get("/")
            .header("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1")
            .header("zipkin-tags", "a=b; broken; c = d "),
    );
    trial.ask(&mut exchange, b"");
    let b3 = crate::testing::header(&exchange, "b3").unwrap();
    assert!(b3.starts_with("4bf92f3577b34da6a3ce929d0e0e4736-"), "{b3}");
    assert!(b3.ends_with("-1-00f067aa0ba902b7"), "{b3}");
    let spans = exchange.state.get::<super::Spans>().unwrap();
    assert!(spans.sampled);
    assert_eq!(spans.tags.len(), 2);
    assert_eq!(spans.tags["c"], "d");
}

#[test]
fn bad_configurations_are_named() {
    for (config, expected) in [
        (
            json!({"http_endpoint": "zipkin"}),
            "http_endpoint: missing scheme",
        ),
        (
            json!({"sample_ratio": 2}),
            "sample_ratio: value should be between 0 and 1",
        ),
        (
            json!({"static_tags": [{"name": "lc", "value": "x"}]}),
            "static_tags[0].name: must not be one of",
        ),
        (
            json!({"static_tags": [{"name": "a", "value": "x"}, {"name": "a", "value": "y"}]}),
            "static_tags: repeated tags are not allowed: a",
        ),
        (
            json!({"propagation": {"extract": ["b3-single"]}}),
            "propagation.extract[0]: expected one of",
        ),
        (
            json!({"propagation": {"default_format": "x"}}),
            "propagation.default_format: expected one of",
        ),
    ] {
        let found = problems(&Zipkin, config);
        assert!(found.contains(expected), "{found}");
    }
    assert_eq!(problems(&Zipkin, json!({})), "");
}
