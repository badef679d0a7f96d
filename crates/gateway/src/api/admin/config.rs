//! `POST /config`: a whole declarative document is checked, compiled and put in force.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use sallyport_model::Kind;
use sallyport_model::declarative::{Format, Place, Problem, parse_text};
use sallyport_runtime::memory::Tidy;
use sallyport_wire::config_hash::hashes;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tracing::{info, warn};

use super::super::{Answer, Node, arguments, message, reply};
use super::error::AdminError;
use crate::configuration::Configuration;
use crate::entities::Entry;

/// Largest document, bytes.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const TIME_MAX: Duration = Duration::from_secs(60);
/// Documents are put in force one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The text of a request's body: itself, or its member or part `config`.
pub(super) async fn read(head: &Parts, body: Incoming) -> Result<String, AdminError> {
    let read = timeout(TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let bytes = match read {
        Err(_) => return Err(AdminError::Slow),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(AdminError::TooLarge(BODY_BYTES_MAX));
        }
        Ok(Err(_)) => return Err(AdminError::Bad("the request body broke off".to_owned())),
        Ok(Ok(body)) => body.to_bytes(),
    };
    let text = String::from_utf8(bytes.into())
        .map_err(|_| AdminError::Bad("the request body is not UTF-8".to_owned()))?;
    let content_type = head.headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    Ok(document(content_type.unwrap_or_default(), text))
}

