//! `request-termination`: answers a request without asking the upstream.

mod echo;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use sallyport_model::schema::{EntityCheck, Field, FieldError, Path, Record};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::checks::{header_name, status};
use crate::exchange::{Env, Exchange, Flow, Handler, Reply};
use crate::params::Params;
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
With `body` the answer is these bytes, with `content_type` (`application/json; charset=utf-8` unless set).
Otherwise it is `{\"message\": …}` with `message`, or with a text for the statuses 401, 404, 405, 500, 502 and 503;
without one the answer has no body. With `trigger`, only requests that have a header or an argument of that name
are answered.

With `echo` the answer is JSON that shows the request: its method, path, arguments, headers and body (up to 1 MiB;
as `raw_body`, and as `body` where it is JSON or a form), what the route caught, the route, the service and the
node. It shows credentials too, so give it a `trigger` that only you know.

It runs last in the access phase: authentication and limits come first. Set on the `anonymous` consumer of several
authentication plugins, it turns away whoever none of them knows. Not in this build, and refused:
statuses below 200.
";

/// The plugin, as the registry lists it.
pub(crate) struct RequestTermination;

impl Plugin for RequestTermination {
    fn name(&self) -> &'static str {
        "request-termination"
    }

    fn priority(&self) -> i32 {
        2
    }

    fn summary(&self) -> &'static str {
        "answers requests without asking the upstream"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::integer("status_code")
                .required()
                .default(json!(503))
                .between(100, 599)
                .check(status)
                .about("Status of the answer."),
            Field::string("message").about("Text of a JSON answer."),
            Field::string("content_type")
                .check(header_value)
                .about("Type of `body`."),
            Field::string("body").about("The whole answer."),
            Field::boolean("echo")
                .required()
                .default(json!(false))
                .about("Whether the answer shows the request."),
            Field::string("trigger")
                .check(header_name)
                .about("A header or an argument that a request must have to be answered."),
        ])
        .check(EntityCheck::Custom {
            fields: &["message", "content_type", "body", "echo"],
            run: one_kind_of_answer,
        })
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let content_type = config
            .content_type
            .as_deref()
            .unwrap_or("application/json; charset=utf-8");
        let header = match &config.trigger {
            Some(name) => Some(name.parse().map_err(CompileError::value)?),
            None => None,
        };
        Ok(Box::new(Active {
            status: StatusCode::from_u16(config.status_code).map_err(CompileError::value)?,
            content_type: HeaderValue::from_str(content_type).map_err(CompileError::value)?,
            trigger: config.trigger.zip(header),
            message: config.message.map(Arc::from),
            body: config.body,
            echo: config.echo,
        }))
    }
}

fn header_value(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    match HeaderValue::from_str(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("'{text}' cannot be the value of a header")),
    }
}

/// Source: the custom validator of Kong's schema.
fn one_kind_of_answer(config: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let set = |name: &str| !config.get(name).is_none_or(Value::is_null);
    let (content_type, body) = (set("content_type"), set("body"));
    let message = match (set("message"), content_type, body) {
        (true, true, _) | (true, _, true) => "message cannot be used with content_type or body",
        (false, true, false) => "content_type requires a body",
        (_, content_type, body) if config.get("echo") == Some(&Value::Bool(true)) => {
            match content_type || body {
                true => "echo cannot be used with content_type and body",
                false => return,
            }
        }
        _ => return,
    };
    errors.push(FieldError::entity(path.clone(), message));
}

#[derive(Deserialize)]
struct Config {
    status_code: u16,
    message: Option<String>,
    content_type: Option<String>,
    body: Option<String>,
    #[serde(default)]
    echo: bool,
    trigger: Option<String>,
}

struct Active {
    status: StatusCode,
    content_type: HeaderValue,
    message: Option<Arc<str>>,
    body: Option<String>,
    echo: bool,
    /// Name of an argument and of a header that must be there.
    trigger: Option<(String, HeaderName)>,
}

impl Handler for Active {
    fn reads_captures(&self) -> bool {
        self.echo
    }

    fn reads_entities(&self) -> bool {
        self.echo
    }

    fn access(&self, exchange: &mut Exchange, _: &Env<'_>) -> Flow {
        if let Some((argument, header)) = &self.trigger {
            let request = &exchange.request;
            let in_query =
                || Params::parse(request.uri.query().unwrap_or_default()).contains(argument);
            if !request.headers.contains(header) && !in_query() {
                return Flow::Continue;
            }
        }
        if self.echo {
            let (status, message) = (self.status, self.message.clone());
            return Flow::ReadBody(
                echo::SHOWN_MAX,
                Box::new(move |exchange, env| {
                    let message = message.as_deref().or(default_message(status));
                    let Some(arriving) = env.arriving else {
                        return Flow::Respond(Reply::failure());
                    };
                    let arrival = arriving.arrival(exchange);
                    let body = echo::shown(message, exchange, &arrival, &env.node.facts);
                    Flow::Respond(Reply::json(status, body))
                }),
            );
        }
        let message = || self.message.as_deref().or(default_message(self.status));
        Flow::Respond(match (&self.body, message()) {
            (Some(body), _) => Reply::exact(self.status, self.content_type.clone(), body.clone()),
            (None, Some(message)) => Reply::message(self.status, message),
            (None, None) => Reply::empty(self.status),
        })
    }
}

