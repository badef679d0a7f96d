//! Drafts: a control plane branched, written to by any client under the draft's id, compared, and
//! promoted in one version, or dropped.

use axum::body::{Body, HttpBody};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use sallyport_store::{Actor, ClusterType, Draft, Store};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::body;
use crate::fields::Fields;
use crate::identity::Access::{Read, Write};
use crate::identity::{Needs, Part, stamp};
use crate::page::{List, PAGE};
use crate::problem::Problem;
use crate::route::Route;
use crate::versions;

/// Drafts of one control plane at once.
const DRAFTS_MAX: usize = 20;

pub(crate) fn routes() -> Vec<Route> {
    let path = "/v2/control-planes/{cp}/drafts";
    let needs = |access| Needs::ControlPlane(Part::Configuration, access);
    let one = format!("{path}/{{draft}}");
    vec![
        Route::get(path, needs(Read), "List drafts", list)
            .query(PAGE)
            .gives(200, "DraftList"),
        Route::post(path, needs(Write), "Branch a control plane", create)
            .takes("NewDraft")
            .gives(201, "Draft"),
        Route::get(&*one, needs(Read), "Show a draft", show).gives(200, "Draft"),
        Route::delete(&*one, needs(Write), "Drop a draft", remove),
        Route::get(
            format!("{one}/changes"),
            needs(Read),
            "What a draft changes",
            changes,
        )
        .gives(200, "DraftChanges"),
        Route::post(
            format!("{one}/promote"),
            needs(Write),
            "Make a draft's changes in one version",
            promote,
        )
        .takes("ExpectedVersion")
        .gives(200, "Applied"),
    ]
}

fn shown(draft: &Draft) -> Value {
    let cp = &draft.control_plane;
    let name = cp
        .name
        .rsplit_once('/')
        .map_or(cp.name.as_str(), |(_, name)| name);
    json!({
        "id": cp.id,
        "name": name,
        "description": cp.description,
        "control_plane_id": draft.origin,
        "base_version": draft.base,
        "created_at": stamp(cp.created_at_ms),
        "updated_at": stamp(cp.updated_at_ms),
    })
}

fn origin(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::not_found(&format!("control plane {text:?}")))
}

/// The draft of a path, if it is one of that control plane.
async fn of(store: &Store, (cp, text): &(String, String)) -> Result<Draft, Problem> {
    let none = || Problem::not_found(&format!("draft {text:?}"));
    let (cp, id) = (origin(cp)?, Uuid::try_parse(text).map_err(|_| none())?);
    let found = store.draft(id).await?;
    found.filter(|draft| draft.origin == cp).ok_or_else(none)
}

async fn list(
    State(store): State<Store>,
    Path(cp): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &["name"])?;
    let cp = store.control_plane(origin(&cp)?).await?.id;
    let all = store.drafts(Some(cp)).await?;
    Ok(Json(list.of(all.iter().map(shown).collect())))
}

async fn create(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(cp): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut fields = Fields::new(body::object(&headers, body).await?);
    let name = fields.required_text("name", 1, 64);
    if name.contains('/') {
        fields.refuse("name", "must not hold a slash");
    }
    let description = fields.text("description", 0, 2048).unwrap_or_default();
    let (name, description) = fields
        .finish((name, description))
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let found = store.control_plane(origin(&cp)?).await?;
    let conflict = |detail: &str| Err(Problem::new(StatusCode::CONFLICT, detail));
    match found.cluster_type {
        ClusterType::K8sIngressController | ClusterType::ControlPlaneGroup => {
            return conflict("a control plane of this type has no entities of its own to draft");
        }
        _ if store.draft(found.id).await?.is_some() => {
            return conflict("a draft cannot be drafted");
        }
        _ => {}
    }
    if store.drafts(Some(found.id)).await?.len() >= DRAFTS_MAX {
        return conflict("there are 20 drafts of this control plane already; drop one first");
    }
    let draft = store
        .create_draft(&actor, found.id, name, description)
        .await?;
    Ok((StatusCode::CREATED, Json(shown(&draft))))
}

async fn show(
    State(store): State<Store>,
    Path(path): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(shown(&of(&store, &path).await?)))
}

async fn remove(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(path): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let draft = of(&store, &path).await?;
    store
        .delete_control_plane(&actor, draft.control_plane.id)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn changes(
    State(store): State<Store>,
    Path(path): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let draft = of(&store, &path).await?;
    let found = store.draft_changes(draft.control_plane.id).await?;
    let data: Vec<Value> = found.iter().map(versions::difference).collect();
    Ok(Json(json!({"from": draft.base, "data": data})))
}

async fn promote(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let expected = match body.is_end_stream() {
        true => None,
        false => versions::expected(&body::object(&headers, body).await?)?,
    };
    let draft = of(&store, &path).await?.control_plane.id;
    let applied = store.promote_draft(&actor, draft, expected).await?;
    Ok(Json(
        json!({"version": applied.revision, "changes": applied.count}),
    ))
}
