//! Error answers of the v2 and v3 APIs: `application/problem+json`.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use sallyport_store::{StorageFailure, StoreError};
use serde_json::{Value, json};

use crate::body::BodyError;

/// An error answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    invalid_parameters: Vec<Value>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        let title = match status {
            StatusCode::UNAUTHORIZED => "Unauthorized",
            status => status.canonical_reason().unwrap_or("Error"),
        };
        Problem {
            status,
            title,
            detail: detail.into(),
            invalid_parameters: Vec::new(),
        }
    }

    pub(crate) fn not_found(what: &str) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, format!("{what} not found"))
    }

    /// A request with one bad field or query argument.
    pub(crate) fn invalid(field: &str, reason: impl Into<String>) -> Problem {
        let reason: String = reason.into();
        let mut problem = Problem::new(StatusCode::BAD_REQUEST, format!("{field}: {reason}"));
        problem.invalid_parameters = vec![json!({"field": field, "reason": reason})];
        problem
    }

    /// Several bad fields: field and reason.
    pub(crate) fn invalid_all(bad: &[(String, String)]) -> Problem {
        let detail: Vec<String> = bad
            .iter()
            .map(|(field, reason)| format!("{field}: {reason}"))
            .collect();
        let mut problem = Problem::new(StatusCode::BAD_REQUEST, detail.join("; "));
        problem.invalid_parameters = bad
            .iter()
            .map(|(field, reason)| json!({"field": field, "reason": reason}))
            .collect();
        problem
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        match error {
            StoreError::NotFound => Problem::not_found("the object"),
            StoreError::NoControlPlane(id) => Problem::not_found(&format!("control plane {id}")),
            StoreError::UniqueTaken { .. } => Problem::new(StatusCode::CONFLICT, error.to_string()),
            StoreError::BadOffset => Problem::invalid("page[after]", error.to_string()),
            StoreError::ForeignMissing { .. } | StoreError::StillReferenced { .. } => {
                Problem::new(StatusCode::BAD_REQUEST, error.to_string())
            }
            StoreError::NoRevision { .. } => Problem::new(StatusCode::NOT_FOUND, error.to_string()),
            StoreError::Moved { .. } | StoreError::Diverged { .. } | StoreError::Cluster(_) => {
                Problem::new(StatusCode::CONFLICT, error.to_string())
            }
            StoreError::NulCharacter
            | StoreError::WrittenTwice { .. }
            | StoreError::NotAGroup(_)
            | StoreError::CannotJoin(_) => Problem::new(StatusCode::BAD_REQUEST, error.to_string()),
            StoreError::Storage(StorageFailure::Unavailable(failure)) => {
                tracing::warn!(%failure, "a request failed: no database");
                let detail = "the database is not available, try again";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            }
            StoreError::Storage(StorageFailure::Full) => {
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            StoreError::Storage(StorageFailure::Closed) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the control plane is stopping",
            ),
            StoreError::Storage(failure) => {
                tracing::error!(%failure, "a request failed in the database");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "")
            }
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Problem {
        let status = match error {
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "status": self.status.as_u16(),
            "title": self.title,
            "instance": format!("kong:trace:{}", crate::audit_log::trace_id()),
            "detail": self.detail,
        });
        if !self.invalid_parameters.is_empty() {
            body["invalid_parameters"] = Value::Array(self.invalid_parameters);
        }
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(CONTENT_TYPE, kind)], body.to_string()).into_response();
        retry_later(&mut response);
        response
    }
}

/// Tells when to try again, where trying again may help.
pub(crate) fn retry_later(response: &mut Response) {
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

/// The answer for a path that no feature has.
pub(crate) async fn no_such_path(request: Request) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("no such path: {}", request.uri().path()),
    )
}

/// The answer for a method that a path does not have.
pub(crate) async fn no_such_method(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not possible on {path}"),
    )
}
