//! Where the APIs and the data planes' door meet the log: one place for each.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, StatusCode};
use sallyport_store::Token;
use sallyport_wire::audit_log::{AuthenticationOutcome, AuthenticationType, Event, What};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::error;
use uuid::Uuid;

use super::error::LogFailure;
use super::log::{AuditLog, event, now_ms};
use super::quiet::{Like, Quiet};
use super::{redact, trace};
use crate::problem::Problem;

/// The trace id in answers.
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// The far end of a connection; the listener puts it on each request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Where whoever checks the credential leaves its owner for the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Arc<OnceLock<Token>>);

impl Caller {
    /// Takes note of the credential that was accepted.
    pub(crate) fn set(&self, token: &Token) {
        // there is one check per request; a second one would find the same
        _ = self.0.set(token.clone());
    }
}

/// Writes what happens at the APIs into the log.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) log: AuditLog,
    org_id: Option<Uuid>,
    quiet: Arc<Mutex<Quiet>>,
}

impl Recorder {
    pub(crate) fn new(log: AuditLog, org_id: Option<Uuid>) -> Recorder {
        Recorder {
            log,
            org_id,
            quiet: Arc::default(),
        }
    }

    fn admit(&self, like: Like) -> Option<u64> {
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        quiet.admit(like, now_ms())
    }

    /// Now and then tells of failures that were only counted.
    pub(super) async fn tell_counted(self, stop: CancellationToken) {
        let mut ticks = interval(Duration::from_secs(60));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => self.tell_now(now_ms()).await,
            }
        }
        self.tell_now(i64::MAX).await;
    }

    async fn tell_now(&self, now_ms: i64) {
        let untold = {
            let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            quiet.sweep(now_ms)
        };
        let told = untold.into_iter().map(|(address, repeated)| {
            let what = What::Authentication {
                by: AuthenticationType::Invalid,
                outcome: AuthenticationOutcome::Invalid,
                request: String::new(),
                reason: Some("failures that were counted, not recorded one by one".to_owned()),
                repeated,
            };
            Event {
                src: address,
                org_id: self.org_id.map(|id| id.to_string()),
                ..event(what)
            }
        });
        let told: Vec<Event> = told.collect();
        if !told.is_empty()
            && let Err(error) = self.log.append(told).await
        {
            error!(%error, "counted failures could not be recorded");
        }
    }

    /// Records that a data plane was let in, or why not. `id` is its control plane's.
    pub(crate) async fn data_plane(
        &self,
        peer: SocketAddr,
        name: Option<&str>,
        admitted: Result<(Uuid, &str), String>,
    ) {
        let like = match &admitted {
            Ok((id, _)) => Like::Success(*id, peer.ip()),
            Err(_) => Like::failure(peer.ip()),
        };
        let Some(repeated) = self.admit(like) else {
            return;
        };
        let (outcome, principal, reason) = match admitted {
            Ok((id, name)) => (
                AuthenticationOutcome::Success,
                Some((id.to_string(), name.to_owned())),
                None,
            ),
            Err(reason) => (AuthenticationOutcome::NotFound, None, Some(reason)),
        };
        let (principal_id, principal_name) = principal.unzip();
        let event = Event {
            src: Some(peer.ip()),
            org_id: self.org_id.map(|id| id.to_string()),
            principal_id,
            principal_name,
            ..event(What::Authentication {
                by: AuthenticationType::Certificate,
                outcome,
                request: name.unwrap_or_default().to_owned(),
                reason,
                repeated,
            })
        };
        if let Err(error) = self.log.append(vec![event]).await {
            error!(%error, "a data plane's authentication could not be recorded");
        }
    }
}

/// Records a request: who failed to prove who they are, who did, who may not, and every change.
///
/// A change is recorded before it is answered. While the log cannot be written, changes are refused
/// before they are made; one that was made when the log failed is answered with an error that says
/// so. Reads go on.
pub(crate) async fn record(
    State(recorder): State<Recorder>,
    mut request: Request,
    next: Next,
) -> Response {
    let facts = Facts::of(&recorder, &request);
    let caller = Caller::default();
    request.extensions_mut().insert(caller.clone());
    let trace_id = facts.trace_id.clone();
    let answer = async {
        if facts.is_change
            && let Err(failure) = recorder.log.ready().await
        {
            return not_recorded(&failure, "nothing was changed");
        }
        let mut departure = Departure {
            recorder: &recorder,
            facts: &facts,
            caller: &caller,
            armed: facts.is_change,
        };
        let response = next.run(request).await;
        let status = response.status();
        let events = facts.events(&recorder, caller.0.get(), status);
        if events.is_empty() {
            departure.armed = false;
            return response;
        }
        // a client that leaves while this waits leaves a departure behind, or else the record
        let submitted = recorder.log.submit(events).await;
        departure.armed = false;
        let written = match submitted {
            Ok(written) => written.await,
            Err(failure) => Err(failure),
        };
        match written {
            Ok(_) => response,
            // what was refused changed nothing: its own answer says why
            Err(failure) if facts.is_change && status.is_success() => {
                let what = format!(
                    "the request was carried out with status {}",
                    status.as_u16()
                );
                not_recorded(&failure, &what)
            }
            // logged by the writer; an answer that changed nothing is not held back
            Err(_) => response,
        }
    };
    let mut response = trace::scope(trace_id, answer).await;
    if let Ok(value) = HeaderValue::from_str(&facts.trace_id) {
        response.headers_mut().insert(TRACE_ID, value);
    }
    response
}

