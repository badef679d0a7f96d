//! Data planes of a control plane, as they were last seen, and the hash they should be on.

use axum::Json;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use sallyport_store::{Node, Store, SyncStatus};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
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
    ]
}

#[derive(Deserialize)]
struct Paging {
    #[serde(rename = "page[size]")]
    size: Option<usize>,
    #[serde(rename = "page[after]")]
    after: Option<Uuid>,
}

fn shown(node: &Node) -> Value {
    let seen = &node.seen;
    let (state, issues) = match seen.sync_status {
        SyncStatus::Normal => ("COMPATIBILITY_STATE_FULLY_COMPATIBLE", json!([])),
        SyncStatus::Unknown => ("COMPATIBILITY_STATE_UNKNOWN", json!([])),
        status => (
            "COMPATIBILITY_STATE_INCOMPATIBLE",
            json!([{
                "code": status.as_str(),
                "severity": "error",
                "description": seen.sync_detail,
                "resolution": "",
                "affected_resources": [],
            }]),
        ),
    };
    json!({
        "id": seen.id,
        "type": "kong-proxy",
        "hostname": seen.hostname,
        "version": seen.version,
        "ip": seen.ip,
        "labels": seen.labels,
        "last_ping": seen.at,
        "config_hash": seen.config_hash,
        "sync_status": seen.sync_status.as_str(),
        "cert_details": {"expiry_timestamp": seen.cert_expires_at},
        "compatibility_status": {"state": state, "issues": issues},
        "created_at": node.created_at,
        "updated_at": seen.at,
    })
}

async fn list(
    State(store): State<Store>,
    Path(cp): Path<String>,
    Query(paging): Query<Paging>,
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

async fn expected_hash(
    State(app): State<App>,
    Path(cp): Path<String>,
) -> Result<Json<Value>, Legacy> {
    let cp = id(&cp)?;
    let revision = app.store.revision(cp).await?;
    let payload = app
        .publishers
        .current(cp, revision)
        .await
        .ok_or_else(Legacy::not_found)?;
    Ok(Json(json!({
        "expected_hash": payload.hash.as_str(),
        "created_at": payload.built_at,
        "updated_at": payload.built_at,
    })))
}
