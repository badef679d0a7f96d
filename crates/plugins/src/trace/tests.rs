//! Formats of trace headers, read and written. Source of the rows: Kong's
//! `spec/03-plugins/37-opentelemetry/03-propagation_spec.lua` and `34-zipkin`, as facts.

use http::request::Builder;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::exchange;

const T16: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const T8: &str = "a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const PARENT: &str = "e457b5a2e4d86bd1";

fn propagation(config: Value) -> Propagation {
    serde_json::from_value::<TraceHeaders>(config)
        .unwrap()
        .propagation()
        .unwrap()
}

/// What upstream gets of trace headers when a new span `1` follows the trace, or trace `2`
/// without one. Sorted.
fn sent(config: Value, headers: &[(&str, &str)]) -> Vec<String> {
    let request = headers
        .iter()
        .fold(Builder::new().uri("/"), |request, (name, value)| {
            request.header(*name, *value)
        });
    let mut exchange = exchange(request);
    propagate(&propagation(config), &mut exchange, |found| Context {
        trace_id: found.trace_id.or(Some(2)),
        span_id: Some(1),
        parent_id: None,
        sampled: found.sampled.or(Some(true)),
        ..found.clone()
    });
    let mut lines = crate::trial::lines(&exchange.request.headers);
    lines.sort();
    lines
}

/// In one format and out in the same.
#[track_caller]
fn check(headers: &[(&str, &str)], expected: &[&str]) {
    let lines = sent(json!({"header_type": "preserve"}), headers);
    assert_eq!(lines, expected);
}

#[test]
fn every_format_goes_on_in_itself() {
    check(
        &[("traceparent", &format!("00-{T16}-{SPAN}-01"))],
        &[&format!("traceparent: 00-{T16}-0000000000000001-01")],
    );
    check(
        &[
            ("x-b3-traceid", T8),
            ("x-b3-spanid", SPAN),
            ("x-b3-sampled", "0"),
        ],
        &[
            "x-b3-sampled: 0",
            "x-b3-spanid: 0000000000000001",
            &format!("x-b3-traceid: {T8}"),
        ],
    );
    check(
        &[("b3", &format!("{T16}-{SPAN}-1-{PARENT}"))],
        &[&format!("b3: {T16}-0000000000000001-1")],
    );
    check(
        &[("b3", &format!("{T8}-{SPAN}-d"))],
        &[&format!("b3: {T8}-0000000000000001-d")],
    );
    check(
        &[
            ("uber-trace-id", &format!("{T8}:{SPAN}:0:1")),
            ("uberctx-a", "b%20c"),
        ],
        &[
            &format!("uber-trace-id: {T8}:0000000000000001:0:01"),
            "uberctx-a: b%20c",
        ],
    );
    check(
        &[
            ("ot-tracer-traceid", T16),
            ("ot-tracer-spanid", SPAN),
            ("ot-tracer-sampled", "1"),
            ("ot-baggage-k", "v"),
        ],
        &[
            "ot-baggage-k: v",
            "ot-tracer-sampled: 1",
            "ot-tracer-spanid: 0000000000000001",
            &format!("ot-tracer-traceid: {T16}"),
        ],
    );
    check(
        &[
            ("x-datadog-trace-id", "11803532876627986230"),
            ("x-datadog-parent-id", "67667974448284343"),
            ("x-datadog-sampling-priority", "2"),
        ],
        &[
            "x-datadog-parent-id: 1",
            "x-datadog-sampling-priority: 1",
            "x-datadog-trace-id: 11803532876627986230",
        ],
    );
    check(
        &[(
            "x-amzn-trace-id",
            &format!("Root=1-{}-{};Parent={SPAN};Sampled=1", &T16[..8], &T16[8..]),
        )],
        &[&format!(
            "x-amzn-trace-id: Root=1-{}-{};Parent=0000000000000001;Sampled=1",
            &T16[..8],
            &T16[8..]
        )],
    );
    check(
        &[(
            "x-cloud-trace-context",
            &format!("{T16}/67667974448284343;o=1"),
        )],
        &[&format!("x-cloud-trace-context: {T16}/1;o=1")],
    );
    check(
        &[
            ("x-instana-t", T8),
            ("x-instana-s", SPAN),
            ("x-instana-l", "0"),
        ],
        &[
            "x-instana-l: 0",
            "x-instana-s: 0000000000000001",
            &format!("x-instana-t: {T8}"),
        ],
    );
}

#[test]
fn a_request_without_a_trace_gets_the_default_format() {
    let w3c = &["traceparent: 00-00000000000000000000000000000002-0000000000000001-01"];
    assert_eq!(sent(json!({"header_type": "preserve"}), &[]), w3c);
    let b3 = json!({"header_type": "preserve", "default_header_type": "b3-single"});
    assert_eq!(
        sent(b3, &[]),
        ["b3: 00000000000000000000000000000002-0000000000000001-1"]
    );
    assert_eq!(sent(json!({}), &[]), [""; 0]);
}