/// Source: Kong's handler.
fn default_message(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        401 => "Unauthorized",
        404 => "Not found",
        405 => "Method not allowed",
        500 => "An unexpected error occurred",
        502 => "Bad Gateway",
        503 => "Service unavailable",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::{Trial, get, post, problems};

    const JSON: Option<&str> = Some("application/json; charset=utf-8");

    #[track_caller]
    fn check(config: Value, uri: &str, expected: (u16, Option<&str>, &str)) {
        let seen = Trial::new(&RequestTermination, config).ask(&mut get(uri), b"");
        assert_eq!(
            (seen.status, seen.header("content-type"), &*seen.body),
            expected
        );
    }

    #[test]
    fn answers_as_configured() {
        let json = JSON;
        let by_default = (503, json, r#"{"message":"Service unavailable"}"#);
        check(json!({}), "/", by_default);
        for (status, text) in [
            (401, "Unauthorized"),
            (404, "Not found"),
            (405, "Method not allowed"),
            (500, "An unexpected error occurred"),
            (502, "Bad Gateway"),
        ] {
            let body = json!({ "message": text }).to_string();
            check(json!({"status_code": status}), "/", (status, json, &body));
        }
        check(json!({"status_code": 204}), "/", (204, None, ""));
        let config = json!({"status_code": 403, "message": "say \"please\""});
        check(config, "/", (403, json, r#"{"message":"say \"please\""}"#));
        check(json!({"body": "{\"a\":1}"}), "/", (503, json, "{\"a\":1}"));
        let config = json!({"status_code": 200, "body": "<h1>x</h1>", "content_type": "text/html"});
        check(config, "/", (200, Some("text/html"), "<h1>x</h1>"));
    }

    #[test]
    fn a_trigger_must_be_there() {
        let config = json!({"trigger": "X-Stop"});
        check(config.clone(), "/", (200, None, ""));
        let trial = Trial::new(&RequestTermination, config);
        for uri in ["/?X-Stop", "/?a=1&X-Stop=1"] {
            assert_eq!(trial.ask(&mut get(uri), b"").status, 503, "{uri}");
        }
        let mut exchange = get("/");
        let name = HeaderName::from_static("x-stop");
        exchange
            .request
            .headers
            .set(&name, &HeaderValue::from_static("1"));
        assert_eq!(trial.ask(&mut exchange, b"").status, 503);
    }

    #[test]
    fn an_echo_shows_the_request() {
        let trial = Trial::new(
            &RequestTermination,
            json!({"status_code": 404, "echo": true}),
        );
        let mut exchange = post("/a?b=1&b=2&c", "application/json; charset=utf-8");
        exchange.uri_captures.indexed = vec![Some("/a".to_owned()), Some("a".to_owned())];
        exchange.uri_captures.named = vec![("name".to_owned(), "a".to_owned())];
        let seen = trial.ask(&mut exchange, br#"{"x": 1}"#);
        assert_eq!((seen.status, seen.header("content-type")), (404, JSON));
        let expected = json!({
            "message": "Not found",
            "kong": {
                "node_id": uuid::Uuid::nil(), "worker_pid": std::process::id(),
                "hostname": "gate.example",
            },
            "request": {
                "scheme": "http", "host": "api.example", "port": 8000, "method": "POST",
                "path": "/a", "query": {"b": ["1", "2"], "c": true},
                "headers": {"content-type": "application/json; charset=utf-8"},
                "raw_body": "{\"x\": 1}", "body": {"x": 1},
                "uri_captures": {"unnamed": ["a"], "named": {"name": "a"}},
            },
        });
        assert_eq!(serde_json::from_str::<Value>(&seen.body).unwrap(), expected);
        let config = json!({"echo": true, "trigger": "x-echo", "message": "look"});
        let trial = Trial::new(&RequestTermination, config);
        assert_eq!(trial.ask(&mut get("/"), b"").status, 200);
        let mut exchange = post("/?x-echo", "application/x-www-form-urlencoded");
        let seen: Value = serde_json::from_str(&trial.ask(&mut exchange, b"a=b+c").body).unwrap();
        assert_eq!(seen["request"]["body"], json!({"a": "b c"}));
        assert_eq!(seen["message"], "look");
        let large = vec![b'x'; echo::SHOWN_MAX as usize + 1];
        let seen: Value =
            serde_json::from_str(&trial.ask(&mut get("/?x-echo"), &large).body).unwrap();
        assert_eq!(seen["request"].get("raw_body"), None);
    }

    #[test]
    fn bad_configurations_are_named() {
        for (config, part) in [
            (json!({"status_code": 99}), "between 100 and 599"),
            (json!({"status_code": 101}), "announces a response"),
            (
                json!({"message": "a", "body": "b"}),
                "message cannot be used with",
            ),
            (
                json!({"content_type": "a/b"}),
                "content_type requires a body",
            ),
            (
                json!({"echo": true, "body": "x"}),
                "echo cannot be used with content_type and body",
            ),
            (json!({"trigger": "a b"}), "bad header name"),
        ] {
            let found = problems(&RequestTermination, config);
            assert!(found.contains(part), "{found:?}");
        }
    }
}
