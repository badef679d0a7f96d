//! Answers made of stored responses, and what of a response is stored.

use http::header::{
    AGE, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, DATE, ETAG, HOST,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, SERVER,
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;

use super::directives::not_after;
use super::key::hex;
use super::memory::{Key, Stored};
use crate::exchange::{Reply, ReplyBody, Request};
use crate::fields::Fields;

pub(super) const STATUS: HeaderName = HeaderName::from_static("x-cache-status");
pub(super) const KEY: HeaderName = HeaderName::from_static("x-cache-key");
/// With it, clients get every header about the cache.
pub(super) const DEBUG: HeaderName = HeaderName::from_static("kong-debug");

/// Which headers about the cache clients get.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Shown {
    #[serde(default = "yes")]
    age: bool,
    #[serde(default = "yes", rename = "X-Cache-Status")]
    pub(super) status: bool,
    #[serde(default = "yes", rename = "X-Cache-Key")]
    pub(super) key: bool,
}

fn yes() -> bool {
    true
}

impl Shown {
    pub(super) const ALL: Shown = Shown {
        age: true,
        status: true,
        key: true,
    };
}

/// What speaks of one connection or one response and is not stored.
const NOT_STORED: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "age",
    "via",
    "x-cache-status",
    "x-cache-key",
];

/// The headers of a response that are stored, without those that the gateway's plugins added for
/// this request.
pub(super) fn storable(response: &Fields, of_plugins: &Fields) -> Fields {
    let named: Vec<String> = response
        .get_all(&CONNECTION)
        .flat_map(|line| {
            let line = String::from_utf8_lossy(line).to_ascii_lowercase();
            let names: Vec<String> = line.split(',').map(|name| name.trim().to_owned()).collect();
            names
        })
        .collect();
    let mut kept = Fields::new();
    for (name, value) in response.iter() {
        let lower = name.to_ascii_lowercase();
        let own = lower.starts_with("x-kong-") || lower.contains("ratelimit-remaining");
        if own || NOT_STORED.contains(&&*lower) || named.contains(&lower) {
            continue;
        }
        let (Ok(name), Ok(value)) = (lower.parse::<HeaderName>(), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        if !of_plugins.contains(&name) {
            kept.append(&name, &value);
        }
    }
    kept
}

/// The resources of the same host that a response names. Source: RFC 9111 section 4.4.
pub(super) fn named(response: &Fields, request: &Request) -> Vec<Uri> {
    let host = request.headers.get_str(&HOST).unwrap_or_default();
    let host = request.uri.authority().map_or(host, |host| host.as_str());
    let of = |name: HeaderName| {
        let uri: Uri = response.get_str(&name)?.parse().ok()?;
        let here = uri.authority().is_none_or(|other| other.as_str() == host);
        (here && uri.path().starts_with('/')).then_some(uri)
    };
    [LOCATION, CONTENT_LOCATION]
        .into_iter()
        .filter_map(of)
        .collect()
}

/// What the gateway would otherwise write over with values of its own.
pub(super) fn kept_headers(stored: &Stored) -> Vec<(HeaderName, HeaderValue)> {
    let kept = |name: HeaderName| {
        let value = HeaderValue::from_bytes(stored.headers.get(&name)?).ok()?;
        Some((name, value))
    };
    [DATE, SERVER].into_iter().filter_map(kept).collect()
}

/// Whether the client has what is stored already. Source: RFC 9110 section 13.1.
pub(super) fn not_modified(stored: &Stored, request: &Request) -> bool {
    if stored.status != StatusCode::OK || !matches!(request.method, Method::GET | Method::HEAD) {
        return false;
    }
    if request.headers.contains(&IF_NONE_MATCH) {
        let Some(tag) = stored.headers.get_str(&ETAG) else {
            return false;
        };
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let lines = request.headers.get_all(&IF_NONE_MATCH);
        return lines.map(String::from_utf8_lossy).any(|line| {
            line.trim() == "*" || line.split(',').any(|known| opaque(known) == opaque(tag))
        });
    }
    match request.headers.get_str(&IF_MODIFIED_SINCE) {
        Some(since) => not_after(&stored.headers, &LAST_MODIFIED, since),
        None => false,
    }
}

/// The answer that a stored response is, or 304 if the client has it already.
pub(super) fn hit(stored: &Stored, unchanged: bool, age_s: u64, key: &Key, shown: Shown) -> Reply {
    let mut content_type = HeaderValue::from_static("application/octet-stream");
    let mut reply = Reply::empty(match unchanged {
        true => StatusCode::NOT_MODIFIED,
        false => stored.status,
    });
    for (name, value) in stored.headers.iter() {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        if name == CONTENT_TYPE {
            content_type = value;
        } else if name != CONTENT_LENGTH && !(unchanged && name.as_str().starts_with("content-")) {
            reply = reply.with(name, value);
        }
    }
    if !unchanged {
        reply.body = ReplyBody::Exact {
            content_type,
            bytes: stored.body.clone(),
        };
    }
    if shown.age {
        reply = reply.with(AGE, HeaderValue::from(age_s));
    }
    if shown.status {
        reply = reply.with(STATUS, HeaderValue::from_static("Hit"));
    }
    if shown.key {
        let value = HeaderValue::try_from(hex(key)).expect("hex is a header value");
        reply = reply.with(KEY, value);
    }
    reply
}
