//! The documents over HTTP, without a token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH};
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;

use super::{Documents, Feed};

/// `api`, with `feed` in front of it under its own host name.
///
/// Without a feed everything goes to `api`.
pub(crate) fn in_front_of(api: Router, feed: Option<Arc<Feed>>, base_domain: &str) -> Router {
    let Some(feed) = feed else { return api };
    let own = Own {
        feed,
        base_domain: base_domain.into(),
    };
    api.layer(middleware::from_fn_with_state(own, by_host))
}

#[derive(Clone)]
struct Own {
    feed: Arc<Feed>,
    base_domain: Arc<str>,
}

async fn by_host(State(own): State<Own>, request: Request, next: Next) -> Response {
    if is_own(&own.base_domain, &request) {
        document(&own.feed.now(), &request)
    } else {
        next.run(request).await
    }
}

/// One of the documents.
fn document(feed: &Documents, request: &Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")]).into_response();
    }
    let path = request.uri().path();
    if feed.list.is_empty() && path != "/ip-addresses.pem" {
        let message = "no addresses are published yet: neither a node nor a file tells any";
        return (StatusCode::NOT_FOUND, Json(json!({"message": message}))).into_response();
    }
    let typed = |kind: &'static str| [(CONTENT_TYPE, kind)];
    match path {
        "/ip-addresses.json" => list(feed, request.headers()),
        "/ip-addresses.json.sig" => {
            (typed("application/octet-stream"), feed.signature.clone()).into_response()
        }
        "/ip-addresses.pem" => {
            (typed("application/x-pem-file"), feed.public_key.clone()).into_response()
        }
        "/changes.json" => changes(feed, request.uri().query().unwrap_or_default()),
        "/rss" => (
            typed("application/rss+xml; charset=utf-8"),
            feed.rss.clone(),
        )
            .into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whether the request names the host of the contract's row `ip_addresses`.
fn is_own(base_domain: &str, request: &Request) -> bool {
    let header = request.headers().get(HOST).and_then(|it| it.to_str().ok());
    // HTTP/2 has the name in the URI.
    let named = request
        .uri()
        .authority()
        .map(|it| it.as_str())
        .or(header)
        .unwrap_or_default();
    let host = named.rsplit_once(':').map_or(named, |(host, _)| host);
    let found = sallyport_contract::catalogue().match_host(base_domain, host);
    found.is_some_and(|it| it.entry.id == "ip_addresses")
}

fn list(feed: &Documents, headers: &HeaderMap) -> Response {
    let known = headers.get(IF_NONE_MATCH).and_then(|it| it.to_str().ok());
    let same = |it: &str| {
        let tag = it.trim().trim_start_matches("W/");
        tag == feed.etag || tag == "*"
    };
    let head = [
        (ETAG, feed.etag.clone()),
        (CACHE_CONTROL, "max-age=300".to_owned()),
    ];
    if known.unwrap_or_default().split(',').any(same) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (
        head,
        [(CONTENT_TYPE, "application/json")],
        feed.list.clone(),
    )
        .into_response()
}

/// `?since=<updateDate>`: the versions after that one.
fn changes(feed: &Documents, query: &str) -> Response {
    let since = query.split('&').find_map(|it| it.strip_prefix("since="));
    if since.is_some_and(|it| super::history::instant(it).is_none()) {
        let message = "since must be a date such as 2026-01-31-12-00-00, as in updateDate";
        return (StatusCode::BAD_REQUEST, Json(json!({"message": message}))).into_response();
    }
    let history = &feed.history;
    Json(json!({"versions": history.since(since), "announced": history.announced()}))
        .into_response()
}
