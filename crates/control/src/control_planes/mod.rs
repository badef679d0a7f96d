//! `/v2/control-planes`: list, create, read, change, delete.

mod groups;
mod input;
mod query;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use sallyport_contract::{NameError, Names};
use sallyport_store::{Actor, ControlPlane, Holder, NewRole, Owner, Store};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) use self::input::check_labels;
use self::query::Selection;
use crate::app::App;
use crate::body;
use crate::identity::Access::{Read, Write};
use crate::identity::{Needs, Part, Principal, stamp};
use crate::problem::Problem;
use crate::route::Route;

const PATH: &str = "/v2/control-planes/{cp}";

pub(crate) fn routes() -> Vec<Route> {
    let mut all = own_routes();
    all.extend(groups::routes());
    all
}

fn own_routes() -> Vec<Route> {
    let itself = |access| Needs::ControlPlane(Part::Itself, access);
    vec![
        Route::get(
            "/v2/control-planes",
            Needs::Token,
            "List control planes",
            list,
        )
        .query(&query::ARGUMENTS)
        .gives(200, "ControlPlaneList"),
        Route::post(
            "/v2/control-planes",
            Needs::CreateControlPlane,
            "Make a control plane",
            create,
        )
        .takes("NewControlPlane")
        .gives(201, "ControlPlane"),
        Route::get(PATH, itself(Read), "Show a control plane", show).gives(200, "ControlPlane"),
        Route::patch(PATH, itself(Write), "Change a control plane", change)
            .takes("ControlPlaneChange")
            .gives(200, "ControlPlane"),
        Route::delete(PATH, itself(Write), "Remove a control plane", remove),
    ]
}

/// Those control planes of a list that the caller may see.
pub(crate) fn visible(caller: &Principal, all: Vec<ControlPlane>) -> Vec<ControlPlane> {
    let needs = Needs::ControlPlane(Part::Itself, Read);
    let mut all = all;
    all.retain(|cp| caller.may(needs, Some(cp.id)));
    all
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
    Extension(caller): Extension<Principal>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let selection = Selection::parse(&query)
        .map_err(|(argument, reason)| Problem::invalid(&argument, reason))?;
    let (page, total) = selection.apply(visible(&caller, app.store.control_planes().await?));
    let data: Vec<Value> = page.iter().map(|cp| shown(&app, cp)).collect();
    let (number, size) = (selection.number, selection.size);
    Ok(Json(json!({
        "data": data,
        "meta": {"page": {"number": number, "size": size, "total": total}},
    })))
}

/// Whoever makes one may administer it.
async fn create(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Extension(caller): Extension<Principal>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let new = input::create(body::object(&headers, body).await?)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let cp = app.store.create_control_plane(&actor, new).await?;
    let administers = caller.may(Needs::ControlPlane(Part::Itself, Write), Some(cp.id));
    if let (false, Some(token)) = (administers, caller.token()) {
        let holder = match &token.owner {
            Owner::User(user) => Holder::User(user.id),
            Owner::SystemAccount(account) => Holder::SystemAccount(account.id),
        };
        let role = NewRole {
            role: "Admin".to_owned(),
            entity_type: "Control Planes".to_owned(),
            entity: cp.id.to_string(),
            region: "*".to_owned(),
        };
        app.store.assign_role(&actor, holder, role).await?;
    }
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
