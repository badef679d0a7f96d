//! Arguments in queries and cookies, and names of headers in settings.

use http::header::COOKIE;
use http::{HeaderName, Uri};
use percent_encoding::percent_decode;
use serde_json::Value;

use crate::fields::Fields;

/// Decoded values of the query arguments with this name; those without `=` are left out.
pub(crate) fn query_values<'a>(
    query: Option<&'a str>,
    name: &'a str,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    query
        .unwrap_or_default()
        .split('&')
        .filter_map(move |argument| {
            let (found, value) = argument.split_once('=')?;
            is_named(found, name).then(|| decode(value))
        })
}

/// Whether there is a query argument with this name, with a value or without.
pub(crate) fn has_argument(query: Option<&str>, name: &str) -> bool {
    let mut arguments = query.unwrap_or_default().split('&');
    arguments.any(|argument| is_named(argument.split('=').next().unwrap_or_default(), name))
}

fn is_named(encoded: &str, name: &str) -> bool {
    encoded == name || (encoded.contains(['%', '+']) && decode(encoded) == name.as_bytes())
}

fn decode(encoded: &str) -> Vec<u8> {
    percent_decode(encoded.replace('+', " ").as_bytes()).collect()
}

/// Takes all query arguments of this name out of a target.
pub(crate) fn remove_argument(uri: &mut Uri, name: &str) {
    let query = uri.query().unwrap_or_default();
    let kept: Vec<_> = query
        .split('&')
        .filter(|argument| !is_named(argument.split('=').next().unwrap_or_default(), name))
        .collect();
    let mut target = uri.path().to_owned();
    if !kept.is_empty() {
        target.push('?');
        target.push_str(&kept.join("&"));
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = target.parse().ok();
    *uri = Uri::from_parts(parts).expect("a part of a valid target is valid");
}

/// Values of the cookies with this name, in order (RFC 6265 section 5.4).
pub(crate) fn cookies<'a>(headers: &'a Fields, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(&COOKIE)
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .filter_map(move |pair| {
            let pair = pair.trim_ascii();
            pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
        })
}

/// The condition on a setting that names a header.
pub(crate) fn header_name(name: &Value) -> Result<(), String> {
    let name = name.as_str().unwrap_or_default();
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "bad header name '{name}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
        )),
    }
}