fn not_recorded(failure: &LogFailure, what: &str) -> Response {
    let status = match failure {
        LogFailure::Full => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let detail = format!("{what}, but the audit log cannot be written: {failure}");
    Problem::new(status, detail).into_response()
}

/// Records a change whose client left before there was an answer.
struct Departure<'a> {
    recorder: &'a Recorder,
    facts: &'a Facts,
    caller: &'a Caller,
    armed: bool,
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if self.armed {
            let event = self.facts.access(self.caller.0.get(), None);
            self.recorder.log.append_later(event);
        }
    }
}

/// What the log needs of a request, after its handler has eaten it.
struct Facts {
    org_id: Option<String>,
    src: Option<IpAddr>,
    trace_id: String,
    user_agent: Option<String>,
    method: Method,
    path: String,
    query: String,
    is_change: bool,
    credential: Credential,
}

enum Credential {
    None,
    Pat,
    Spat,
}

impl Facts {
    fn of(recorder: &Recorder, request: &Request) -> Facts {
        let headers = request.headers();
        let text = |name| {
            headers
                .get(name)
                .and_then(|it: &HeaderValue| it.to_str().ok())
        };
        let path = request.uri().path();
        // asks whether something would be valid, and changes nothing
        let validates = path.contains("/schemas/") && path.ends_with("/validate");
        let reads = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        );
        Facts {
            org_id: recorder.org_id.map(|id| id.to_string()),
            src: request.extensions().get::<Peer>().map(|peer| peer.0.ip()),
            trace_id: trace::of(headers),
            user_agent: text(USER_AGENT).map(str::to_owned),
            method: request.method().clone(),
            path: redact::path(path),
            query: redact::query(request.uri().query().unwrap_or_default()),
            is_change: !reads && !validates,
            credential: match text(AUTHORIZATION) {
                None => Credential::None,
                Some(value) if value.contains("spat_") => Credential::Spat,
                Some(_) => Credential::Pat,
            },
        }
    }

    fn events(&self, recorder: &Recorder, token: Option<&Token>, status: StatusCode) -> Vec<Event> {
        let mut events = Vec::new();
        let address = self
            .src
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let (like, outcome) = match (token, &self.credential) {
            (Some(token), _) => (
                Some(Like::Success(token.id, address)),
                AuthenticationOutcome::Success,
            ),
            (None, _) if status != StatusCode::UNAUTHORIZED => {
                (None, AuthenticationOutcome::Success)
            }
            (None, Credential::None) => {
                (Some(Like::failure(address)), AuthenticationOutcome::Invalid)
            }
            (None, _) => (
                Some(Like::failure(address)),
                AuthenticationOutcome::NotFound,
            ),
        };
        if let Some(repeated) = like.and_then(|like| recorder.admit(like)) {
            let by = match self.credential {
                Credential::None => AuthenticationType::Invalid,
                Credential::Pat => AuthenticationType::Pat,
                Credential::Spat => AuthenticationType::Spat,
            };
            let what = What::Authentication {
                by,
                outcome,
                request: self.path.clone(),
                reason: None,
                repeated,
            };
            events.push(self.event(token, what));
        }
        if status == StatusCode::FORBIDDEN {
            let action = match self.method {
                Method::GET | Method::HEAD | Method::OPTIONS => "retrieve",
                Method::POST => "create",
                Method::DELETE => "delete",
                _ => "update",
            };
            let what = What::Authorization {
                service: "control-plane-api".to_owned(),
                resource: resource(&self.path).to_owned(),
                action: action.to_owned(),
                granted: false,
            };
            events.push(self.event(token, what));
        }
        if self.is_change && status != StatusCode::UNAUTHORIZED {
            events.push(self.access(token, Some(status.as_u16())));
        }
        events
    }

    fn access(&self, token: Option<&Token>, status: Option<u16>) -> Event {
        let what = What::Access {
            request: self.path.clone(),
            query: self.query.clone(),
            act: self.method.to_string(),
            status,
        };
        self.event(token, what)
    }

    fn event(&self, token: Option<&Token>, what: What) -> Event {
        Event {
            src: self.src,
            org_id: self.org_id.clone(),
            principal_id: token.map(|token| token.owner.id().to_string()),
            principal_name: token.map(|token| token.owner.name().to_owned()),
            actor_id: token.map(|token| token.id.to_string()),
            trace_id: Some(self.trace_id.clone()),
            user_agent: self.user_agent.clone(),
            ..event(what)
        }
    }
}

/// The path without its version, as records name a resource.
fn resource(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    match path.split_once('/') {
        Some((version, rest)) if version.starts_with('v') && version.len() == 2 => rest,
        _ => path,
    }
}
