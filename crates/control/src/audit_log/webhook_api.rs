//! `/v3/audit-log-destinations` and both versions of the webhook.
//!
//! Both versions act on the same destinations: version 3 attaches one of them, version 2 describes
//! the attached one, and makes it if there is none.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Audit;
use super::destinations::{self, Attempt, DESTINATIONS_MAX, Destination};
use super::log::now_ms;
use super::settings::Form;
use crate::body;
use crate::identity::Access::{Read, Write};
use crate::identity::{Needs, stamp};
use crate::problem::Problem;
use crate::route::Route;

/// What the endpoint of a webhook is called that has none.
const UNCONFIGURED: &str = "unconfigured";

pub(super) fn routes() -> Vec<Route> {
    let needs = Needs::AuditLog;
    let mut all = vec![
        Route::get(
            "/v3/audit-log-webhook",
            needs(Read),
            "Show the webhook",
            shown_v3,
        )
        .gives(200, "Object"),
        Route::patch(
            "/v3/audit-log-webhook",
            needs(Write),
            "Attach a destination",
            attach,
        )
        .takes("WebhookAttachment")
        .gives(200, "Object"),
        Route::delete(
            "/v3/audit-log-webhook",
            needs(Write),
            "Detach the destination",
            detach,
        ),
        Route::get(
            "/v2/audit-log-webhook",
            needs(Read),
            "Show the webhook",
            shown_v2,
        )
        .gives(200, "Object"),
        Route::patch(
            "/v2/audit-log-webhook",
            needs(Write),
            "Describe the webhook",
            describe,
        )
        .takes("WebhookChange")
        .gives(200, "Object"),
    ];
    // one client mixes versions
    for version in ["v2", "v3"] {
        let path = format!("/{version}/audit-log-destinations");
        let single = format!("{path}/{{destination}}");
        all.extend([
            Route::get(&*path, needs(Read), "List destinations", list).gives(200, "Object"),
            Route::post(&*path, needs(Write), "Make a destination", create)
                .takes("NewDestination")
                .gives(201, "Object"),
            Route::get(&*single, needs(Read), "Show a destination", one).gives(200, "Object"),
            Route::patch(&*single, needs(Write), "Change a destination", change)
                .takes("DestinationChange")
                .gives(200, "Object"),
            Route::delete(&*single, needs(Write), "Remove a destination", remove),
            Route::get(
                format!("/{version}/audit-log-webhook/status"),
                needs(Read),
                "How delivery goes",
                status,
            )
            .gives(200, "Object"),
        ]);
    }
    all
}

fn shown(destination: &Destination) -> Value {
    json!({
        "id": destination.id,
        "name": destination.name,
        "endpoint": destination.endpoint,
        "log_format": destination.log_format,
        "skip_ssl_verification": destination.skip_ssl_verification,
        "enabled": destination.enabled,
        "created_at": stamp(destination.created_at_ms),
        "updated_at": stamp(destination.updated_at_ms),
    })
}

/// Takes over the members of a body; every one that cannot be used is named.
fn apply(destination: &mut Destination, body: &Value, known: &[&str]) -> Result<(), Problem> {
    let mut bad: Vec<(String, String)> = Vec::new();
    for (name, value) in body.as_object().into_iter().flatten() {
        let set = match (name.as_str(), value) {
            (name, _) if !known.contains(&name) => Err("is not known here".to_owned()),
            ("name", Value::String(text)) if (1..=255).contains(&text.chars().count()) => {
                destination.name.clone_from(text);
                Ok(())
            }
            ("name", _) => Err("must be a text of 1 to 255 characters".to_owned()),
            ("endpoint", Value::String(text)) => endpoint(text).map(|()| {
                destination.endpoint.clone_from(text);
            }),
            ("endpoint", _) => Err("must be an https URL".to_owned()),
            ("authorization", Value::String(text)) if HeaderValue::from_str(text).is_ok() => {
                destination.authorization.clone_from(text);
                Ok(())
            }
            ("authorization", _) => Err("must be a text that can stand in a header".to_owned()),
            ("log_format", Value::String(text)) if Form::from_name(text).is_some() => {
                destination.log_format.clone_from(text);
                Ok(())
            }
            ("log_format", _) => Err("must be cef, json or cps".to_owned()),
            ("skip_ssl_verification", Value::Bool(skip)) => {
                destination.skip_ssl_verification = *skip;
                Ok(())
            }
            ("enabled", Value::Bool(enabled)) => {
                destination.enabled = *enabled;
                Ok(())
            }
            _ => Err("must be true or false".to_owned()),
        };
        if let Err(reason) = set {
            bad.push((name.clone(), reason));
        }
    }
    if bad.is_empty() {
        destination.updated_at_ms = now_ms();
        return Ok(());
    }
    Err(Problem::invalid_all(&bad))
}

