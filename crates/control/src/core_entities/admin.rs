//! Kong's Admin API, plain, for one control plane: the same paths and handlers as core-entities
//! without a prefix, errors in Kong's form, and PATCH.

use axum::extract::{Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use sallyport_store::Actor;
use serde_json::json;
use uuid::Uuid;

use super::error::CoreError;
use super::{Asked, By};
use crate::app::App;
use crate::audit_log::{self, Peer};
use crate::identity::{Principal, Shown, admit};
use crate::metrics;

/// What clients of Kong send their token in.
const ADMIN_TOKEN: &str = "kong-admin-token";

#[derive(Clone)]
struct Bound {
    app: App,
    cp: Uuid,
}

/// The Admin API of the control plane `cp`. Callers on this machine need no token.
pub(crate) fn router(app: App, cp: Uuid) -> Router {
    let recorder = app.audit.recorder.clone();
    let bound = Bound { app, cp };
    Router::new()
        .fallback(answer)
        .layer(middleware::from_fn_with_state(bound.clone(), require))
        .layer(middleware::from_fn_with_state(recorder, audit_log::record))
        .layer(middleware::from_fn_with_state(
            bound.app.clone(),
            metrics::count,
        ))
        .with_state(bound)
}

async fn answer(
    State(bound): State<Bound>,
    Extension(actor): Extension<Actor>,
    Extension(caller): Extension<Principal>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    if path == "/status" && request.method() == Method::GET {
        return status(&bound).await;
    }
    let asked = Asked {
        app: bound.app,
        cp: bound.cp,
        actor,
        caller,
        query,
        version: None,
        prefix: String::new(),
        below: &path,
        by: By::Admin,
    };
    let answer = asked.answer(request).await;
    answer.unwrap_or_else(CoreError::into_admin)
}

async fn status(bound: &Bound) -> Response {
    let revision = bound.app.store.revision(bound.cp).await;
    let reachable = revision.is_ok();
    let status = match reachable {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let database = json!({"reachable": reachable});
    let body = json!({"database": database, "configuration_version": revision.ok()});
    (status, Json(body)).into_response()
}

/// Lets callers on this machine through, and others with a good token.
async fn require(State(bound): State<Bound>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let is_here = peer.is_some_and(|peer| peer.to_canonical().is_loopback());
    let headers = request.headers_mut();
    if let Some(token) = headers.remove(ADMIN_TOKEN)
        && let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", token.as_bytes()].concat())
    {
        headers.insert(AUTHORIZATION, value);
    }
    let shows_token = headers.contains_key(AUTHORIZATION);
    if is_here && !shows_token && !is_from_a_page(headers) {
        Principal::local().stands_behind(&mut request);
        return next.run(request).await;
    }
    let shown = Shown::of(&request);
    match admit(&bound.app, shown).await {
        Ok(principal) => {
            principal.stands_behind(&mut request);
            next.run(request).await
        }
        Err(refused) => refused,
    }
}

/// Whether a request may come from a page of some web site in a browser on this machine: it names
/// another origin, or a host that is not this machine's, as after a change of that site's DNS.
fn is_from_a_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str());
    let origin = match text(ORIGIN) {
        None => false,
        Some(Ok(origin)) => !is_here(origin.split_once("://").map_or("", |(_, host)| host)),
        Some(Err(_)) => true,
    };
    let host = match text(HOST) {
        None => false,
        Some(Ok(host)) => !is_here(host),
        Some(Err(_)) => true,
    };
    origin || host
}

/// Whether `host`, with a port or without, is a name of this machine or any address.
fn is_here(host: &str) -> bool {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    let bare = bare.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_are_told_from_programs() {
        let check = |host: &str, origin: Option<&'static str>, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(is_from_a_page(&headers), expected, "{host} {origin:?}");
        };
        check("127.0.0.1:8001", None, false);
        check("localhost:8001", None, false);
        check("localhost", Some("http://localhost:3000"), false);
        check("[::1]:8001", None, false);
        check("::1", None, false);
        check("evil.example:8001", None, true);
        check("127.0.0.1:8001", Some("https://evil.example"), true);
        check("127.0.0.1:8001", Some("null"), true);
    }
}
