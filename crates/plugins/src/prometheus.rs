//! `prometheus`: counts requests, bytes and latencies for Prometheus.
//!
//! Source of names, labels and buckets: data-plane reference 7.18 (`kong/plugins/prometheus`).

use std::borrow::Cow;

use sallyport_model::schema::{Field, PROTOCOLS, Record};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exchange::{Env, Exchange, Handler};
use crate::finished::{Entity, Finished, ResponseSource};
use crate::metrics::{Family, Kind};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
`GET /metrics` of the Status API and of the Admin API tells the metrics in Prometheus' text format:

| configured by | metric | labels |
|---|---|---|
| `status_code_metrics` | `kong_http_requests_total` | service, route, code, source, workspace, consumer |
| `latency_metrics` | `kong_kong_latency_ms`, `kong_upstream_latency_ms`, `kong_request_latency_ms` | service, route, workspace |
| `bandwidth_metrics` | `kong_bandwidth_bytes` | service, route, direction, workspace, consumer |

`source` is `service` for what the upstream answered and `kong` for what the gateway did. A service
without a name goes by its host, a route without one by its id. Requests without a service are not
counted, as with Kong. Latencies are milliseconds.

Sessions of streams (`tcp`, `tls`, `udp`, `tls_passthrough` in `protocols`) are
`kong_stream_sessions_total` and `kong_session_duration_ms`.

Counts outlive configurations and end with the process. A core keeps at most 20,000 series of a metric;
what does not fit is counted in `kong_metrics_dropped_total`.

The gateway tells `kong_upstream_target_health` and what it knows of itself whether this plugin is
configured or not, so `upstream_health_metrics` changes nothing. There are no plugins for language
models and none in WebAssembly, so `ai_metrics` and `wasm_metrics` bring no metrics.
";

const LATENCY: Kind = Kind::Histogram(&[
    25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10_000, 30_000, 60_000,
]);

static REQUESTS: Family = Family {
    name: "kong_http_requests_total",
    help: "HTTP status codes per consumer/service/route in Kong",
    kind: Kind::Counter,
    labels: &[
        "service",
        "route",
        "code",
        "source",
        "workspace",
        "consumer",
    ],
};
static BYTES: Family = Family {
    name: "kong_bandwidth_bytes",
    help: "Total bandwidth (ingress/egress) throughput in bytes",
    kind: Kind::Counter,
    labels: &["service", "route", "direction", "workspace", "consumer"],
};
static KONG_LATENCY: Family = Family {
    name: "kong_kong_latency_ms",
    help: "Latency added by Kong and enabled plugins for each service/route in Kong",
    kind: Kind::Histogram(&[
        1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000,
    ]),
    labels: &["service", "route", "workspace"],
};
static UPSTREAM_LATENCY: Family = Family {
    name: "kong_upstream_latency_ms",
    help: "Latency added by upstream response for each service/route in Kong",
    kind: LATENCY,
    labels: &["service", "route", "workspace"],
};
static REQUEST_LATENCY: Family = Family {
    name: "kong_request_latency_ms",
    help: "Total latency incurred during requests for each service/route in Kong",
    kind: LATENCY,
    labels: &["service", "route", "workspace"],
};

static STREAM_SESSIONS: Family = Family {
    name: "kong_stream_sessions_total",
    help: "Stream status codes per service/route in Kong",
    kind: Kind::Counter,
    labels: &["service", "route", "code", "source", "workspace"],
};
static SESSION_DURATION: Family = Family {
    name: "kong_session_duration_ms",
    help: "latency incurred in stream session for each service/route in Kong",
    kind: LATENCY,
    labels: &["service", "route", "workspace"],
};

const WORKSPACE: &str = "default";

/// The plugin, as the registry lists it.
pub(crate) struct Prometheus;

impl Plugin for Prometheus {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn priority(&self) -> i32 {
        13
    }

