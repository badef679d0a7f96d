//! Error answers of core-entities: `{"code", "message", "details"}`, codes as in gRPC.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use sallyport_model::Kind;
use sallyport_model::schema::{ErrorKind, FieldError};
use sallyport_store::{StorageFailure, StoreError};
use serde_json::{Value, json};

use super::admin_error as admin;
use crate::body::BodyError;
use crate::problem::retry_later;

const DETAIL: &str = "type.googleapis.com/kong.admin.model.v1.ErrorDetail";

/// Why a request is not answered.
#[derive(Debug)]
pub(crate) enum CoreError {
    /// The entity, or the whole path, is not there.
    NotFound,
    /// No such schema; the text names it.
    NoSchema(String),
    /// The entity breaks its schema.
    Invalid(Vec<FieldError>),
    /// A list argument is wrong; the text names it.
    ListOption(String),
    /// Anything else about the request; the text names it.
    Argument(String),
    /// A kind of entity that this build does not have.
    Unsupported(String),
    /// The method does not exist on this path.
    Method(Method, String),
    /// The caller's roles do not allow it.
    Forbidden,
    /// Entities of a control plane for ingress controllers are written by those alone.
    IngressController,
    /// A group has no entities of its own.
    Group,
    /// The operation of a batch with this place, from 0.
    Operation(usize, Box<CoreError>),
    /// A past version is not written to.
    Past,
    Body(BodyError),
    Store(StoreError, Option<Kind>),
    /// A bug or a machine in trouble; already logged.
    Internal,
}

impl From<BodyError> for CoreError {
    fn from(error: BodyError) -> CoreError {
        CoreError::Body(error)
    }
}

impl From<StoreError> for CoreError {
    fn from(error: StoreError) -> CoreError {
        CoreError::Store(error, None)
    }
}

impl From<Vec<FieldError>> for CoreError {
    fn from(errors: Vec<FieldError>) -> CoreError {
        CoreError::Invalid(errors)
    }
}

impl IntoResponse for CoreError {
    fn into_response(self) -> Response {
        let (status, body) = self.parts();
        let mut response = (status, Json(body)).into_response();
        retry_later(&mut response);
        response
    }
}

fn body(code: u8, message: impl Into<String>, details: Vec<Value>) -> Value {
    let message: String = message.into();
    json!({"code": code, "message": message, "details": details})
}

impl CoreError {
    /// The answer as Kong's Admin API gives it: `{"code", "name", "message", "fields"}`.
    pub(super) fn into_admin(self) -> Response {
        let (status, body) = admin::parts(self);
        let mut response = (status, Json(body)).into_response();
        retry_later(&mut response);
        response
    }

    /// The same, of one operation of a batch.
    pub(super) fn within(self, at: usize) -> CoreError {
        CoreError::Operation(at, Box::new(self))
    }

    pub(super) fn parts(self) -> (StatusCode, Value) {
        let bad = StatusCode::BAD_REQUEST;
        match self {
            CoreError::NotFound => (StatusCode::NOT_FOUND, body(5, "", vec![])),
            CoreError::NoSchema(message) => (StatusCode::NOT_FOUND, body(5, message, vec![])),
            CoreError::Invalid(errors) => (
                bad,
                body(3, message("validation error", &errors), validation(&errors)),
            ),
            CoreError::ListOption(message) => (bad, body(9, message, vec![])),
            CoreError::Argument(message) => (bad, body(3, message, vec![])),
            CoreError::Unsupported(name) => {
                let message = format!("{name} are not supported by this build");
                let message = match why_absent(&name) {
                    Some(reason) => format!("{message}: {reason}"),
                    None => message,
                };
                (bad, body(3, message, vec![]))
            }
            CoreError::Method(method, path) => {
                let message = format!("{method} is not possible on {path}");
                (StatusCode::METHOD_NOT_ALLOWED, body(12, message, vec![]))
            }
            CoreError::Forbidden => {
                let message = "Forbidden: your roles do not allow this";
                (StatusCode::FORBIDDEN, body(7, message, vec![]))
            }
            CoreError::Operation(at, error) => {
                let (status, mut body) = error.parts();
                let text = body["message"].as_str().unwrap_or_default();
                body["message"] = Value::String(format!("operations[{at}]: {text}"));
                (status, body)
            }
            CoreError::IngressController | CoreError::Group => {
                let text = match self {
                    CoreError::Group => "a group has no entities of its own; write to its members",
                    _ => "operation not permitted on a control plane for ingress controllers",
                };
                let detail =
                    json!({"@type": DETAIL, "type": "ERROR_TYPE_ENTITY", "messages": [text]});
                (
                    StatusCode::FORBIDDEN,
                    body(7, "usage constraint error", vec![detail]),
                )
            }
            CoreError::Past => {
                let message = "a past version cannot be changed; restore it as a new one";
                (StatusCode::METHOD_NOT_ALLOWED, body(12, message, vec![]))
            }
            CoreError::Body(BodyError::TooLarge) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                body(8, BodyError::TooLarge.to_string(), vec![]),
            ),
            CoreError::Body(error) => (bad, body(3, error.to_string(), vec![])),
            CoreError::Store(error, kind) => store(&error, kind),
            CoreError::Internal => (StatusCode::INTERNAL_SERVER_ERROR, body(13, "", vec![])),
        }
    }
}

