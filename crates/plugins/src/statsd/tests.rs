//! What a request is told as. Source of the rows: data-plane reference 7.19.

use serde_json::{Value, json};

use super::Statsd;
use crate::testing::queued;
use crate::trial::problems;

/// Lines of one request.
fn told(config: Value) -> Vec<String> {
    queued(&Statsd, config, |_| ()).payloads(1)
}

#[test]
fn the_defaults_tell_what_kong_tells() {
    // the consumer of the test has no custom_id, so nothing is told by user
    assert_eq!(
        told(json!({})),
        [
            "kong.service.orders.request.count:1|c",
            "kong.service.orders.latency:9|ms",
            "kong.service.orders.request.size:90|c",
            "kong.service.orders.status.200:1|c",
            "kong.service.orders.response.size:120|c",
            "kong.service.orders.upstream_latency:7|ms",
            "kong.service.orders.kong_latency:1|ms",
            "kong.service.orders.workspace.0dc6f45b-8f8d-40d2-a504-473544ee190b.status.200:1|c",
            "kong.node.gate_example.shdict.kong_db_cache.capacity:16777216|g",
            "kong.node.gate_example.shdict.kong_db_cache.free_space:16777216|g",
        ]
    );
    let users = json!({"consumer_identifier_default": "username", "prefix": "p",
        "service_identifier_default": "service_host", "hostname_in_prefix": true});
    let lines = told(users);
    for line in [
        "p.node.gate_example.service.orders_example.user.uniques:alice|s",
        "p.node.gate_example.service.orders_example.user.alice.request.count:1|c",
        "p.node.gate_example.service.orders_example.user.alice.status.200:1|c",
        "p.node.gate_example.route.00000000-0000-0000-0000-000000000007.user.alice.status.200:1|c",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
    }
}

#[test]
fn usage_is_told_once_a_minute_and_only_if_asked_for() {
    let metrics = json!([{"name": "request_count", "stat_type": "counter", "sample_rate": 1}]);
    assert_eq!(told(json!({"metrics": metrics})).len(), 1);
    let metrics = json!([{"name": "shdict_usage", "stat_type": "gauge", "sample_rate": 1}]);
    let config = json!({"metrics": metrics, "hostname_in_prefix": true, "prefix": "p"});
    let lines = told(config);
    assert_eq!(
        lines[0],
        "p.node.gate_example.shdict.kong_db_cache.capacity:16777216|g"
    );
    assert_eq!(lines.len(), 2);
}

#[test]
fn requests_without_a_service_or_an_upstream() {
    let seen = queued(&Statsd, json!({}), |finished| {
        finished.service = None;
        finished.latencies.proxy = -1;
    });
    let lines = seen.payloads(1);
    assert_eq!(lines[0], "kong.global.unmatched.request.count:1|c");
    assert!(lines.iter().all(|line| !line.contains("upstream_latency")));
}

#[test]
fn tags_are_written_in_every_style() {
    let of = |style: &str| {
        let metrics = json!([{"name": "request_count", "stat_type": "counter",
            "sample_rate": 0.5, "consumer_identifier": "username"},
            {"name": "status_count", "stat_type": "counter", "sample_rate": 1}]);
        told(json!({"tag_style": style, "metrics": metrics,
            "workspace_identifier_default": "workspace_name"}))
    };
    let tags = |between: &str| {
        [
            ("consumer", "alice"),
            ("node", "gate_example"),
            ("route", "00000000-0000-0000-0000-000000000007"),
            ("service", "orders"),
            ("status", "200"),
            ("workspace", "default"),
        ]
        .map(|(name, value)| format!("{name}{between}{value}"))
        .join(",")
    };
    for (style, expected) in [
        (
            "dogstatsd",
            format!("kong.request.count:1|c|@0.5|#{}", tags(":")),
        ),
        (
            "influxdb",
            format!("kong.request.count,{}:1|c|@0.5", tags("=")),
        ),
        (
            "librato",
            format!("kong.request.count#{}:1|c|@0.5", tags("=")),
        ),
        (
            "signalfx",
            format!("kong.request.count[{}]:1|c|@0.5", tags("=")),
        ),
    ] {
        assert_eq!(of(style), [expected]);
    }
}

#[test]
fn datagrams_are_shared_up_to_a_size() {
    let metrics = json!([
        {"name": "request_count", "stat_type": "counter", "sample_rate": 1},
        {"name": "latency", "stat_type": "timer"},
        {"name": "kong_latency", "stat_type": "timer"},
    ]);
    let with = |size: usize, tcp: bool| {
        told(json!({"metrics": metrics, "udp_packet_size": size, "use_tcp": tcp}))
    };
    assert_eq!(with(0, false).len(), 3);
    let shared = with(70, false);
    assert_eq!(
        shared,
        [
            "kong.service.orders.request.count:1|c\nkong.service.orders.latency:9|ms",
            "kong.service.orders.kong_latency:1|ms",
        ]
    );
    let tcp = with(0, true);
    assert!(tcp.len() == 1 && tcp[0].ends_with("ms\n") && tcp[0].lines().count() == 3);
}

#[test]
fn statuses_may_be_left_out() {
    let config = json!({"allow_status_codes": ["100-199", "404-404"]});
    assert_eq!(told(config), [""; 0]);
    assert_eq!(told(json!({"allow_status_codes": ["200-299"]})).len(), 10);
}

#[test]
fn names_cannot_make_lines_of_their_own() {
    let seen = queued(&Statsd, json!({"prefix": "a\nb:1|c"}), |_| ());
    assert!(
        seen.payloads(1)
            .iter()
            .all(|line| line.starts_with("a_b_1_c."))
    );
}

#[test]
fn bad_configurations_are_named() {
    for (config, expected) in [
        (
            json!({"metrics": [{"name": "x", "stat_type": "counter", "sample_rate": 1}]}),
            "metrics[0].name: expected one of",
        ),
        (
            json!({"metrics": [{"name": "latency", "stat_type": "counter"}]}),
            "metrics[0].sample_rate",
        ),
        (
            json!({"allow_status_codes": ["2xx"]}),
            "allow_status_codes[0]: invalid value",
        ),
        (
            json!({"udp_packet_size": 70_000}),
            "udp_packet_size: value should be between 0",
        ),
        (json!({"tag_style": "x"}), "tag_style: expected one of"),
    ] {
        let found = problems(&Statsd, config);
        assert!(found.contains(expected), "{found}");
    }
}