    fn summary(&self) -> &'static str {
        "counts requests, bytes and latencies for Prometheus"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        PROTOCOLS
    }

    fn schema(&self) -> Record {
        let switch = |name, about| Field::boolean(name).default(json!(false)).about(about);
        Record::new([
            switch(
                "per_consumer",
                "Whether requests and bytes are told apart by consumer (its `username`).",
            ),
            switch("status_code_metrics", "Whether requests are counted."),
            switch(
                "ai_metrics",
                "For requests to language models, which there are none of.",
            ),
            switch("latency_metrics", "Whether latencies are counted."),
            switch("bandwidth_metrics", "Whether bytes are counted."),
            switch(
                "upstream_health_metrics",
                "The health of targets, which is told anyway.",
            ),
            switch(
                "wasm_metrics",
                "For plugins in WebAssembly, which there are none of.",
            ),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        Ok(Box::new(Config::deserialize(config)?))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    per_consumer: Option<bool>,
    status_code_metrics: Option<bool>,
    latency_metrics: Option<bool>,
    bandwidth_metrics: Option<bool>,
}

impl Config {
    fn wants(flag: Option<bool>) -> bool {
        flag == Some(true)
    }
}

/// What an entity without a name goes by.
#[derive(Deserialize)]
struct Unnamed<'a> {
    #[serde(borrow)]
    host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
}

/// Its name; otherwise what `other` takes.
fn name<'a>(
    entity: Entity<'a>,
    other: impl FnOnce(Unnamed<'a>) -> Option<Cow<'a, str>>,
) -> Cow<'a, str> {
    if let Some(name) = entity.name {
        return name.into();
    }
    let unnamed = serde_json::from_str(entity.json.get()).ok();
    unnamed.and_then(other).unwrap_or_default()
}

impl Handler for Config {
    fn logs(&self) -> bool {
        [
            self.status_code_metrics,
            self.latency_metrics,
            self.bandwidth_metrics,
        ]
        .into_iter()
        .any(Config::wants)
    }

