//! The configuration of `statsd`. Source: Kong's `kong/plugins/statsd/schema.lua`.

use sallyport_model::schema::{EntityCheck, Field, Match, Record, each};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::log_queue::queue_field;

const METRICS: &[&str] = &[
    "kong_latency",
    "latency",
    "request_count",
    "request_per_user",
    "request_size",
    "response_size",
    "status_count",
    "status_count_per_user",
    "unique_users",
    "upstream_latency",
    "status_count_per_workspace",
    "status_count_per_user_per_route",
    "shdict_usage",
];
const CONSUMER: &[&str] = &["consumer_id", "custom_id", "username"];
const SERVICE: &[&str] = &[
    "service_id",
    "service_name",
    "service_host",
    "service_name_or_host",
];
const WORKSPACE: &[&str] = &["workspace_id", "workspace_name"];

fn default_metrics() -> Value {
    let metric = |name: &str, stat_type: &str, sample_rate: Option<u8>| match sample_rate {
        Some(rate) => json!({"name": name, "stat_type": stat_type, "sample_rate": rate}),
        None => json!({"name": name, "stat_type": stat_type}),
    };
    json!([
        metric("request_count", "counter", Some(1)),
        metric("latency", "timer", None),
        metric("request_size", "counter", Some(1)),
        metric("status_count", "counter", Some(1)),
        metric("response_size", "counter", Some(1)),
        metric("unique_users", "set", None),
        metric("request_per_user", "counter", Some(1)),
        metric("upstream_latency", "timer", None),
        metric("kong_latency", "timer", None),
        metric("status_count_per_user", "counter", Some(1)),
        metric("status_count_per_workspace", "counter", Some(1)),
        metric("status_count_per_user_per_route", "counter", Some(1)),
        metric("shdict_usage", "gauge", Some(1)),
    ])
}

pub(super) fn schema() -> Record {
    let metric = Record::new([
        Field::string("name")
            .required()
            .one_of(METRICS)
            .about("Which metric."),
        Field::string("stat_type")
            .required()
            .one_of(&["counter", "gauge", "histogram", "meter", "set", "timer"])
            .about("What kind of value it is said to be."),
        Field::number("sample_rate")
            .above(0)
            .about("Told to the server; every request is sent."),
        Field::string("consumer_identifier")
            .one_of(CONSUMER)
            .about("What consumers go by in this metric."),
        Field::string("service_identifier")
            .one_of(SERVICE)
            .about("What services go by in this metric."),
        Field::string("workspace_identifier")
            .one_of(WORKSPACE)
            .about("What the workspace goes by in this metric."),
    ])
    .check(EntityCheck::Conditional {
        if_field: "stat_type",
        if_match: Match::OneOf(&["counter", "gauge"]),
        then_field: "sample_rate",
        then_match: Match::Set,
    });
    let identifier = |name, default: &str, values, about| {
        Field::string(name)
            .required()
            .default(json!(default))
            .one_of(values)
            .about(about)
    };
    Record::new([
        Field::host("host")
            .default(json!("localhost"))
            .about("Name or address of the server."),
        Field::port("port").default(json!(8125)).about("Its port."),
        Field::string("prefix")
            .default(json!("kong"))
            .about("What every name begins with."),
        Field::array("metrics", each::record(metric))
            .default(default_metrics())
            .about("What is sent."),
        Field::array("allow_status_codes", each::string().check(range))
            .about("Only requests with these statuses are told, such as `200-299`."),
        Field::number("udp_packet_size")
            .between(0, 65_507)
            .default(json!(0))
            .about("Metrics share a datagram up to this many bytes; 0: each has its own."),
        Field::boolean("use_tcp")
            .default(json!(false))
            .about("Whether lines over TCP are sent in the place of datagrams."),
        Field::boolean("hostname_in_prefix")
            .default(json!(false))
            .about("Whether `.node.<host name>` follows the prefix."),
        identifier(
            "consumer_identifier_default",
            "custom_id",
            CONSUMER,
            "What consumers go by.",
        ),
        identifier(
            "service_identifier_default",
            "service_name_or_host",
            SERVICE,
            "What services go by.",
        ),
        identifier(
            "workspace_identifier_default",
            "workspace_id",
            WORKSPACE,
            "What the workspace goes by.",
        ),
        Field::integer("retry_count").about("Without effect, as in Kong."),
        Field::integer("queue_size").about("The older name of `queue.max_batch_size`."),
        Field::number("flush_timeout").about("The older name of `queue.max_coalescing_delay`."),
        Field::string("tag_style")
            .one_of(&["dogstatsd", "influxdb", "librato", "signalfx"])
            .about("How tags are written; without it there are none."),
        queue_field(1),
    ])
}

fn range(range: &Value) -> Result<(), String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match range.as_str().and_then(|text| text.split_once('-')) {
        Some((from, to)) if digits(from) && digits(to) => Ok(()),
        _ => Err("invalid value: expected two statuses, such as 200-299".to_owned()),
    }
}

#[derive(Deserialize)]
pub(super) struct Config {
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) prefix: Option<String>,
    #[serde(default)]
    pub(super) metrics: Vec<Metric>,
    allow_status_codes: Option<Vec<String>>,
    udp_packet_size: Option<f64>,
    pub(super) use_tcp: Option<bool>,
    pub(super) hostname_in_prefix: Option<bool>,
    pub(super) consumer_identifier_default: String,
    pub(super) service_identifier_default: String,
    pub(super) workspace_identifier_default: String,
    pub(super) tag_style: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) stat_type: String,
    pub(super) sample_rate: Option<f64>,
    pub(super) consumer_identifier: Option<String>,
    pub(super) service_identifier: Option<String>,
    pub(super) workspace_identifier: Option<String>,
}

impl Config {
    /// Bytes that metrics may share; 0: none.
    pub(super) fn packet_bytes(&self) -> usize {
        self.udp_packet_size.map_or(0, |bytes| bytes as usize)
    }

    pub(super) fn statuses(&self) -> Option<Vec<(u16, u16)>> {
        let ranges = self.allow_status_codes.as_ref()?;
        let number = |text: &str| text.parse().unwrap_or(u16::MAX);
        let one = |range: &String| {
            let (from, to) = range.split_once('-').unwrap_or_default();
            (number(from), number(to))
        };
        Some(ranges.iter().map(one).collect())
    }
}
