//! What goes upstream, and when there are spans. The spans themselves are read by a foreign
//! decoder in the gateway's tests.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{OpenTelemetry, sampled};
use crate::node::{Node, Tracing};
use crate::trial::{Trial, get, problems};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn config(more: Value) -> Value {
    let mut config = json!({"traces_endpoint": "http://otel.example:4318/v1/traces"});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    config
}

fn node(tracing: Tracing) -> Arc<Node> {
    let mut node = Node::default();
    node.facts.tracing = tracing;
    Arc::new(node)
}

fn all() -> Tracing {
    Tracing {
        request: true,
        router: true,
        balancer: true,
        dns_query: true,
        plugin_access: true,
        plugin_header_filter: true,
        sampling_rate: 1.0,
    }
}

#[track_caller]
fn traceparent(tracing: Tracing, headers: &[(&str, &str)]) -> String {
    let trial = Trial::at(&OpenTelemetry, config(json!({})), node(tracing));
    let request = headers
        .iter()
        .fold(http::Request::get("/"), |request, (name, value)| {
            request.header(*name, *value)
        });
    let mut exchange = crate::testing::exchange(request);
    trial.ask(&mut exchange, b"");
    crate::testing::header(&exchange, "traceparent")
        .unwrap()
        .to_owned()
}

#[test]
fn traces_go_on_and_begin() {
    let caller = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let on = traceparent(all(), &[("traceparent", &caller)]);
    assert!(
        on.starts_with(&format!("00-{TRACE}-")) && on.ends_with("-01"),
        "{on}"
    );
    assert!(!on.contains("00f067aa0ba902b7"), "{on}");
    let refused = caller.replace("-01", "-00");
    let on = traceparent(all(), &[("traceparent", &refused)]);
    assert!(on.ends_with("-00"), "{on}");
    assert!(traceparent(all(), &[]).ends_with("-01"));
    // without instrumentations nothing is kept, whatever the caller wants
    let off = traceparent(Tracing::default(), &[("traceparent", &caller)]);
    assert!(
        off.starts_with(&format!("00-{TRACE}-")) && off.ends_with("-00"),
        "{off}"
    );
}

#[test]
fn the_rate_decides_by_the_trace() {
    assert!(sampled(1, Some(true), 0.0) && !sampled(1, None, 0.0));
    assert!(!sampled(1, Some(false), 1.0) && sampled(u128::MAX, None, 1.0));
    let kept = (0..10_000).filter(|_| sampled(crate::trace::trace_id(16), None, 0.25));
    let kept = kept.count();
    assert!((2_000..3_000).contains(&kept), "{kept} of 10000");
    let id = crate::trace::trace_id(16);
    assert_eq!(sampled(id, None, 0.5), sampled(id, Some(true), 0.5));
}

#[test]
fn the_client_gets_the_trace_and_the_log_too() {
    let header = json!({"http_response_header_for_traceid": "X-Trace"});
    let trial = Trial::at(&OpenTelemetry, config(header), node(all()));
    let mut exchange = get("/");
    let seen = trial.ask(&mut exchange, b"");
    let trace = seen.header("x-trace").unwrap();
    assert_eq!(trace.len(), 32);
    let ids = exchange.state.get::<crate::trace::TraceIds>().unwrap();
    assert_eq!(ids.0["w3c"], trace);
}

#[test]
fn spans_are_told_only_where_there_are_any() {
    let spans = |tracing: Tracing, more: Value| {
        let kept = Arc::new(Mutex::new(crate::testing::Queued::empty()));
        let mut node = Node::default();
        node.facts.tracing = tracing;
        node.log_queues = Box::new(crate::testing::Keeping(kept.clone()));
        let metrics = crate::metrics::Metrics::default();
        let node = Arc::new(node);
        crate::testing::logged_at(&OpenTelemetry, config(more), &metrics, &node, |_| ());
        let kept = kept.lock().unwrap();
        kept.entries()
    };
    assert_eq!(spans(Tracing::default(), json!({})), 0);
    assert_eq!(spans(all(), json!({})), 1, "no part and no try is known");
    assert_eq!(spans(all(), json!({"sampling_rate": 0})), 0);
}

#[test]
fn bad_configurations_are_named() {
    for (config, expected) in [
        (json!({}), "at least one of these fields must be non-empty"),
        (
            json!({"traces_endpoint": "x"}),
            "traces_endpoint: missing scheme",
        ),
        (
            config(json!({"resource_attributes": {"a": "$(headers.x)"}})),
            "resource_attributes.a: code in configurations is not run",
        ),
        (
            config(json!({"sampling_rate": 1.5})),
            "sampling_rate: value should be between",
        ),
        (config(json!({"headers": {"a b": "c"}})), "bad header name"),
    ] {
        let found = problems(&OpenTelemetry, config);
        assert!(found.contains(expected), "{found}");
    }
    let older = json!({"endpoint": "http://x:4318/v1/traces", "batch_span_count": 10});
    assert_eq!(problems(&OpenTelemetry, older), "");
}

#[test]
fn lines_of_the_log_go_with_their_request() {
    let config = json!({"logs_endpoint": "http://otel.example:4318/v1/logs"});
    assert_eq!(problems(&OpenTelemetry, config.clone()), "");
    let kept = Arc::new(Mutex::new(crate::testing::Queued::empty()));
    let node = Arc::new(Node {
        log_queues: Box::new(crate::testing::Keeping(kept.clone())),
        ..Node::default()
    });
    let request = || {
        let metrics = crate::metrics::Metrics::default();
        crate::testing::logged_at(&OpenTelemetry, config.clone(), &metrics, &node, |_| ());
        kept.lock().unwrap().entries()
    };
    let line = |request_id: &str| crate::LogLine {
        time_ns: 1_000_000_000,
        severity: crate::Severity::Error,
        message: "request failed".to_owned(),
        fields: vec![("fault", "upstream".to_owned())],
        request_id: Some(request_id.to_owned()),
    };
    assert_eq!(request(), 0, "no trace is sent there");
    assert!(crate::LogLines::of_process().are_wanted());
    node.log_lines.add(line("0123"));
    node.log_lines.add(line("another"));
    assert_eq!(request(), 1);
    assert_eq!(request(), 1, "a line is sent once");
}
