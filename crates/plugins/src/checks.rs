//! Conditions on configuration values that several plugins share.

use http::HeaderName;
use serde_json::Value;

/// The name of a header.
pub(crate) fn header_name(name: &Value) -> Result<(), String> {
    is_header_name(name.as_str().unwrap_or_default())
}

/// Whether a text is the name of a header; the error says what may be in one.
pub(crate) fn is_header_name(name: &str) -> Result<(), String> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "bad header name '{name}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
        )),
    }
}

/// A status code that a response can have.
pub(crate) fn status(status: &Value) -> Result<(), String> {
    match status.as_f64() {
        Some(number) if (100.0..200.0).contains(&number) => Err(format!(
            "{number} announces a response and is none; use a status from 200 on"
        )),
        _ => Ok(()),
    }
}
