//! `http-log`: sends an entry for each request to an HTTP server.

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use sallyport_model::schema::{EntityCheck, Field, FieldError, PROTOCOLS, Path, Record, each};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::checks::is_header_name;
use crate::endpoint::{Endpoint, headers};
use crate::exchange::{Env, Exchange, Handler};
use crate::finished::Finished;
use crate::log_queue::{
    CustomFields, Destination, HttpSink, Outlet, QueueConfig, QueueSpec, Sink, array,
    custom_fields_by_lua, milliseconds, queue_field,
};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
Each request is a JSON object, see [log queues](../log_queue.md#what-an-entry-tells). With `max_batch_size` 1 each
goes out as a request of its own, otherwise they go as a JSON array. A status from 200 to 299 is success; anything
else is tried again as `queue` says. A user name and a password in `http_endpoint` become `Authorization: Basic`.
The server's certificate is not verified, as with Kong.

Configurations with the same `http_endpoint`, `method`, `content_type`, `timeout`, `keepalive` and `retry_count` share
one queue; the one that was used last says how it is sent.
";

/// The plugin, as the registry lists it.
pub(crate) struct HttpLog;

impl Plugin for HttpLog {
    fn name(&self) -> &'static str {
        "http-log"
    }

    fn priority(&self) -> i32 {
        12
    }

    fn summary(&self) -> &'static str {
        "sends an entry for each request to an HTTP server"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        PROTOCOLS
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::url("http_endpoint")
                .required()
                .referenceable()
                .encrypted()
                .about("Where entries go: `http` or `https`."),
            Field::string("method")
                .one_of(&["POST", "PUT", "PATCH"])
                .default(json!("POST"))
                .about("The method of requests to it."),
            Field::string("content_type")
                .one_of(&["application/json", "application/json; charset=utf-8"])
                .default(json!("application/json"))
                .about("Their `Content-Type`."),
            Field::number("timeout")
                .default(json!(10_000))
                .about("For connecting, sending and the answer each; milliseconds."),
            Field::number("keepalive")
                .default(json!(60_000))
                .about("How long a connection may be idle; milliseconds."),
            Field::integer("retry_count").about("Without effect, as in Kong."),
            Field::integer("queue_size").about("The older name of `queue.max_batch_size`."),
            Field::number("flush_timeout").about("The older name of `queue.max_coalescing_delay`."),
            Field::map(
                "headers",
                each::string().check(header),
                each::string().referenceable(),
            )
            .about("Further headers of requests to it."),
            queue_field(1),
            custom_fields_by_lua(),
        ])
        .check(EntityCheck::Custom {
            fields: &["http_endpoint", "headers"],
            run: one_authorization,
        })
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let queue = QueueConfig::deserialize(config)?;
        let fields = CustomFields::compile(config)?;
        let config = Config::deserialize(config)?;
        let endpoint = Endpoint::parse(&config.http_endpoint)?;
        let mut headers = headers(&config.headers.unwrap_or_default())?;
        if let Some(authorization) = &endpoint.authorization {
            let mut value = HeaderValue::from_str(authorization).map_err(CompileError::value)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let content_type = config.content_type.as_deref().unwrap_or("application/json");
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_str(content_type).map_err(CompileError::value)?,
        );
        let method = config.method.as_deref().unwrap_or("POST");
        let limits = queue.limits();
        let timeout = milliseconds(config.timeout, 10_000.0);
        let keepalive = milliseconds(config.keepalive, 60_000.0);
        // source: `make_queue_name` of Kong's handler
        let name = format!(
            "{}:{method}:{content_type}:{}:{}:{}",
            config.http_endpoint,
            timeout.as_millis(),
            keepalive.as_millis(),
            config.retry_count.map_or(String::new(), |n| n.to_string()),
        );
        let sink = Sink::Http(HttpSink {
            endpoint,
            method: method.parse::<Method>().map_err(CompileError::value)?,
            headers,
            connect_timeout: timeout,
            exchange_timeout: timeout * 2,
            keepalive,
            verify: false,
        });
        let alone = limits.batch_entries_max == 1;
        let outlet = Outlet::new(QueueSpec {
            plugin: self.name(),
            name,
            limits,
            destination: Destination::new(sink, move |batch| match batch {
                [one] if alone => vec![one.clone()],
                _ => vec![array(batch)],
            }),
        });
        Ok(Box::new(Active(outlet, fields)))
    }
}

