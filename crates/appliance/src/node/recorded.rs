//! Commands that are given on the machine itself, in the audit log.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State as Extract};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use serde_json::Value;
use tracing::{info, warn};

use super::local::refusal;
use super::state::State;
use crate::appliance_cli::Later;

/// Set by who has recorded the command already: the command line on port 10121, which passes on.
pub(super) const RECORDED: &str = "sallyport-recorded";
/// What a command may be given.
const BODY_LEN_MAX: usize = 64 * 1024;

/// A command that was given on this machine, as it is recorded.
#[derive(Clone, Debug)]
pub struct GivenHere {
    /// Who gave it: whoever may use the socket.
    pub by: String,
    /// What the command is, as `want`.
    pub command: String,
    /// Its arguments, `name=value&…`; none of them is a secret.
    pub arguments: String,
    /// The status of its answer.
    pub status: u16,
}

/// Where commands of this machine are recorded while the control plane runs.
pub trait RecordsHere: Send + Sync + 'static {
    /// Whether a command could be recorded now; why not otherwise.
    fn ready(&self) -> Later<'_, Result<(), String>>;

    /// Records a command; it is kept for good when this succeeds.
    fn given(&self, given: GivenHere) -> Later<'_, Result<(), String>>;
}

/// The record of this node, while there is one.
#[derive(Clone, Default)]
pub(crate) struct Record(pub(crate) Option<Arc<dyn RecordsHere>>);

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Record").field(&self.0.is_some()).finish()
    }
}

/// Lets a command that may change something through if it can be recorded, and answers once it is.
///
/// Without a control plane (a witness, a drained node) there is no audit log: then it is in the
/// node's own log, and what it changes in the database is in the change log there.
pub(super) async fn record(
    Extract(state): Extract<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let known = request.headers().contains_key(RECORDED);
    if request.method() == Method::GET || known {
        return next.run(request).await;
    }
    let command = request.uri().path().trim_start_matches('/').to_owned();
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LEN_MAX).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the command is too long").into_response();
    };
    let arguments = arguments(&body);
    let log = state.record.borrow().clone();
    if let Some(log) = &log.0
        && let Err(why) = log.ready().await
    {
        let message = format!("nothing was done: commands cannot be recorded now ({why})");
        return refusal(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    }
    let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
    let given = GivenHere {
        by: "operator of the node".to_owned(),
        command,
        arguments,
        status: answer.status().as_u16(),
    };
    info!(
        command = given.command,
        arguments = given.arguments,
        status = given.status,
        "command given on this machine"
    );
    let Some(log) = &log.0 else {
        return answer;
    };
    match log.given(given).await {
        Ok(()) => answer,
        Err(why) => {
            warn!(why, "a command that was carried out could not be recorded");
            let message = format!("it was carried out, but could not be recorded: {why}");
            refusal(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
    }
}

/// The members of a JSON object as `name=value&…`.
fn arguments(body: &Bytes) -> String {
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return String::new();
    };
    let one = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    };
    let all: Vec<String> = members.iter().map(one).collect();
    all.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_told_by_name() {
        let told = |body: &str| arguments(&Bytes::copy_from_slice(body.as_bytes()));
        let wish = "{\"name\":\"n1\",\"wanted\":\"drained\",\"secs\":60}";
        assert_eq!(told(wish), "name=n1&secs=60&wanted=drained");
        for other in ["", "[1]", "\"x\"", "{"] {
            assert_eq!(told(other), "");
        }
    }
}
