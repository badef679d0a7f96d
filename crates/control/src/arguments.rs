//! Query arguments as a typed value, refused in the form of the APIs.

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The query of a request; where it does not read as `T`, the answer is 400 and names the argument.
pub(crate) struct Arguments<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Arguments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Arguments<T>, Problem> {
        let Query(read) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|bad| {
                let text = bad.body_text();
                let reason = text.strip_prefix("Failed to deserialize query string: ");
                Problem::new(http::StatusCode::BAD_REQUEST, reason.unwrap_or(&text))
            })?;
        Ok(Arguments(read))
    }
}