/// The document in a body of this type.
pub(super) fn document(content_type: &str, text: String) -> String {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let found = match kind.to_ascii_lowercase().as_str() {
        "multipart/form-data" => part(content_type, &text),
        "application/x-www-form-urlencoded" => arguments(Some(text.trim()))
            .into_iter()
            .find_map(|(name, value)| (name == "config").then_some(value)),
        "application/json" => match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(mut members)) => match members.remove("config") {
                Some(Value::String(config)) => Some(config),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    found.unwrap_or(text)
}

/// The part of a form that is called `config` (RFC 7578).
fn part(content_type: &str, text: &str) -> Option<String> {
    let boundary = content_type
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    let mark = format!("--{}", boundary.trim_matches('"'));
    let parts = text.split(&mark[..]).skip(1);
    parts
        .filter_map(|part| part.trim_start_matches("\r\n").split_once("\r\n\r\n"))
        .find(|(head, _)| head.contains("name=\"config\"") || head.contains("name=config"))
        .map(|(_, body)| body.strip_suffix("\r\n").unwrap_or(body).to_owned())
}

pub(super) async fn put(head: &Parts, body: Incoming, node: &Arc<Node>) -> Answer {
    if head.method != Method::POST {
        return AdminError::Method.answer();
    }
    if !node.takes_config {
        let text = "this gateway gets its configuration from its control plane";
        return AdminError::Bad(text.to_owned()).answer();
    }
    let query = arguments(head.uri.query());
    let asked = |wanted: &str| {
        query
            .iter()
            .any(|(name, value)| name == wanted && matches!(value.as_str(), "1" | "true"))
    };
    let (check_hash, flatten) = (asked("check_hash"), asked("flatten_errors"));
    let text = match read(head, body).await {
        Ok(text) => text,
        Err(error) => return error.answer(),
    };
    let node = node.clone();
    let applied = tokio::task::spawn_blocking(move || apply(&node, &text, check_hash, flatten));
    applied.await.unwrap_or_else(|error| {
        warn!(%error, "putting a document in force panicked");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        message(status, "An unexpected error occurred")
    })
}

fn apply(node: &Node, text: &str, check_hash: bool, flatten: bool) -> Answer {
    let _tidy = Tidy::after(text.len());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let declared = match parse_text(text, Format::File, &node.enabled) {
        Ok(declared) => declared,
        Err(problems) => return refused(&problems, flatten),
    };
    let hash = hashes(&declared.value).config;
    if check_hash && node.shared.configuration().hash == hash {
        return reply(StatusCode::NOT_MODIFIED, &Value::Null);
    }
    let configuration =
        match node
            .shared
            .configuration()
            .next_with(&declared, hash, &node.shared.balancers, &[])
        {
            Ok(configuration) => configuration,
            Err(unservable) => {
                let texts: Vec<String> = unservable.iter().map(ToString::to_string).collect();
                return invalid(&texts, Map::new(), None);
            }
        };
    for warning in &declared.warnings {
        warn!(%warning, "declarative configuration");
    }
    let routes = configuration.routes();
    let body = loaded(&configuration);
    node.shared.swap(configuration);
    info!(%hash, routes, "configuration in force");
    reply(StatusCode::CREATED, &body)
}

/// What was loaded: by kind, by id.
fn loaded(configuration: &Configuration) -> Value {
    let mut all = Map::new();
    for kind in Kind::ALL {
        let list = configuration.entities.all(kind);
        if !list.is_empty() {
            let by_id: Map<String, Value> = list
                .iter()
                .copied()
                .filter_map(|Entry { id, raw, .. }| {
                    Some((id.to_string(), serde_json::from_str(raw.get()).ok()?))
                })
                .collect();
            all.insert(kind.table().to_owned(), by_id.into());
        }
    }
    all.into()
}

/// The answer to a document with problems.
pub(super) fn refused(problems: &[Problem], flatten: bool) -> Answer {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let mut fields = Map::new();
    let mut flattened: Vec<Value> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for problem in problems {
        let path = problem.path.to_string();
        match &problem.place {
            Place::Object(object) if flatten => {
                let at = seen.iter().position(|at| *at == object.at);
                let at = at.unwrap_or_else(|| {
                    seen.push(object.at.clone());
                    flattened.push(json!({
                        "entity_type": object.kind.singular(),
                        "entity_id": object.id,
                        "entity_name": object.name,
                        "errors": [],
                    }));
                    flattened.len() - 1
                });
                let error = match problem.path.is_root() {
                    true => json!({"type": "entity", "message": problem.message}),
                    false => json!({"type": "field", "field": path, "message": problem.message}),
                };
                if let Some(errors) = flattened[at]["errors"].as_array_mut() {
                    errors.push(error);
                }
            }
            place => {
                let at = match place {
                    Place::Object(object) => object.at.clone(),
                    _ => String::new(),
                };
                let dot = if at.is_empty() || path.is_empty() {
                    ""
                } else {
                    "."
                };
                let whole = format!("{at}{dot}{path}");
                nest(&mut fields, &whole, &problem.message);
            }
        }
    }
    invalid(&texts, fields, flatten.then_some(flattened))
}

fn invalid(texts: &[String], fields: Map<String, Value>, flattened: Option<Vec<Value>>) -> Answer {
    let text = format!("declarative config is invalid: {}", texts.join("; "));
    let mut body = json!({
        "code": 14,
        "name": "invalid declarative configuration",
        "message": text,
        "fields": fields,
    });
    if let Some(flattened) = flattened {
        body["flattened_errors"] = flattened.into();
    }
    reply(StatusCode::BAD_REQUEST, &body)
}

/// Puts a message where a path such as `services[1].routes[0].paths` leads; elements of arrays
/// before it are null, as in Kong.
fn nest(fields: &mut Map<String, Value>, path: &str, text: &str) {
    let mut root = Value::Object(std::mem::take(fields));
    let mut at = &mut root;
    for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
        at = match part.strip_suffix(']').and_then(|index| index.parse().ok()) {
            Some(index) => {
                if !at.is_array() {
                    *at = Value::Array(Vec::new());
                }
                let list = at.as_array_mut().expect("it was made one a line ago");
                if list.len() <= index {
                    list.resize(index + 1, Value::Null);
                }
                &mut list[index]
            }
            None => {
                if !at.is_object() {
                    *at = Value::Object(Map::new());
                }
                at.as_object_mut()
                    .expect("it was made one a line ago")
                    .entry(part)
                    .or_insert(Value::Null)
            }
        };
    }
    match at {
        Value::Object(members) => {
            let list = members.entry("@entity").or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(text.into());
            }
        }
        Value::Null => *at = text.into(),
        _ => {}
    }
    if let Value::Object(members) = root {
        *fields = members;
    }
}
