//! `/v3/audit-logs`, the published key and replays.

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use http::{HeaderMap, StatusCode};
use sallyport_wire::audit_log::{Kind, chain, pull};
use serde_json::{Map, Value, json};

use super::Audit;
use super::database::{Range, Stored};
use super::destinations::{self, Replay, ReplayStatus};
use super::error::LogFailure;
use super::log::now_ms;
use crate::body;
use crate::identity::Access::{Read, Write};
use crate::identity::{Needs, stamp};
use crate::problem::Problem;
use crate::route::Route;

const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 1000;

pub(super) fn routes() -> Vec<Route> {
    let needs = Needs::AuditLog;
    let mut all = vec![
        Route::get("/v3/audit-logs", needs(Read), "Read the audit log", list)
            .query(&[
                "page[size]",
                "page[after]",
                "page[before]",
                "filter[type]",
                "filter[ts][gte]",
                "filter[ts][gt]",
                "filter[ts][lte]",
                "filter[ts][lt]",
            ])
            .gives(200, "AuditLogList"),
    ];
    for version in ["v2", "v3"] {
        let path = format!("/{version}/audit-log-replay-job");
        all.push(
            Route::get(&*path, needs(Read), "Show the replay", shown_replay).gives(200, "Replay"),
        );
        all.push(
            Route::put(&*path, needs(Write), "Send records again", start_replay)
                .takes("NewReplay")
                .gives(202, "Replay"),
        );
        let path = format!("/{version}/audit-log-webhook/jwks.json");
        // What needs no token: the key that signs records.
        let nothing = Needs::Nothing;
        all.push(Route::get(path, nothing, "The key that signs records", jwks).gives(200, "Jwks"));
    }
    all
}

impl From<LogFailure> for Problem {
    fn from(failure: LogFailure) -> Problem {
        let status = match failure {
            LogFailure::Full => StatusCode::INSUFFICIENT_STORAGE,
            LogFailure::Closed | LogFailure::Quota => StatusCode::SERVICE_UNAVAILABLE,
            LogFailure::Engine(_) => {
                tracing::error!(%failure, "a request failed in the audit log");
                return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "");
            }
        };
        Problem::new(status, failure.to_string())
    }
}

async fn jwks(State(audit): State<Audit>) -> Json<Value> {
    Json(audit.log.key().jwks())
}

async fn list(
    State(audit): State<Audit>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let range = range(&query)?;
    let size = range.records_max;
    let (backwards, after) = (range.before.is_some(), range.after);
    // one more than asked for tells whether there are more
    let mut found = audit
        .log
        .records(Range {
            records_max: size + 1,
            ..range
        })
        .await?;
    let more = found.len() > size;
    if more && backwards {
        found.remove(0);
    }
    found.truncate(size);
    let link = |cursor: &str, seq: u64| {
        let kept = query
            .iter()
            .filter(|(name, _)| !name.starts_with("page[a") && !name.starts_with("page[b"));
        let encode = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        };
        let mut link = format!("/v3/audit-logs?{}={seq}", encode(cursor));
        for (name, value) in kept {
            link.push_str(&format!("&{}={}", encode(name), encode(value)));
        }
        link
    };
    let (first, last) = (
        found.first().map(|it| it.seq),
        found.last().map(|it| it.seq),
    );
    let next = last
        .filter(|_| more || backwards)
        .map(|seq| link("page[after]", seq));
    let previous = first
        .filter(|_| (backwards && more) || after > 0)
        .map(|seq| link("page[before]", seq));
    let data: Vec<Value> = found.iter().map(shown).collect();
    Ok(Json(json!({
        "data": data,
        "meta": {"page": {"size": size, "next": next, "previous": previous}},
    })))
}

fn shown(record: &Stored) -> Value {
    let members: Map<String, Value> = serde_json::from_str(&record.text).unwrap_or_default();
    pull::shown(record.kind, &members, &chain::signature_text(&record.sig))
}