#[test]
fn what_is_broken_is_as_if_it_were_not_there() {
    for (name, value) in [
        ("traceparent", format!("01-{T16}-{SPAN}-01")),
        ("traceparent", format!("00-{T8}-{SPAN}-01")),
        ("traceparent", format!("00-{}-{SPAN}-01", "0".repeat(32))),
        ("traceparent", format!("00-{T16}-{SPAN}-1")),
        ("b3", format!("{T16}-{SPAN}-x")),
        ("b3", format!("{T16}-{}", &SPAN[1..])),
        ("x-b3-traceid", "abc".to_owned()),
        ("uber-trace-id", format!("{T16}:0:0:1")),
        ("x-cloud-trace-context", format!("{T16}/x;o=1")),
        ("x-amzn-trace-id", "Root=2-1-2".to_owned()),
        ("x-datadog-sampling-priority", "9".to_owned()),
        ("tracestate", "vendor=1".to_owned()),
    ] {
        let config = json!({"header_type": "preserve"});
        let lines = sent(config, &[(name, &value)]);
        let new = "traceparent: 00-00000000000000000000000000000002-0000000000000001-01";
        assert!(lines.iter().any(|line| line == new), "{name}: {lines:?}");
    }
}

#[test]
fn formats_are_chosen_removed_and_added() {
    let headers = [
        ("x-b3-traceid", T16),
        ("x-b3-spanid", SPAN),
        ("traceparent", &format!("00-{T8}{T8}-{SPAN}-00")),
    ];
    // the first in the list counts, whatever else is there
    let config = json!({"propagation": {"extract": ["w3c", "b3"], "inject": ["preserve", "datadog"],
        "clear": ["x-b3-traceid", "X-B3-SpanId"], "default_format": "w3c"}});
    let low = u64::from_str_radix(T8, 16).unwrap();
    assert_eq!(
        sent(config, &headers),
        [
            format!("traceparent: 00-{T8}{T8}-0000000000000001-00"),
            "x-datadog-parent-id: 1".to_owned(),
            "x-datadog-sampling-priority: 0".to_owned(),
            format!("x-datadog-trace-id: {low}"),
        ]
    );
    let none = json!({"propagation": {"extract": [], "inject": [], "default_format": "w3c"}});
    assert_eq!(sent(none, &headers).len(), 3, "nothing is touched");
    let ignore = json!({"header_type": "ignore", "default_header_type": "w3c"});
    assert!(sent(ignore, &headers).contains(
        &"traceparent: 00-00000000000000000000000000000002-0000000000000001-01".to_owned()
    ));
    let both = json!({"header_type": "jaeger"});
    assert_eq!(
        sent(both, &[("b3", "1")]),
        [
            "b3: 00000000000000000000000000000002-0000000000000001-1",
            "uber-trace-id: 00000000000000000000000000000002:0000000000000001:0:01",
        ]
    );
}

#[test]
fn sizes_fit_the_format_that_is_written() {
    let to = |format: &str| json!({"propagation": {"extract": ["w3c"], "inject": [format], "default_format": "w3c"}});
    let w3c = format!("00-{T16}-{SPAN}-01");
    let headers = [("traceparent", &w3c[..])];
    let jaeger = sent(to("jaeger"), &headers);
    assert!(
        jaeger[1].starts_with(&format!("uber-trace-id: {T16}:")),
        "{jaeger:?}"
    );
    let datadog = sent(to("datadog"), &headers);
    assert!(datadog.contains(&"x-datadog-trace-id: 11803532876627986230".to_owned()));
}

proptest! {
    /// Headers of clients: whatever they are, something well formed goes upstream.
    #[test]
    fn no_header_breaks_it(
        lines in proptest::collection::vec((0_usize..14, "[ -~]{0,70}"), 0..5),
    ) {
        const HEADERS: [&str; 14] = [
            "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled",
            "uber-trace-id", "uberctx-k", "ot-tracer-traceid", "ot-baggage-x",
            "x-datadog-trace-id", "x-amzn-trace-id", "x-cloud-trace-context", "x-instana-t",
        ];
        let headers: Vec<(&str, &str)> =
            lines.iter().map(|(at, value)| (HEADERS[*at], value.as_str())).collect();
        let out = sent(json!({"header_type": "w3c"}), &headers);
        let well_formed = |line: &String| {
            let parts: Vec<&str> = line.split('-').map(str::trim).collect();
            parts.len() == 4 && parts[1].len() == 32 && parts[2] == "0000000000000001"
        };
        prop_assert!(out.iter().any(well_formed));
    }
}
