//! The Status API: what a load balancer and an operator ask a gateway.
//!
//! `/status` gives counters and the hash of the configuration in force; `/status/ready` is 200
//! only while a configuration that is not empty is served; `/metrics` is for Prometheus. Source:
//! data-plane reference 8.5.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use sallyport_plugins::metrics::Exposition;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Answer, Node, arguments, message, metrics, reply};

/// Largest request body, bytes.
const BODY_BYTES_MAX: usize = 4096;
const TIME_MAX: Duration = Duration::from_secs(10);

pub(super) async fn answer(request: Request<Incoming>, node: &Node) -> Answer {
    let (head, body) = request.into_parts();
    match (head.method, head.uri.path()) {
        (Method::GET | Method::HEAD, "/status") => status(node, head.uri.query()),
        (Method::GET | Method::HEAD, "/status/ready") => ready(node),
        (Method::GET | Method::HEAD, "/metrics") => metrics(node),
        (Method::POST, "/status/ready") => {
            let read = Limited::new(body, BODY_BYTES_MAX).collect();
            let draining = match timeout(TIME_MAX, read).await {
                Ok(Ok(body)) => asks_to_drain(&body.to_bytes()),
                _ => false,
            };
            if draining {
                node.draining.store(true, Ordering::Relaxed);
                return reply(StatusCode::NO_CONTENT, &Value::Null);
            }
            message(StatusCode::BAD_REQUEST, "status: expected one of: draining")
        }
        (_, "/status" | "/status/ready" | "/metrics") => {
            message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
        }
        (method, path) if path.starts_with("/upstreams/") => {
            super::admin::upstream_views(&method, &head.uri, node)
        }
        _ => message(StatusCode::NOT_FOUND, "Not found"),
    }
}

/// Whether a form or a JSON body says `status=draining`.
fn asks_to_drain(body: &[u8]) -> bool {
    body == b"status=draining"
        || serde_json::from_slice::<Value>(body).is_ok_and(|body| body["status"] == "draining")
}

/// `GET /status`.
pub(super) fn status(node: &Node, query: Option<&str>) -> Answer {
    let shared = &node.shared;
    let query = arguments(query);
    let argument = |wanted: &str| {
        let found = query.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    let cache = &shared.node.cache;
    let sizes = [metrics::resident_bytes(), cache.bytes(), cache.bytes_max()];
    let sizes = sizes.map(|bytes| size(bytes, argument("unit"), argument("scale")));
    let [size, kept, capacity] = match sizes {
        [Ok(size), Ok(kept), Ok(capacity)] => [size, kept, capacity],
        [Err(text), ..] | [_, Err(text), _] | [.., Err(text)] => {
            return message(StatusCode::BAD_REQUEST, &text);
        }
    };
    let accepted = shared.accepted.load(Ordering::Relaxed);
    let connections = metrics::connections(shared);
    let mut body = json!({
        "memory": {
            "workers_lua_vms": [{"pid": std::process::id(), "http_allocated_gc": size}],
            "lua_shared_dicts": {
                "kong_db_cache": {"allocated_slabs": kept, "capacity": capacity},
            },
        },
        "server": {
            "connections_accepted": accepted,
            "connections_handled": accepted,
            "connections_active": connections.active,
            "connections_reading": 0,
            "connections_writing": connections.writing,
            "connections_waiting": connections.waiting,
            "total_requests": shared.requests.load(Ordering::Relaxed),
        },
        "database": {"reachable": true},
        "configuration_hash": shared.configuration().hash.as_str(),
    });
    if let (Some(sync), Some(link)) = (&node.sync, &node.link) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        body["config_sync"] = json!({
            "connected": link.borrow().is_connected(),
            "applied": count(&sync.applied),
            "resyncs": count(&sync.resyncs),
            "rebuilds": count(&sync.rebuilds),
            "refused": count(&sync.refused),
        });
    }
    reply(StatusCode::OK, &body)
}

/// A size as Kong writes it, such as `1.20 MiB`.
fn size(bytes: u64, unit: Option<&str>, scale: Option<&str>) -> Result<Value, String> {
    let unit = unit.unwrap_or("m");
    let scale = match scale.map_or(Ok(2), str::parse::<usize>) {
        Ok(scale) if scale <= 20 => scale,
        _ => return Err("scale must be a whole number from 0 to 20".to_owned()),
    };
    let (shift, name) = match unit.to_ascii_lowercase().as_str() {
        "b" => return Ok(json!(bytes)),
        "k" => (10, "KiB"),
        "m" => (20, "MiB"),
        "g" => (30, "GiB"),
        _ => {
            let text = format!("invalid unit '{unit}' (expected 'k/K', 'm/M', 'g/G' or 'b/B')");
            return Err(text);
        }
    };
    let size = bytes as f64 / f64::from(1_u32 << shift);
    Ok(json!(format!("{size:.scale$} {name}")))
}

/// `GET /status/ready`: every worker serves, and it has a configuration.
fn ready(node: &Node) -> Answer {
    let unready = |text: &str| message(StatusCode::SERVICE_UNAVAILABLE, text);
    if node.draining.load(Ordering::Relaxed) || node.stop.is_cancelled() {
        return unready("draining");
    }
    let (serving, all) = node.shared.workers_serving();
    if serving < all || all == 0 {
        let text =
            format!("router builds not yet complete, router ready in {serving} of {all} workers");
        return unready(&text);
    }
    if node.shared.configuration().hash.is_zero() {
        return unready("no configuration available (empty configuration present)");
    }
    message(StatusCode::OK, "ready")
}

/// `GET /metrics`.
pub(super) fn metrics(node: &Node) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(metrics::text(node))));
    let text = HeaderValue::from_static(Exposition::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: u64, unit: Option<&str>, scale: Option<&str>, expected: Result<Value, &str>) {
        let got = size(bytes, unit, scale);
        match expected {
            Ok(expected) => assert_eq!(got, Ok(expected)),
            Err(part) => assert!(got.unwrap_err().contains(part)),
        }
    }

    #[test]
    fn sizes_have_unit_and_scale() {
        check(1_572_864, None, None, Ok(json!("1.50 MiB")));
        check(1_572_864, Some("K"), Some("0"), Ok(json!("1536 KiB")));
        check(1_572_864, Some("b"), None, Ok(json!(1_572_864)));
        check(1_572_864, Some("g"), Some("4"), Ok(json!("0.0015 GiB")));
        check(1, Some("t"), None, Err("invalid unit 't'"));
        check(1, None, Some("-1"), Err("scale"));
        check(1, None, Some("1000000"), Err("scale"));
    }
}