fn header(name: &Value) -> Result<(), String> {
    let name = name.as_str().unwrap_or_default();
    is_header_name(name)?;
    for own in ["Host", "Content-Length", "Content-Type"] {
        if name.eq_ignore_ascii_case(own) {
            return Err(format!("cannot contain '{own}' header"));
        }
    }
    Ok(())
}

fn one_authorization(config: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let url = config["http_endpoint"].as_str().unwrap_or_default();
    let has_user = Endpoint::parse(url).is_ok_and(|endpoint| endpoint.authorization.is_some());
    let headers = config["headers"].as_object();
    let has_header = headers.is_some_and(|headers| {
        let mut names = headers.keys();
        names.any(|name| name.eq_ignore_ascii_case("authorization"))
    });
    if has_user && has_header {
        let message = "specifying both an 'Authorization' header and user info in \
                       'http_endpoint' is not allowed";
        errors.push(FieldError::entity(path.clone(), message));
    }
}

#[derive(Deserialize)]
struct Config {
    http_endpoint: String,
    method: Option<String>,
    content_type: Option<String>,
    timeout: Option<f64>,
    keepalive: Option<f64>,
    retry_count: Option<i64>,
    headers: Option<Map<String, Value>>,
}

struct Active(Outlet, CustomFields);

impl Handler for Active {
    fn logs(&self) -> bool {
        true
    }

    fn log(&self, exchange: &mut Exchange, finished: &Finished<'_>, env: &Env<'_>) {
        self.0.push(self.1.line(exchange, finished), env);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::queued;
    use crate::trial::problems;

    const URL: &str = "http://logs.example:9000/in?a=b";

    #[test]
    fn one_entry_is_an_object_and_several_are_an_array() {
        let alone = queued(&HttpLog, json!({"http_endpoint": URL}), |_| ());
        assert_eq!(alone.sink(), "logs.example:9000");
        let payload = alone.payloads(1);
        assert!(payload[0].starts_with("{\"request\":"), "{payload:?}");
        let config = json!({"http_endpoint": URL, "queue": {"max_batch_size": 3}});
        let batch = queued(&HttpLog, config, |_| ());
        for count in [1, 2] {
            let payload = batch.payloads(count);
            assert_eq!(payload.len(), 1);
            let array: Vec<Value> = serde_json::from_str(&payload[0]).unwrap();
            assert_eq!(array.len(), count);
        }
    }

    #[test]
    fn configurations_with_one_server_share_a_queue() {
        let name = |more: Value| {
            let mut config = json!({"http_endpoint": URL});
            config
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            queued(&HttpLog, config, |_| ()).name()
        };
        assert_eq!(name(json!({})), name(json!({"headers": {"a": "b"}})));
        assert_eq!(name(json!({})), name(json!({"queue": {"max_entries": 7}})));
        assert_ne!(name(json!({})), name(json!({"method": "PUT"})));
        assert_ne!(name(json!({})), name(json!({"timeout": 5})));
    }

    #[test]
    fn bad_configurations_are_named() {
        for (config, expected) in [
            (json!({}), "http_endpoint: required field missing"),
            (
                json!({"http_endpoint": "logs"}),
                "http_endpoint: missing scheme in url",
            ),
            (
                json!({"http_endpoint": "http:///x"}),
                "http_endpoint: missing host in url",
            ),
            (
                json!({"http_endpoint": URL, "method": "GET"}),
                "method: expected one of",
            ),
            (
                json!({"http_endpoint": URL, "headers": {"Host": "x"}}),
                "cannot contain 'Host'",
            ),
            (
                json!({"http_endpoint": URL, "queue": {"max_entries": 0}}),
                "queue.max_entries: value should be between 1 and 1000000",
            ),
            (
                json!({"http_endpoint": URL, "queue": {"initial_retry_delay": 0}}),
                "queue.initial_retry_delay: value should be between 0.001",
            ),
            (
                json!({"http_endpoint": URL, "queue": {"concurrency_limit": 2}}),
                "queue.concurrency_limit: expected one of: -1, 1",
            ),
            (
                json!({"http_endpoint": "http://a:b@c/", "headers": {"authorization": "x"}}),
                "specifying both an 'Authorization' header",
            ),
        ] {
            let found = problems(&HttpLog, config);
            assert!(found.contains(expected), "{found}");
        }
        let secret = problems(&HttpLog, json!({"http_endpoint": "ftp://me:s3cret@x/"}));
        assert!(!secret.contains("s3cret"), "{secret}");
    }
}
