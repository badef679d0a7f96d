//! What a gateway answers about itself: the Status API and the Admin API.

mod admin;
mod metrics;
mod server;
mod status;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use server::{Kind, Server, open, serve};

use crate::conf::Conf;
use crate::config_sync::LinkState;
use crate::enabled::Enabled;
use crate::follow::Stats;
use crate::log_queue::Queues;
use crate::logs::LogFiles;
use crate::proxy::Shared;
use crate::rate_limit;
use crate::telemetry::Counters;

/// An answer of either API.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What both APIs tell about this node.
pub(crate) struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: Uuid,
    pub(crate) hostname: String,
    /// The Kong version this node claims to be.
    pub(crate) version: String,
    /// Settings without secrets.
    pub(crate) settings: Map<String, Value>,
    pub(crate) enabled: Enabled,
    /// Whether a declarative document may be put in force here.
    pub(crate) takes_config: bool,
    /// The link to the control plane, if this node has one.
    pub(crate) link: Option<watch::Receiver<LinkState>>,
    /// What came of following the control plane; `None` without one.
    pub(crate) sync: Option<Arc<Stats>>,
    pub(crate) logs: Arc<LogFiles>,
    /// How telemetry goes, if this node sends any.
    pub(crate) telemetry: Option<Arc<Counters>>,
    pub(crate) log_queues: Queues,
    /// How counting on nodes goes, if there are any.
    pub(crate) nodes: Option<Arc<rate_limit::Stats>>,
    /// Asked to get no new traffic, by a request.
    pub(crate) draining: AtomicBool,
    /// Cancelled when the gateway stops.
    pub(crate) stop: CancellationToken,
}

/// Settings that `GET /` shows, without secrets.
pub(crate) fn settings(conf: &Conf) -> Map<String, Value> {
    let texts = |listeners: &[crate::conf::Listener]| -> Vec<String> {
        listeners.iter().map(ToString::to_string).collect()
    };
    let mut settings = conf.process_conf();
    let more = [
        ("proxy_listen", json!(texts(&conf.proxy_listen))),
        ("status_listen", json!(texts(&conf.status_listen))),
        ("admin_listen", json!(texts(&conf.admin_listen))),
        ("prefix", json!(conf.prefix)),
        (
            "log_level",
            json!(format!("{:?}", conf.log_level).to_lowercase()),
        ),
        ("anonymous_reports", json!(false)),
    ];
    settings.extend(more.map(|(name, value)| (name.to_owned(), value)));
    settings
}

/// One request to an API.
pub(crate) async fn answer(kind: Kind, node: &Arc<Node>, request: Request<Incoming>) -> Answer {
    match kind {
        Kind::Status => status::answer(request, node).await,
        Kind::Admin => admin::answer(request, node).await,
    }
}

fn message(status: StatusCode, text: &str) -> Answer {
    reply(status, &json!({ "message": text }))
}

/// A JSON answer; null is no body at all.
fn reply(status: StatusCode, body: &Value) -> Answer {
    let bytes = match body {
        Value::Null => Bytes::new(),
        body => Bytes::from(body.to_string()),
    };
    let mut response = Response::new(Full::new(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The arguments of a query, decoded, in order.
fn arguments(query: Option<&str>) -> Vec<(String, String)> {
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8_lossy()
            .into_owned()
    };
    let parts = query.unwrap_or_default().split('&');
    parts
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}