/// Why this build does not have a kind of entity, and what to do instead.
fn why_absent(name: &str) -> Option<&'static str> {
    Some(match name {
        "partials" | "degraphql_routes" | "degraphql" | "graphql-rate-limiting-advanced" => {
            "they are of Kong's enterprise edition, and data planes of the open-source one refuse \
             them; write the configuration into each plugin"
        }
        "plugin-schemas" | "custom-plugins" | "cloned-plugins" => {
            "its plugins are part of the executable, and schemas and handlers in Lua are not run; \
             GET schemas/plugins/{name} shows those that there are"
        }
        "workspaces" => "a control plane of its own does what a workspace is for",
        "licenses" => "nothing needs one",
        _ => return None,
    })
}

fn store(error: &StoreError, kind: Option<Kind>) -> (StatusCode, Value) {
    let reference = |field: &str, text: String| {
        let detail = json!({
            "@type": DETAIL,
            "type": "ERROR_TYPE_REFERENCE",
            "field": field,
            "messages": [text],
        });
        let message = format!("data constraint error: {text}");
        (StatusCode::BAD_REQUEST, body(3, message, vec![detail]))
    };
    match error {
        StoreError::UniqueTaken { field, value } => {
            // The value of a key is a secret, of fields together a list of ids.
            let value = match field.as_str() {
                "name" | "username" | "custom_id" | "instance_name" | "id" => {
                    format!(" for value '{value}'")
                }
                _ => String::new(),
            };
            reference(
                field,
                format!("{field} (type: unique) constraint failed{value}"),
            )
        }
        StoreError::ForeignMissing { field, kind, id } => {
            let field = format!("{field}.id");
            let text =
                format!("{field} (type: foreign) constraint failed: there is no {kind} '{id}'");
            reference(&field, text)
        }
        StoreError::StillReferenced { by, id } => {
            let own = kind.map_or("entity".to_owned(), |kind| {
                format!("'{}' entity", kind.table())
            });
            let text = format!(
                "an existing '{}' entity ({id}) references this {own}; delete it first",
                by.table()
            );
            reference("", text)
        }
        StoreError::NotFound | StoreError::NoControlPlane(_) => {
            (StatusCode::NOT_FOUND, body(5, "", vec![]))
        }
        StoreError::BadOffset => (StatusCode::BAD_REQUEST, body(9, "invalid offset", vec![])),
        StoreError::NoRevision { .. } => {
            (StatusCode::NOT_FOUND, body(5, error.to_string(), vec![]))
        }
        StoreError::Moved { .. } | StoreError::Diverged { .. } | StoreError::Cluster(_) => {
            (StatusCode::CONFLICT, body(10, error.to_string(), vec![]))
        }
        StoreError::NulCharacter
        | StoreError::WrittenTwice { .. }
        | StoreError::NotAGroup(_)
        | StoreError::CannotJoin(_) => {
            (StatusCode::BAD_REQUEST, body(3, error.to_string(), vec![]))
        }
        StoreError::Storage(StorageFailure::Unavailable(failure)) => {
            tracing::warn!(%failure, "a request failed: no database");
            let message = "the database is not available, try again";
            (StatusCode::SERVICE_UNAVAILABLE, body(14, message, vec![]))
        }
        StoreError::Storage(StorageFailure::Full) => (
            StatusCode::INSUFFICIENT_STORAGE,
            body(8, error.to_string(), vec![]),
        ),
        StoreError::Storage(StorageFailure::Closed) => {
            let message = "the control plane is stopping";
            (StatusCode::SERVICE_UNAVAILABLE, body(14, message, vec![]))
        }
        StoreError::Storage(failure) => {
            tracing::error!(%failure, "a request failed in the database");
            (StatusCode::INTERNAL_SERVER_ERROR, body(13, "", vec![]))
        }
    }
}

