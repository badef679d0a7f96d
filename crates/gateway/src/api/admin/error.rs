//! Error answers in Kong's shape: `{"code", "name", "message", "fields"}`.

use http::StatusCode;
use sallyport_model::Kind;
use sallyport_model::schema::{FieldError, nested};
use serde_json::{Map, Value, json};

use super::super::{Answer, message, reply};

/// Why a request is not answered.
#[derive(Debug)]
pub(super) enum AdminError {
    NotFound,
    Method,
    /// A write to an entity: the operation and what it is about.
    ReadOnly(&'static str, Kind),
    /// A list's `offset`.
    Offset(String),
    /// A list's `size`.
    Size,
    /// A list's `tags`.
    Options(String),
    NoEntity(String),
    NoPlugin(String),
    NotJson,
    Schema(Vec<FieldError>),
    NotAControlPlane,
    /// Something else about the request.
    Bad(String),
    TooLarge(usize),
    /// The client does not send what it announced.
    Slow,
}

impl AdminError {
    pub(super) fn answer(self) -> Answer {
        let bad = StatusCode::BAD_REQUEST;
        match self {
            AdminError::NotFound => message(StatusCode::NOT_FOUND, "Not found"),
            AdminError::Method => message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            AdminError::ReadOnly(operation, kind) => {
                let table = kind.table();
                let text =
                    format!("cannot {operation} '{table}' entities when not using a database");
                let body = json!({"code": 12, "name": "operation unsupported", "message": text});
                reply(StatusCode::METHOD_NOT_ALLOWED, &body)
            }
            AdminError::Offset(offset) => {
                let text = format!("'{offset}' is not a valid offset");
                coded(7, "invalid offset", &text, Map::new())
            }
            AdminError::Size => {
                let text = "size must be an integer between 1 and 1000";
                coded(9, "invalid size", text, Map::new())
            }
            AdminError::Options(text) => {
                let mut fields = Map::new();
                fields.insert("tags".to_owned(), text.clone().into());
                let message = format!("invalid option (tags: {text})");
                coded(11, "invalid options", &message, fields)
            }
            AdminError::NoEntity(name) => {
                let text = format!("No entity named '{name}'");
                message(StatusCode::NOT_FOUND, &text)
            }
            AdminError::NoPlugin(name) => {
                let text = format!("No plugin named '{name}'");
                message(StatusCode::NOT_FOUND, &text)
            }
            AdminError::NotJson => message(bad, "Cannot parse JSON body"),
            AdminError::Schema(errors) => {
                let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
                let text = match &told[..] {
                    [one] => format!("schema violation ({one})"),
                    all => format!("{} schema violations ({})", all.len(), all.join("; ")),
                };
                let fields = match nested(&errors) {
                    Value::Object(fields) => fields,
                    _ => Map::new(),
                };
                coded(2, "schema violation", &text, fields)
            }
            AdminError::NotAControlPlane => message(
                bad,
                "this endpoint is only available when Kong is configured to run as Control Plane \
                 for the cluster",
            ),
            AdminError::Bad(text) => message(bad, &text),
            AdminError::TooLarge(most) => {
                let text = format!("the request body is larger than {most} bytes");
                message(StatusCode::PAYLOAD_TOO_LARGE, &text)
            }
            AdminError::Slow => message(StatusCode::REQUEST_TIMEOUT, "Request timeout"),
        }
    }
}

fn coded(code: u8, name: &str, text: &str, fields: Map<String, Value>) -> Answer {
    let body = json!({"code": code, "name": name, "message": text, "fields": fields});
    reply(StatusCode::BAD_REQUEST, &body)
}