/// Records go over TLS, or stay on this machine.
fn endpoint(text: &str) -> Result<(), String> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
    let host = uri.host().unwrap_or_default();
    let loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return Err("must not hold a password; use authorization".to_owned());
    }
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if loopback => Ok(()),
        _ => Err("must be an https URL (http only on this machine)".to_owned()),
    }
}

const MEMBERS: [&str; 6] = [
    "name",
    "endpoint",
    "authorization",
    "log_format",
    "skip_ssl_verification",
    "enabled",
];

fn fresh(name: &str) -> Destination {
    Destination {
        id: Uuid::new_v4(),
        name: name.to_owned(),
        endpoint: UNCONFIGURED.to_owned(),
        authorization: String::new(),
        log_format: Form::default().name().to_owned(),
        skip_ssl_verification: false,
        enabled: false,
        created_at_ms: now_ms(),
        updated_at_ms: now_ms(),
    }
}

fn id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| missing(text))
}

fn missing(id: impl std::fmt::Display) -> Problem {
    Problem::not_found(&format!("audit log destination {id}"))
}

async fn list(State(audit): State<Audit>) -> Result<Json<Value>, Problem> {
    let all = audit.log.read(destinations::all).await?;
    let data: Vec<Value> = all.iter().map(shown).collect();
    let page = json!({"size": DESTINATIONS_MAX, "next": null, "previous": null});
    Ok(Json(json!({"data": data, "meta": {"page": page}})))
}

