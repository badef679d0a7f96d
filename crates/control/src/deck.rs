//! What decK asks before it knows where its control plane is.
//!
//! `GET /konnect-api/api/runtime_groups` maps names of control planes to ids. Everything after
//! that happens under the control plane's core-entities.

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use sallyport_store::Store;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::problem::Problem;

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/konnect-api/api/runtime_groups", get(runtime_groups))
}

#[derive(Deserialize)]
struct Paging {
    page: Option<usize>,
    size: Option<usize>,
}

async fn runtime_groups(
    State(store): State<Store>,
    Query(paging): Query<Paging>,
) -> Result<Json<Value>, Problem> {
    let (page, size) = (
        paging.page.unwrap_or(1).max(1),
        paging.size.unwrap_or(100).clamp(1, 1000),
    );
    let all = store.control_planes().await?;
    let data: Vec<Value> = all
        .iter()
        .skip((page - 1).saturating_mul(size))
        .take(size)
        .map(|cp| json!({"id": cp.id, "name": cp.name}))
        .collect();
    let pages = all.len().div_ceil(size).max(1);
    Ok(Json(
        json!({"data": data, "page": page, "pageCount": pages}),
    ))
}
