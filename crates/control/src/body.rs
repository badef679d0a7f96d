//! Request bodies: bounded, JSON.

use axum::body::{Body, to_bytes};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use serde_json::Value;

/// The largest request body, as Kong's `nginx_admin_client_max_body_size` is by default.
pub(crate) const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Why a body is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the request body is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the request body did not arrive whole")]
    Cut,
    #[error("the request body is not JSON: {0}")]
    NotJson(String),
    #[error("the request body must be a JSON object, not {0}")]
    NotAnObject(&'static str),
}

/// Reads a body that must be a JSON object.
pub(crate) async fn object(headers: &HeaderMap, body: Body) -> Result<Value, BodyError> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let announced = announced
        .and_then(|text| text.parse::<usize>().ok())
        .unwrap_or(0);
    if announced > BODY_BYTES_MAX {
        return Err(BodyError::TooLarge);
    }
    let bytes = match to_bytes(body, BODY_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if is_limit(&error) => return Err(BodyError::TooLarge),
        Err(_) => return Err(BodyError::Cut),
    };
    parse(&bytes)
}

fn is_limit(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn parse(bytes: &[u8]) -> Result<Value, BodyError> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| BodyError::NotJson(error.to_string()))?;
    match value {
        Value::Object(_) => Ok(value),
        Value::Array(_) => Err(BodyError::NotAnObject("an array")),
        Value::Null => Err(BodyError::NotAnObject("null")),
        _ => Err(BodyError::NotAnObject("a single value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], expected: Result<(), &str>) {
        let got = parse(text).map(|_| ()).map_err(|error| error.to_string());
        match (&got, expected) {
            (Ok(()), Ok(())) => {}
            (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_objects_are_taken() {
        check(b"{\"name\":\"x\"}", Ok(()));
        check(b"{}", Ok(()));
        check(b"[]", Err("not an array"));
        check(b"null", Err("not null"));
        check(b"\"x\"", Err("not a single value"));
        check(b"", Err("not JSON: EOF"));
        check(b"{\"a\":", Err("line 1 column 5"));
        check(b"name=x", Err("not JSON"));
        check(&[0xff, 0xfe], Err("not JSON"));
        check("[".repeat(100_000).as_bytes(), Err("recursion limit"));
    }

    #[tokio::test]
    async fn the_bound_holds_with_and_without_an_announced_length() {
        let mut headers = HeaderMap::new();
        let long = || Body::from(vec![b' '; BODY_BYTES_MAX + 1]);
        assert_eq!(object(&headers, long()).await, Err(BodyError::TooLarge));
        headers.insert(CONTENT_LENGTH, "999999999999".parse().unwrap());
        assert_eq!(
            object(&headers, Body::empty()).await,
            Err(BodyError::TooLarge)
        );
    }
}