async fn create(
    State(audit): State<Audit>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body = body::object(&headers, body).await?;
    let required = ["name", "endpoint", "authorization", "log_format"];
    let absent: Vec<(String, String)> = required
        .into_iter()
        .filter(|name| body.get(*name).is_none())
        .map(|name| (name.to_owned(), "is required".to_owned()))
        .collect();
    if !absent.is_empty() {
        return Err(Problem::invalid_all(&absent));
    }
    let mut destination = fresh("");
    apply(&mut destination, &body, &MEMBERS)?;
    let stored = destination.clone();
    let room = audit.log.write(move |tx| {
        if destinations::all(tx)?.len() >= DESTINATIONS_MAX {
            return Ok(false);
        }
        destinations::put(tx, &stored).map(|()| true)
    });
    if !room.await? {
        let detail = format!("there are {DESTINATIONS_MAX} destinations already");
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    audit.tell_changed();
    Ok((StatusCode::CREATED, Json(shown(&destination))))
}

async fn one(State(audit): State<Audit>, Path(text): Path<String>) -> Result<Json<Value>, Problem> {
    let id = id(&text)?;
    let found = audit
        .log
        .read(move |conn| destinations::one(conn, id))
        .await?;
    found.map(|it| Json(shown(&it))).ok_or_else(|| missing(id))
}

async fn change(
    State(audit): State<Audit>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let id = id(&text)?;
    let body = body::object(&headers, body).await?;
    let changed = edit(
        &audit,
        move |tx| destinations::one(tx, id),
        move |it| apply(it, &body, &MEMBERS),
    );
    let changed = changed.await?.ok_or_else(|| missing(id))?;
    Ok(Json(shown(&changed)))
}

/// Changes one destination in one transaction; `None` if `find` finds none.
async fn edit(
    audit: &Audit,
    find: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<Option<Destination>> + Send + 'static,
    change: impl FnOnce(&mut Destination) -> Result<(), Problem> + Send + 'static,
) -> Result<Option<Destination>, Problem> {
    let edited = audit.log.write(move |tx| {
        let Some(mut destination) = find(tx)? else {
            return Ok(Ok(None));
        };
        if let Err(problem) = change(&mut destination) {
            return Ok(Err(problem));
        }
        destinations::put(tx, &destination)?;
        Ok(Ok(Some(destination)))
    });
    let edited = edited.await??;
    audit.tell_changed();
    Ok(edited)
}

async fn remove(
    State(audit): State<Audit>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = id(&text)?;
    if !audit
        .log
        .write(move |tx| destinations::remove(tx, id))
        .await?
    {
        return Err(missing(id));
    }
    audit.tell_changed();
    Ok(StatusCode::NO_CONTENT)
}

/// The attached destination.
fn attached(conn: &rusqlite::Connection) -> rusqlite::Result<Option<Destination>> {
    match destinations::webhook(conn)? {
        Some(id) => destinations::one(conn, id),
        None => Ok(None),
    }
}

async fn shown_v3(State(audit): State<Audit>) -> Result<Json<Value>, Problem> {
    let found = audit.log.read(attached).await?;
    Ok(Json(webhook_v3(found.as_ref())))
}

fn webhook_v3(destination: Option<&Destination>) -> Value {
    json!({
        "audit_log_destination_id": destination.map(|it| it.id),
        "enabled": destination.is_some_and(|it| it.enabled),
        "updated_at": destination.map(|it| stamp(it.updated_at_ms)),
    })
}

async fn attach(
    State(audit): State<Audit>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let body = body::object(&headers, body).await?;
    let wanted = match &body["audit_log_destination_id"] {
        Value::Null => None,
        Value::String(text) => Some(id(text)?),
        _ => {
            let reason = "must be the id of a destination";
            return Err(Problem::invalid("audit_log_destination_id", reason));
        }
    };
    let enabled = match &body["enabled"] {
        Value::Null => None,
        Value::Bool(enabled) => Some(*enabled),
        _ => return Err(Problem::invalid("enabled", "must be true or false")),
    };
    let attached = audit.log.write(move |tx| {
        let before = attached(tx)?;
        let mut destination = match (wanted, before.clone()) {
            (Some(id), _) => match destinations::one(tx, id)? {
                Some(found) => found,
                None => return Ok(Err(missing(id))),
            },
            (None, Some(before)) => before,
            (None, None) if enabled == Some(true) => {
                let reason = "is required, as no destination is attached yet";
                return Ok(Err(Problem::invalid("audit_log_destination_id", reason)));
            }
            (None, None) => return Ok(Ok(None)),
        };
        if let Some(mut before) = before
            && before.id != destination.id
        {
            before.enabled = false;
            destinations::put(tx, &before)?;
        }
        destination.enabled = enabled.unwrap_or(destination.enabled);
        destination.updated_at_ms = now_ms();
        destinations::set_webhook(tx, Some(destination.id))?;
        destinations::put(tx, &destination)?;
        Ok(Ok(Some(destination)))
    });
    let destination = attached.await??;
    audit.tell_changed();
    Ok(Json(webhook_v3(destination.as_ref())))
}

async fn detach(State(audit): State<Audit>) -> Result<StatusCode, Problem> {
    let detached = audit.log.write(|tx| {
        if let Some(mut destination) = attached(tx)? {
            destination.enabled = false;
            destination.updated_at_ms = now_ms();
            destinations::put(tx, &destination)?;
        }
        destinations::set_webhook(tx, None)
    });
    detached.await?;
    audit.tell_changed();
    Ok(StatusCode::NO_CONTENT)
}

fn webhook_v2(destination: Option<&Destination>) -> Value {
    let none = fresh("webhook");
    let it = destination.unwrap_or(&none);
    json!({
        "endpoint": it.endpoint,
        "enabled": it.enabled,
        "log_format": it.log_format,
        "skip_ssl_verification": it.skip_ssl_verification,
        "updated_at": destination.map(|it| stamp(it.updated_at_ms)),
    })
}

async fn shown_v2(State(audit): State<Audit>) -> Result<Json<Value>, Problem> {
    let found = audit.log.read(attached).await?;
    Ok(Json(webhook_v2(found.as_ref())))
}

async fn describe(
    State(audit): State<Audit>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let body = body::object(&headers, body).await?;
    let described = audit.log.write(move |tx| {
        let mut destination = attached(tx)?.unwrap_or_else(|| fresh("webhook"));
        if let Err(problem) = apply(&mut destination, &body, &MEMBERS[1..]) {
            return Ok(Err(problem));
        }
        if destination.endpoint == UNCONFIGURED {
            if destination.enabled {
                return Ok(Err(Problem::invalid("endpoint", "is required")));
            }
            return Ok(Ok(destination));
        }
        destinations::set_webhook(tx, Some(destination.id))?;
        destinations::put(tx, &destination)?;
        Ok(Ok(destination))
    });
    let destination = described.await??;
    audit.tell_changed();
    Ok(Json(webhook_v2(Some(&destination))))
}

async fn status(State(audit): State<Audit>) -> Result<Json<Value>, Problem> {
    let found = audit.log.read(|conn| {
        let Some(destination) = attached(conn)? else {
            return Ok(None);
        };
        let delivery = destinations::delivery(conn, &destination.delivery())?;
        let attempt = delivery.map(|(_, attempt)| attempt).unwrap_or_default();
        Ok(Some((destination.enabled, attempt)))
    });
    let (enabled, attempt, status) = match found.await? {
        None => (false, Attempt::default(), UNCONFIGURED),
        Some((enabled, attempt)) => {
            let active = enabled && (attempt.succeeded || attempt.at_ms.is_none());
            (enabled, attempt, if active { "active" } else { "inactive" })
        }
    };
    Ok(Json(json!({
        "webhook_enabled": enabled,
        "webhook_status": status,
        "last_attempt_at": attempt.at_ms.map(stamp),
        "last_response_code": attempt.code,
        "last_response_message": attempt.message,
    })))
}