/// The page that a query asks for.
fn range(query: &[(String, String)]) -> Result<Range, Problem> {
    let mut range = Range {
        bytes_max: 8 << 20,
        ..Range::after(0, PAGE_SIZE)
    };
    for (name, value) in query {
        let seq = || {
            let seq: Result<u64, _> = value.parse();
            seq.map_err(|_| Problem::invalid(name, "is not a cursor of an earlier page"))
        };
        match name.as_str() {
            "page[size]" => {
                let size = value.parse().ok();
                let size = size.filter(|size| (1..=PAGE_SIZE_MAX).contains(size));
                range.records_max =
                    size.ok_or_else(|| Problem::invalid(name, "must be from 1 to 1000"))?;
            }
            "page[after]" => range.after = seq()?,
            "page[before]" => range.before = Some(seq()?),
            "filter[type]" | "filter[type][eq]" => {
                let kind = Kind::from_name(value);
                let names = Kind::ALL.map(Kind::name).join(", ");
                range.kind =
                    Some(kind.ok_or_else(|| {
                        Problem::invalid(name, format!("must be one of {names}"))
                    })?);
            }
            "filter[ts][gte]" => range.from_ms = millis(name, value)?,
            "filter[ts][gt]" => range.from_ms = millis(name, value)?.saturating_add(1),
            "filter[ts][lte]" => range.to_ms = millis(name, value)?,
            "filter[ts][lt]" => range.to_ms = millis(name, value)?.saturating_sub(1),
            other if other.starts_with("filter") || other.starts_with("page") => {
                return Err(Problem::invalid(other, "is not known here"));
            }
            _ => {}
        }
    }
    Ok(range)
}

fn millis(field: &str, text: &str) -> Result<i64, Problem> {
    let time: Result<jiff::Timestamp, _> = text.parse();
    match time {
        Ok(time) => Ok(time.as_millisecond()),
        Err(_) => Err(Problem::invalid(field, "is not a time of RFC 3339")),
    }
}

async fn shown_replay(State(audit): State<Audit>) -> Result<Json<Value>, Problem> {
    let replay = audit.log.read(destinations::replay).await?;
    Ok(Json(replay_json(replay.as_ref())))
}

fn replay_json(replay: Option<&Replay>) -> Value {
    match replay {
        None => json!({"status": "unconfigured"}),
        Some(replay) => json!({
            "start_at": stamp(replay.start_ms),
            "end_at": stamp(replay.end_ms),
            "status": replay.status,
            "updated_at": stamp(replay.updated_at_ms),
        }),
    }
}

async fn start_replay(
    State(audit): State<Audit>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body = body::object(&headers, body).await?;
    let time = |field: &str| match body[field].as_str() {
        Some(text) => millis(field, text),
        None => Err(Problem::invalid(field, "is required, a time of RFC 3339")),
    };
    let (start_ms, end_ms) = (time("start_at")?, time("end_at")?);
    if end_ms < start_ms {
        return Err(Problem::invalid("end_at", "is before start_at"));
    }
    let begun = audit.log.write(move |tx| {
        if destinations::webhook(tx)?.is_none() {
            return Ok(Err(
                "no webhook is configured to which records could be sent",
            ));
        }
        if destinations::replay(tx)?.is_some_and(|replay| !replay.status.is_over()) {
            return Ok(Err("a replay is under way"));
        }
        let replay = Replay {
            start_ms,
            end_ms,
            status: ReplayStatus::Accepted,
            updated_at_ms: now_ms(),
            done_seq: 0,
            last_seq: super::database::head(tx)?.seq,
        };
        destinations::set_replay(tx, &replay)?;
        Ok(Ok(replay))
    });
    match begun.await? {
        Ok(replay) => {
            audit.tell_changed();
            Ok((StatusCode::ACCEPTED, Json(replay_json(Some(&replay)))))
        }
        Err(reason) => Err(Problem::new(StatusCode::CONFLICT, reason)),
    }
}
