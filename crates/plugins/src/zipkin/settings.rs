//! The configuration of `zipkin`. Source: Kong's `kong/plugins/zipkin/schema.lua`.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use sallyport_model::schema::{Field, Record, each};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::CompileError;
use crate::checks::header_name;
use crate::endpoint::Endpoint;
use crate::log_queue::{HttpSink, milliseconds, queue_field};
use crate::trace::{default_header_type, header_type, propagation_field};

/// Tags that only the plugin sets.
const PROTECTED: &[&str] = &[
    "error",
    "http.method",
    "http.path",
    "http.status_code",
    "kong.balancer.state",
    "kong.balancer.try",
    "kong.consumer",
    "kong.credential",
    "kong.node.id",
    "kong.route",
    "kong.service",
    "lc",
    "peer.hostname",
];

pub(super) fn schema() -> Record {
    let tag = Record::new([
        Field::string("name")
            .required()
            .check(not_protected)
            .about("Name of the tag."),
        Field::string("value").required().about("Its value."),
    ]);
    let timeout =
        |name, default: u32, about| Field::timeout(name).default(json!(default)).about(about);
    Record::new([
        Field::string("local_service_name")
            .required()
            .default(json!("kong"))
            .about("What the gateway is called in spans."),
        Field::url("http_endpoint")
            .about("The collector, such as `http://host:9411/api/v2/spans`."),
        Field::number("sample_ratio")
            .between(0, 1)
            .default(json!(0.001))
            .about("The part of requests that are told where the caller does not say."),
        Field::string("default_service_name").about("What services without a name are called."),
        Field::boolean("include_credential")
            .required()
            .default(json!(true))
            .about("Whether the id of the credential is told."),
        Field::integer("traceid_byte_count")
            .required()
            .default(json!(16))
            .one_of_numbers(&[8, 16])
            .about("Bytes of the ids of new traces."),
        header_type().required(),
        default_header_type(),
        Field::string("tags_header")
            .required()
            .default(json!("Zipkin-Tags"))
            .check(header_name)
            .about("The header by which requests bring tags: `name=value; name=value`."),
        Field::array("static_tags", each::record(tag))
            .check(different)
            .about("Tags of every request."),
        Field::string("http_span_name")
            .required()
            .default(json!("method"))
            .one_of(&["method", "method_path"])
            .about("What spans are called."),
        timeout("connect_timeout", 2000, "For connecting; milliseconds."),
        timeout("send_timeout", 5000, "For sending; milliseconds."),
        timeout("read_timeout", 5000, "For the answer; milliseconds."),
        Field::string("http_response_header_for_traceid")
            .check(header_name)
            .about("The header by which clients get the id of the trace."),
        Field::string("phase_duration_flavor")
            .required()
            .default(json!("annotations"))
            .one_of(&["annotations", "tags"])
            .about("How the time of each phase is told."),
        queue_field(1),
        propagation_field("b3"),
    ])
}

fn not_protected(name: &Value) -> Result<(), String> {
    match PROTECTED.contains(&name.as_str().unwrap_or_default()) {
        true => Err(format!("must not be one of: {}", PROTECTED.join(", "))),
        false => Ok(()),
    }
}

fn different(tags: &Value) -> Result<(), String> {
    let mut names: Vec<&str> = tags
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|tag| tag["name"].as_str())
        .collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("repeated tags are not allowed: {}", pair[0])),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
pub(super) struct Config {
    pub(super) local_service_name: String,
    pub(super) http_endpoint: Option<String>,
    pub(super) sample_ratio: Option<f64>,
    pub(super) default_service_name: Option<String>,
    pub(super) include_credential: bool,
    pub(super) traceid_byte_count: usize,
    pub(super) tags_header: String,
    pub(super) static_tags: Option<Vec<Tag>>,
    pub(super) http_span_name: String,
    connect_timeout: Option<f64>,
    send_timeout: Option<f64>,
    read_timeout: Option<f64>,
    pub(super) http_response_header_for_traceid: Option<String>,
    pub(super) phase_duration_flavor: String,
}

#[derive(Deserialize)]
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) value: String,
}

impl Config {
    pub(super) fn sink(&self, url: &str) -> Result<HttpSink, CompileError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let send = milliseconds(self.send_timeout, 5000.0);
        Ok(HttpSink {
            endpoint: Endpoint::parse(url)?,
            method: Method::POST,
            headers,
            connect_timeout: milliseconds(self.connect_timeout, 2000.0),
            exchange_timeout: send + milliseconds(self.read_timeout, 5000.0),
            keepalive: Duration::from_secs(60),
            verify: true,
        })
    }
}
