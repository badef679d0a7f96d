//! What decK asks before it knows where its control plane is.
//!
//! `GET /konnect-api/api/runtime_groups` maps names of control planes to ids. Everything after
//! that happens under the control plane's core-entities.

use axum::extract::State;
use axum::{Extension, Json};
use sallyport_store::Store;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arguments::Arguments;
use crate::control_planes::visible;
use crate::identity::{Access, Needs, Part, Principal};
use crate::problem::Problem;
use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    let path = "/konnect-api/api/runtime_groups";
    let route = Route::get(
        path,
        Needs::Token,
        "Names and ids of control planes",
        runtime_groups,
    );
    vec![
        route
            .query(&["page", "size"])
            .gives(200, "RuntimeGroupList"),
    ]
}

#[derive(Deserialize)]
struct Paging {
    page: Option<usize>,
    size: Option<usize>,
}

async fn runtime_groups(
    State(store): State<Store>,
    Extension(caller): Extension<Principal>,
    Arguments(paging): Arguments<Paging>,
) -> Result<Json<Value>, Problem> {
    let (page, size) = (
        paging.page.unwrap_or(1).max(1),
        paging.size.unwrap_or(100).clamp(1, 1000),
    );
    let mut all: Vec<(Uuid, String)> = visible(&caller, store.control_planes().await?)
        .into_iter()
        .map(|cp| (cp.id, cp.name))
        .collect();
    // A client that knows control planes by name reaches a draft by `<control plane>/<draft>`.
    let needs = Needs::ControlPlane(Part::Itself, Access::Read);
    let drafts = store.drafts(None).await?.into_iter();
    let drafts = drafts.filter(|draft| caller.may(needs, Some(draft.origin)));
    all.extend(drafts.map(|draft| (draft.control_plane.id, draft.control_plane.name)));
    let data: Vec<Value> = all
        .iter()
        .skip((page - 1).saturating_mul(size))
        .take(size)
        .map(|(id, name)| json!({"id": id, "name": name}))
        .collect();
    let pages = all.len().div_ceil(size).max(1);
    Ok(Json(
        json!({"data": data, "page": page, "pageCount": pages}),
    ))
}