/// The documented text first, then every error: decK shows its user nothing but the message.
fn message(first: &str, errors: &[FieldError]) -> String {
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    format!("{first}: {}", told.join("; "))
}

/// One detail a path, messages of the same path together.
fn validation(errors: &[FieldError]) -> Vec<Value> {
    let mut details: Vec<(String, ErrorKind, Vec<&str>)> = Vec::new();
    for error in errors {
        let path = error.path.to_string();
        match details
            .iter_mut()
            .find(|(other, kind, _)| *other == path && *kind == error.kind)
        {
            Some((_, _, messages)) => messages.push(&error.message),
            None => details.push((path, error.kind, vec![&error.message])),
        }
    }
    let shown = details.into_iter().map(|(path, kind, messages)| {
        let kind = match kind {
            ErrorKind::Field => "ERROR_TYPE_FIELD",
            ErrorKind::Entity => "ERROR_TYPE_ENTITY",
        };
        let mut detail = json!({"@type": DETAIL, "type": kind, "messages": messages});
        if !path.is_empty() {
            detail["field"] = Value::String(path);
        }
        detail
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use sallyport_model::schema::Path;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn field_and_entity_errors_become_details() {
        let port = Path::root().key("port");
        let errors = vec![
            FieldError::field(port.clone(), "expected an integer"),
            FieldError::entity(Path::root(), "at least one"),
            FieldError::field(port, "too small"),
        ];
        let (status, body) = CoreError::Invalid(errors).parts();
        assert_eq!(status, 400);
        let message = "validation error: port: expected an integer; at least one; port: too small";
        assert_eq!(
            body,
            json!({"code": 3, "message": message, "details": [
                {"@type": DETAIL, "type": "ERROR_TYPE_FIELD", "field": "port",
                 "messages": ["expected an integer", "too small"]},
                {"@type": DETAIL, "type": "ERROR_TYPE_ENTITY", "messages": ["at least one"]},
            ]})
        );
    }

    #[track_caller]
    fn check(error: CoreError, status: u16, code: u8, part: &str) {
        let (got, body) = error.parts();
        assert_eq!(
            (got.as_u16(), body["code"].as_u64()),
            (status, Some(u64::from(code)))
        );
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }

    #[test]
    fn every_error_has_its_status_and_code() {
        let taken = |field: &str| StoreError::UniqueTaken {
            field: field.to_owned(),
            value: "secret".to_owned(),
        };
        check(CoreError::NotFound, 404, 5, "");
        check(
            taken("name").into(),
            400,
            3,
            "name (type: unique) constraint failed for value",
        );
        let (_, body) = CoreError::from(taken("key")).parts();
        assert!(!body.to_string().contains("secret"), "{body}");
        let missing = StoreError::ForeignMissing {
            field: "service".to_owned(),
            kind: Kind::Service,
            id: Uuid::nil(),
        };
        check(
            missing.into(),
            400,
            3,
            "service.id (type: foreign) constraint failed",
        );
        let held = StoreError::StillReferenced {
            by: Kind::Route,
            id: Uuid::nil(),
        };
        check(
            CoreError::Store(held, Some(Kind::Service)),
            400,
            3,
            "'routes' entity",
        );
        check(StoreError::BadOffset.into(), 400, 9, "invalid offset");
        check(
            CoreError::Unsupported("vaults".to_owned()),
            400,
            3,
            "vaults are not supported",
        );
        check(
            CoreError::Unsupported("plugin-schemas".to_owned()),
            400,
            3,
            "plugin-schemas are not supported by this build: its plugins are part of",
        );
        check(BodyError::TooLarge.into(), 413, 8, "larger than");
        check(
            CoreError::IngressController,
            403,
            7,
            "usage constraint error",
        );
        let broken = StorageFailure::Engine("disk I/O error".to_owned());
        let (status, body) = CoreError::from(StoreError::Storage(broken)).parts();
        assert_eq!((status.as_u16(), &body["message"]), (500, &json!("")));
        check(
            StoreError::Storage(StorageFailure::Full).into(),
            507,
            8,
            "full",
        );
    }
}
