//! Data planes of a control plane, as they were last seen, and the hash they should be on.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use sallyport_store::{Node, Store, SyncStatus};
use sallyport_wire::config_sync::SILENCE_SECS_MAX;
use sallyport_wire::config_sync::delta::SyncVersion;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::app::App;
use crate::arguments::Arguments;
use crate::config_sync::{EXPIRY_WARN_SECS, Published, now_secs, plane};
use crate::dp_certificates::{Legacy, id};
use crate::identity::Access::{Read, Write};
use crate::identity::{Needs, Part};
use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    let path = "/v2/control-planes/{cp}/nodes";
    let needs = |access| Needs::ControlPlane(Part::Nodes, access);
    let one = format!("{path}/{{node}}");
    vec![
        Route::get(path, needs(Read), "List data planes", list)
            .query(&["page[size]", "page[after]"])
            .gives(200, "NodeList"),
        Route::get(
            format!("{path}/eol"),
            needs(Read),
            "List data planes whose version is not maintained any more",
            past_their_end,
        )
        .gives(200, "EolList"),
        Route::get(&*one, needs(Read), "Show a data plane", show).gives(200, "NodeItem"),
        Route::delete(&*one, needs(Write), "Forget a data plane", forget),
        Route::get(
            "/v2/control-planes/{cp}/expected-config-hash",
            needs(Read),
            "The hash that data planes in sync report",
            expected_hash,
        )
        .gives(200, "ExpectedConfigHash"),
        Route::get(
            "/v2/control-planes/{cp}/expected-config-version",
            needs(Read),
            "The version that data planes in sync with deltas have",
            expected_version,
        )
        .gives(200, "ExpectedConfigVersion"),
        Route::get(
            "/v2/control-planes/{cp}/rollout",
            needs(Read),
            "Whether a version is live on every data plane; waits for it",
            rollout,
        )
        .query(&["version", "timeout"]),
    ]
}

#[derive(Deserialize)]
struct Paging {
    #[serde(rename = "page[size]")]
    size: Option<usize>,
    #[serde(rename = "page[after]")]
    after: Option<Uuid>,
}

/// What a node has not as it was written, and what it may do about it.
fn issues(node: &Node) -> Vec<Value> {
    let seen = &node.seen;
    let mut issues: Vec<Value> = Vec::new();
    let problem = |code: &str, description: &str| {
        json!({"code": code, "severity": "error", "description": description, "resolution": "",
               "affected_resources": []})
    };
    match seen.sync_status {
        SyncStatus::Normal | SyncStatus::Unknown | SyncStatus::EntitiesRefused => {}
        status => issues.push(problem(status.as_str(), &seen.sync_detail)),
    }
    let left = seen.cert_expires_at.saturating_sub(now_secs());
    if left < EXPIRY_WARN_SECS {
        issues.push(json!({
            "code": "certificate_expires_soon",
            "severity": "warning",
            "description": format!("its certificate expires in {} days", left / (24 * 3600)),
            "resolution": "pin another one beside it, give it to the data plane, remove the old one",
            "affected_resources": [],
        }));
    }
    let edited = seen.sync_status == SyncStatus::Normal;
    for told in &seen.refused {
        let text = |field: &str| told[field].as_str().unwrap_or_default();
        let field = match text("field") {
            "" => String::new(),
            field => format!("{field}: "),
        };
        let resolution = match (told["closed"] == true, told["kept"] == true) {
            _ if edited => "update the data plane, or do without this field",
            (true, _) => "what it applies to answers 503 until it is corrected",
            (false, true) => "an earlier version of it stays in force until it is corrected",
            (false, false) => "it is not served until it is corrected",
        };
        let affected = match (text("entity_id"), text("entity_type")) {
            ("", "") => json!([]),
            (id, kind) => json!([{"id": id, "type": kind}]),
        };
        issues.push(json!({
            "code": if edited { "field_not_sent" } else { "entity_refused" },
            "severity": if edited { "warning" } else { "error" },
            "description": format!("{field}{}", text("message")),
            "resolution": resolution,
            "affected_resources": affected,
        }));
    }
    issues
}