    fn log(&self, _: &mut Exchange, finished: &Finished<'_>, env: &Env<'_>) {
        let Some(service) = finished.service else {
            return;
        };
        let service = &*name(service, |unnamed| unnamed.host);
        let route = finished
            .route
            .map_or(Cow::default(), |route| name(route, |unnamed| unnamed.id));
        let route = &*route;
        let consumer = match Config::wants(self.per_consumer) {
            true => finished.consumer.and_then(|consumer| consumer.name),
            false => None,
        };
        let consumer = consumer.unwrap_or_default();
        let metrics = env.metrics;
        if Config::wants(self.bandwidth_metrics) {
            for (direction, bytes) in [
                ("ingress", finished.request_bytes),
                ("egress", finished.response_bytes),
            ] {
                if bytes > 0 {
                    let labels = [service, route, direction, WORKSPACE, consumer];
                    metrics.add(&BYTES, &labels, bytes);
                }
            }
        }
        if Config::wants(self.status_code_metrics) {
            let source = match finished.source {
                ResponseSource::Upstream => "service",
                ResponseSource::Kong => "kong",
            };
            let code = finished.status;
            match finished.stream {
                None => {
                    let labels = [service, route, code.as_str(), source, WORKSPACE, consumer];
                    metrics.add(&REQUESTS, &labels, 1);
                }
                Some(_) => {
                    let labels = [service, route, code.as_str(), source, WORKSPACE];
                    metrics.add(&STREAM_SESSIONS, &labels, 1);
                }
            }
        }
        if Config::wants(self.latency_metrics) {
            let labels = [service, route, WORKSPACE];
            let latencies = finished.latencies;
            let whole = match finished.stream {
                None => &REQUEST_LATENCY,
                Some(_) => &SESSION_DURATION,
            };
            metrics.observe(whole, &labels, latencies.request as f64);
            metrics.observe(&KONG_LATENCY, &labels, latencies.kong as f64);
            if latencies.proxy >= 0 {
                metrics.observe(&UPSTREAM_LATENCY, &labels, latencies.proxy as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Exposition, Metrics};
    use crate::testing::{logged, logged_with};
    use crate::trial::problems;

    /// Value lines of what one request is told as, without histograms' buckets.
    #[track_caller]
    fn check(config: Value, expected: &[&str]) {
        let metrics = Metrics::default();
        logged_with(&Prometheus, config, &metrics, |_| ());
        let mut text = Exposition::default();
        metrics.write(&mut text);
        let text = text.into_text();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket{"))
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn sessions_of_streams_have_names_of_their_own() {
        let metrics = Metrics::default();
        let config = json!({"status_code_metrics": true, "bandwidth_metrics": true});
        logged_with(&Prometheus, config, &metrics, |finished| {
            finished.stream = Some(crate::StreamSession::default());
        });
        let mut text = Exposition::default();
        metrics.write(&mut text);
        let text = text.into_text();
        assert!(
            text.contains("kong_stream_sessions_total{service=\"orders\""),
            "{text}"
        );
        assert!(text.contains("kong_bandwidth_bytes{"), "{text}");
        assert!(!text.contains("kong_http_requests_total"), "{text}");
    }

    #[test]
    fn what_is_configured_is_told() {
        check(json!({}), &[]);
        check(
            json!({"status_code_metrics": true}),
            &[
                "kong_http_requests_total{service=\"orders\",route=\"00000000-0000-0000-0000-000000000007\",code=\"200\",source=\"service\",workspace=\"default\",consumer=\"\"} 1",
            ],
        );
        check(
            json!({"bandwidth_metrics": true, "per_consumer": true}),
            &[
                "kong_bandwidth_bytes{service=\"orders\",route=\"00000000-0000-0000-0000-000000000007\",direction=\"egress\",workspace=\"default\",consumer=\"alice\"} 120",
                "kong_bandwidth_bytes{service=\"orders\",route=\"00000000-0000-0000-0000-000000000007\",direction=\"ingress\",workspace=\"default\",consumer=\"alice\"} 90",
            ],
        );
        let of = |metric: &str, what: &str, value: u32| {
            format!(
                "kong_{metric}_latency_ms_{what}{{service=\"orders\",route=\"00000000-0000-0000-0000-000000000007\",workspace=\"default\"}} {value}"
            )
        };
        let all = [
            of("kong", "count", 1),
            of("kong", "sum", 1),
            of("request", "count", 1),
            of("request", "sum", 9),
            of("upstream", "count", 1),
            of("upstream", "sum", 7),
        ];
        check(
            json!({"latency_metrics": true}),
            &all.each_ref().map(String::as_str),
        );
    }

    #[test]
    fn answers_of_the_gateway_and_services_without_a_name() {
        let metrics = Metrics::default();
        let config = json!({"status_code_metrics": true, "latency_metrics": true});
        logged_with(&Prometheus, config.clone(), &metrics, |finished| {
            finished.source = ResponseSource::Kong;
            finished.latencies.proxy = -1;
            finished.service = finished.service.map(|mut service| {
                service.name = None;
                service
            });
        });
        logged_with(&Prometheus, config, &metrics, |finished| {
            finished.service = None;
        });
        let mut text = Exposition::default();
        metrics.write(&mut text);
        let text = text.into_text();
        assert!(
            text.contains("{service=\"orders.example\",route=\"00000000-0000-0000-0000-000000000007\",code=\"200\",source=\"kong\",workspace=\"default\",consumer=\"\"} 1\n"),
            "{text}"
        );
        assert!(!text.contains("upstream_latency"), "{text}");
        assert!(!text.contains("service=\"\""), "{text}");
    }

    #[test]
    fn a_plugin_that_counts_nothing_does_not_log() {
        assert!(!logged(&Prometheus, json!({"per_consumer": true}), |_| ()).logs);
        assert!(logged(&Prometheus, json!({"latency_metrics": true}), |_| ()).logs);
    }

    #[test]
    fn bad_configurations_are_named() {
        let found = problems(&Prometheus, json!({"latency": true}));
        assert!(found.contains("latency: unknown field"), "{found}");
    }
}
