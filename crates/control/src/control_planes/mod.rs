//! `/v2/control-planes`: list, create, read, change, delete.

mod input;
mod query;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::{HeaderMap, StatusCode};
use sallyport_contract::{NameError, Names};
use sallyport_store::{Actor, ControlPlane, Store};
use serde_json::{Value, json};
use uuid::Uuid;

use self::query::Selection;
use crate::app::App;
use crate::body;
use crate::identity::stamp;
use crate::problem::Problem;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/v2/control-planes", get(list).post(create))
        .route(
            "/v2/control-planes/{id}",
            get(show).patch(change).delete(remove),
        )
}

/// A control plane in the form of the API.
fn shown(app: &App, cp: &ControlPlane) -> Value {
    json!({
        "id": cp.id,
        "name": cp.name,
        "description": cp.description,
        "labels": cp.labels,
        "config": {
            "control_plane_endpoint": endpoint(app, "config_sync", cp),
            "telemetry_endpoint": endpoint(app, "telemetry", cp),
            "cluster_type": cp.cluster_type,
            "auth_type": cp.auth_type,
            "cloud_gateway": cp.cloud_gateway,
            "proxy_urls": cp.proxy_urls,
        },
        "created_at": stamp(cp.created_at_ms),
        "updated_at": stamp(cp.updated_at_ms),
    })
}

/// The host that data planes of the control plane with `prefix` dial: `id` is the contract id
/// `config_sync` or `telemetry`.
///
/// # Errors
/// The parts make no host name.
///
/// # Panics
/// If the contract gives `id` no host name.
pub fn host(id: &str, base_domain: &str, geo: &str, prefix: &str) -> Result<String, NameError> {
    let names = Names {
        base: base_domain,
        geo: Some(geo),
        prefix: Some(prefix),
        portal: None,
    };
    let pattern = sallyport_contract::entry(id).hosts.first();
    pattern
        .expect("the contract names hosts for config_sync and telemetry")
        .render(&names)
}

/// The URL data planes of a control plane dial, without a port as clients append it.
fn endpoint(app: &App, id: &str, cp: &ControlPlane) -> String {
    let host = host(id, &app.base_domain, &app.geo, &cp.prefix);
    format!(
        "https://{}",
        host.expect("start checked base domain and geo")
    )
}

fn id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::not_found(&format!("control plane {text:?}")))
}

async fn list(
    State(app): State<App>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let selection = Selection::parse(&query)
        .map_err(|(argument, reason)| Problem::invalid(&argument, reason))?;
    let (page, total) = selection.apply(app.store.control_planes().await?);
    let data: Vec<Value> = page.iter().map(|cp| shown(&app, cp)).collect();
    let (number, size) = (selection.number, selection.size);
    Ok(Json(json!({
        "data": data,
        "meta": {"page": {"number": number, "size": size, "total": total}},
    })))
}

async fn create(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let new = input::create(body::object(&headers, body).await?)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let cp = app.store.create_control_plane(&actor, new).await?;
    Ok((StatusCode::CREATED, Json(shown(&app, &cp))))
}

async fn show(State(app): State<App>, Path(text): Path<String>) -> Result<Json<Value>, Problem> {
    let cp = app.store.control_plane(id(&text)?).await?;
    Ok(Json(shown(&app, &cp)))
}

async fn change(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let update = input::update(body::object(&headers, body).await?)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let cp = app
        .store
        .update_control_plane(&actor, id(&text)?, update)
        .await?;
    Ok(Json(shown(&app, &cp)))
}

async fn remove(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    store.delete_control_plane(&actor, id(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