fn shown(node: &Node) -> Value {
    let seen = &node.seen;
    let state = match seen.sync_status {
        SyncStatus::Normal => "COMPATIBILITY_STATE_FULLY_COMPATIBLE",
        SyncStatus::Unknown => "COMPATIBILITY_STATE_UNKNOWN",
        _ => "COMPATIBILITY_STATE_INCOMPATIBLE",
    };
    json!({
        "id": seen.id,
        "type": "kong-proxy",
        "hostname": seen.hostname,
        "version": seen.version,
        "ip": seen.ip,
        "labels": seen.labels,
        "last_ping": seen.at,
        "connected": is_connected(node, now_secs()),
        "config_hash": seen.config_hash,
        "config_version": seen.revision,
        "sync_status": seen.sync_status.as_str(),
        "cert_details": {"expiry_timestamp": seen.cert_expires_at},
        "compatibility_status": {"state": state, "issues": issues(node)},
        "created_at": node.created_at,
        "updated_at": seen.at,
    })
}

/// Whether a node was heard of within twice the time that silence may last.
fn is_connected(node: &Node, now: i64) -> bool {
    let silent = now.saturating_sub(node.seen.at);
    silent <= 2 * i64::try_from(SILENCE_SECS_MAX).unwrap_or(i64::MAX)
}

/// What [`rollout`] is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The newest one if it is not given.
    version: Option<u64>,
    /// Seconds to wait for it.
    #[serde(default)]
    timeout: u64,
}

/// Longest wait of one request, in seconds.
const WAIT_SECS_MAX: u64 = 300;
/// Between two looks at what is known of the nodes.
const LOOK: Duration = Duration::from_millis(100);

/// `GET …/rollout`: whether a version is live on every connected data plane; waits for it.
async fn rollout(
    State(store): State<Store>,
    Path(cp): Path<String>,
    Arguments(wanted): Arguments<Wanted>,
) -> Result<Json<Value>, Legacy> {
    let cp = id(&cp)?;
    let newest = store.revision(cp).await?;
    let version = wanted.version.unwrap_or(newest);
    if version > newest {
        let text = format!("version: there is no version {version} yet, the newest is {newest}");
        return Err(Legacy::bad(text));
    }
    if wanted.timeout > WAIT_SECS_MAX {
        return Err(Legacy::bad(format!(
            "timeout: at most {WAIT_SECS_MAX} seconds"
        )));
    }
    let deadline = Instant::now() + Duration::from_secs(wanted.timeout);
    loop {
        let nodes = store.nodes(cp).await?;
        let (connected, silent): (Vec<&Node>, Vec<&Node>) = {
            let now = now_secs();
            nodes.iter().partition(|node| is_connected(node, now))
        };
        let behind: Vec<&&Node> = connected
            .iter()
            .filter(|node| !runs(node, version))
            .collect();
        if behind.is_empty() || Instant::now() >= deadline {
            let named = |node: &Node| {
                json!({"id": node.seen.id, "hostname": node.seen.hostname,
                       "config_version": node.seen.revision, "last_ping": node.seen.at,
                       "sync_status": node.seen.sync_status.as_str(),
                       "reason": node.seen.sync_detail})
            };
            return Ok(Json(json!({
                "version": version,
                "live_everywhere": behind.is_empty(),
                "connected": connected.len(),
                "live": connected.len() - behind.len(),
                "behind": behind.iter().take(NAMED_MAX).map(|node| named(node)).collect::<Vec<_>>(),
                "silent": silent.iter().take(NAMED_MAX).map(|node| named(node)).collect::<Vec<_>>(),
            })));
        }
        sleep(LOOK).await;
    }
}

/// Nodes that an answer names; it counts all of them.
const NAMED_MAX: usize = 100;

fn runs(node: &Node, version: u64) -> bool {
    node.seen.revision >= version && node.seen.sync_status != SyncStatus::EntitiesRefused
}

