//! The configuration of `opentelemetry`. Source: Kong's `kong/plugins/opentelemetry/schema.lua`.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use sallyport_model::schema::{EntityCheck, Field, Record, each};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::CompileError;
use crate::checks::header_name;
use crate::endpoint::{Endpoint, headers};
use crate::log_queue::{HttpSink, milliseconds, queue_field};
use crate::trace::{header_type, propagation_field};

pub(super) fn schema() -> Record {
    let timeout =
        |name, default: u32, about| Field::timeout(name).default(json!(default)).about(about);
    Record::new([
        Field::url("traces_endpoint")
            .referenceable()
            .about("The collector, such as `http://host:4318/v1/traces`."),
        Field::url("logs_endpoint")
            .referenceable()
            .about("Where the gateway's own log goes, such as `http://host:4318/v1/logs`."),
        Field::map(
            "headers",
            each::string().check(header_name),
            each::string().referenceable(),
        )
        .about("Further headers of requests to the collector."),
        Field::map(
            "resource_attributes",
            each::string(),
            each::string().check(no_template),
        )
        .about("Attributes of the resource, beside `service.name`, `service.instance.id` and `service.version`, or in their place."),
        queue_field(200),
        Field::integer("batch_span_count").about("The older name of `queue.max_batch_size`."),
        Field::integer("batch_flush_delay")
            .about("The older name of `queue.max_coalescing_delay`."),
        timeout("connect_timeout", 1000, "For connecting; milliseconds."),
        timeout("send_timeout", 5000, "For sending; milliseconds."),
        timeout("read_timeout", 5000, "For the answer; milliseconds."),
        Field::string("http_response_header_for_traceid")
            .check(header_name)
            .about("The header by which clients get the id of the trace."),
        header_type(),
        Field::number("sampling_rate")
            .between(0, 1)
            .about("The part of traces that are kept; `tracing_sampling_rate` of `kong.conf` where it is unset."),
        propagation_field("w3c"),
    ])
    .alias("endpoint", &["traces_endpoint"])
    .check(EntityCheck::AtLeastOneOf(&[
        "traces_endpoint",
        "logs_endpoint",
    ]))
}

fn no_template(value: &Value) -> Result<(), String> {
    match value.as_str().is_some_and(|text| text.contains("$(")) {
        true => Err(
            "code in configurations is not run by this build; write the value itself".to_owned(),
        ),
        false => Ok(()),
    }
}

#[derive(Deserialize)]
pub(super) struct Config {
    traces_endpoint: Option<String>,
    logs_endpoint: Option<String>,
    headers: Option<Map<String, Value>>,
    pub(super) resource_attributes: Option<Map<String, Value>>,
    connect_timeout: Option<f64>,
    send_timeout: Option<f64>,
    read_timeout: Option<f64>,
    pub(super) http_response_header_for_traceid: Option<String>,
    pub(super) sampling_rate: Option<f64>,
}

impl Config {
    /// Where traces go, and where the log goes.
    pub(super) fn sinks(&self) -> Result<[Option<HttpSink>; 2], CompileError> {
        let [traces, logs] = [&self.traces_endpoint, &self.logs_endpoint]
            .map(|url| url.as_deref().map(|url| self.sink(url)).transpose());
        Ok([traces?, logs?])
    }

    fn sink(&self, url: &str) -> Result<HttpSink, CompileError> {
        let mut headers = headers(self.headers.as_ref().unwrap_or(&Map::new()))?;
        headers
            .entry(CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("application/x-protobuf"));
        let send = milliseconds(self.send_timeout, 5000.0);
        Ok(HttpSink {
            endpoint: Endpoint::parse(url)?,
            method: Method::POST,
            headers,
            connect_timeout: milliseconds(self.connect_timeout, 1000.0),
            exchange_timeout: send + milliseconds(self.read_timeout, 5000.0),
            keepalive: Duration::from_secs(60),
            verify: true,
        })
    }
}
