//! Data planes of a control plane, as they were last seen, and the hash they should be on.

use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use sallyport_store::{Node, Store, SyncStatus};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::dp_certificates::{Legacy, id};

pub(crate) fn routes() -> Router<App> {
    let path = "/v2/control-planes/{cp}/nodes";
    Router::new()
        .route(path, get(list))
        .route(&format!("{path}/{{id}}"), get(show).delete(forget))
        .route(
            "/v2/control-planes/{cp}/expected-config-hash",
            get(expected_hash),
        )
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