/// Forgets nodes that were not heard of for `after`, until `stop`.
pub(crate) async fn purge(store: Store, after: Duration, stop: CancellationToken) {
    let after = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
    // often enough for the delay, and no more than once a second
    let every = Duration::from_secs((after / 60).clamp(1, 3600).unsigned_abs());
    loop {
        match store.purge_nodes(now_secs().saturating_sub(after)).await {
            Ok(0) => {}
            Ok(count) => info!(count, "data planes that were silent for long are forgotten"),
            Err(error) => warn!(%error, "could not forget silent data planes"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(every) => {}
        }
    }
}

async fn list(
    State(store): State<Store>,
    Path(cp): Path<String>,
    Arguments(paging): Arguments<Paging>,
) -> Result<Json<Value>, Legacy> {
    let size = paging.size.unwrap_or(100);
    if !(1..=1000).contains(&size) {
        return Err(Legacy::bad("page[size] must be between 1 and 1000"));
    }
    let all = store.nodes(id(&cp)?).await?;
    let first = match paging.after {
        None => 0,
        Some(after) => {
            let at = all.iter().position(|node| node.seen.id == after);
            at.ok_or_else(|| Legacy::bad("page[after] names no node"))? + 1
        }
    };
    let page = &all[first..all.len().min(first + size)];
    let more = first + page.len() < all.len();
    let next = page.last().filter(|_| more).map(|node| node.seen.id);
    let items: Vec<Value> = page.iter().map(shown).collect();
    Ok(Json(
        json!({"items": items, "page": {"total_count": all.len(), "next": next}}),
    ))
}

/// The oldest minor version of Kong that is maintained with the version this build behaves as;
/// data planes of older ones still get configurations. Source: the support policy of Kong Gateway,
/// where 3.4 is the oldest long-term release.
const OLDEST_MAINTAINED: (u32, u32) = (3, 4);

async fn past_their_end(
    State(store): State<Store>,
    Path(cp): Path<String>,
) -> Result<Json<Value>, Legacy> {
    let all = store.nodes(id(&cp)?).await?;
    let old = all.iter().filter(|node| is_old(&node.seen.version));
    let items: Vec<Value> = old
        .map(|node| {
            json!({
                "node_id": node.seen.id,
                "node_version": node.seen.version,
                "message": "this version is not maintained any more; update the data plane",
            })
        })
        .collect();
    Ok(Json(
        json!({"page": {"total_count": items.len()}, "items": items}),
    ))
}

fn is_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let both = (numbers.next().flatten(), numbers.next().flatten());
    matches!(both, (Some(major), Some(minor)) if (major, minor) < OLDEST_MAINTAINED)
}

async fn show(
    State(store): State<Store>,
    Path((cp, text)): Path<(String, String)>,
) -> Result<Json<Value>, Legacy> {
    let all = store.nodes(id(&cp)?).await?;
    let wanted = id(&text)?;
    let found = all.iter().find(|node| node.seen.id == wanted);
    Ok(Json(
        json!({"item": shown(found.ok_or_else(Legacy::not_found)?)}),
    ))
}

async fn forget(
    State(store): State<Store>,
    Path((cp, text)): Path<(String, String)>,
) -> Result<StatusCode, Legacy> {
    store.delete_node(id(&cp)?, id(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the newest version makes of all entities.
async fn newest(app: &App, cp: Uuid) -> Result<Arc<Published>, Legacy> {
    let revision = app.store.revision(cp).await?;
    let found = app.publishers.current(cp, revision).await;
    found.ok_or_else(Legacy::not_found)
}

async fn expected_hash(
    State(app): State<App>,
    Path(cp): Path<String>,
) -> Result<Json<Value>, Legacy> {
    let state = newest(&app, id(&cp)?).await?;
    Ok(Json(json!({
        "expected_hash": state.hash().as_str(),
        "revision": state.revision,
        "created_at": state.seen_at,
        "updated_at": state.seen_at,
    })))
}

/// The name of the newest version as data planes that take deltas report it.
async fn expected_version(
    State(app): State<App>,
    Path(cp): Path<String>,
) -> Result<Json<Value>, Legacy> {
    let cp = id(&cp)?;
    let state = newest(&app, cp).await?;
    let version = SyncVersion::new(plane(cp), state.revision);
    Ok(Json(json!({
        "expected_config_version": version.as_str(),
        "revision": state.revision,
        "created_at": state.seen_at,
    })))
}
