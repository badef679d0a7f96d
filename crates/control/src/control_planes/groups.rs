//! Groups: `group-memberships`, `group-status`, `group-member-status`.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use sallyport_store::{Actor, ClusterType, ControlPlane, Members, Store};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{id, shown};
use crate::app::App;
use crate::body;
use crate::fields::Fields;
use crate::identity::Access::{Read, Write};
use crate::identity::{Needs, Part, stamp};
use crate::problem::Problem;
use crate::route::Route;

const PATH: &str = "/v2/control-planes/{cp}/group-memberships";
const SIZE_MAX: usize = 1000;
/// Members of one group.
const MEMBERS_MAX: usize = 256;

pub(super) fn routes() -> Vec<Route> {
    let needs = |access| Needs::ControlPlane(Part::Itself, access);
    let status = "/v2/control-planes/{cp}/group-status";
    let member = "/v2/control-planes/{cp}/group-member-status";
    vec![
        Route::get(PATH, needs(Read), "List the members of a group", list)
            .query(&["page[size]", "page[after]"])
            .gives(200, "GroupMemberList"),
        Route::put(PATH, needs(Write), "Set the members of a group", replace)
            .takes("GroupMembers")
            .gives_nothing(204),
        Route::post(
            format!("{PATH}/add"),
            needs(Write),
            "Add members to a group",
            add,
        )
        .takes("GroupMembers")
        .gives_nothing(204),
        Route::post(
            format!("{PATH}/remove"),
            needs(Write),
            "Take members out of a group",
            drop_out,
        )
        .takes("GroupMembers")
        .gives_nothing(204),
        Route::get(status, needs(Read), "What clashes in a group", group_status)
            .gives(200, "GroupStatus"),
        Route::get(
            member,
            needs(Read),
            "Whether it is in a group",
            member_status,
        )
        .gives(200, "GroupMemberStatus"),
    ]
}

/// The control plane of the path, which must be a group.
async fn group(store: &Store, text: &str) -> Result<ControlPlane, Problem> {
    let found = store.control_plane(id(text)?).await?;
    if found.cluster_type != ClusterType::ControlPlaneGroup {
        let detail = format!("control plane {} is not a group", found.id);
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    Ok(found)
}

async fn list(
    State(app): State<App>,
    Path(text): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let (mut size, mut after) = (100, None);
    for (name, value) in &query {
        match name.as_str() {
            "page[size]" => {
                let read = value.parse().ok();
                let read = read.filter(|size| (1..=SIZE_MAX).contains(size));
                size = read.ok_or_else(|| Problem::invalid(name, "must be from 1 to 1000"))?;
            }
            "page[after]" => after = Some(value),
            _ => return Err(Problem::invalid(name, "is not a known argument")),
        }
    }
    let group = group(&app.store, &text).await?.id;
    let all = app.store.group_members(group).await?;
    let first = match after {
        None => 0,
        Some(after) => {
            let found = all.iter().position(|cp| cp.id.to_string() == *after);
            found.ok_or_else(|| Problem::invalid("page[after]", "names no member"))? + 1
        }
    };
    let page = &all[first..all.len().min(first.saturating_add(size))];
    let more = first + page.len() < all.len();
    let next = page.last().filter(|_| more).map(|cp| cp.id);
    let data: Vec<Value> = page.iter().map(|cp| shown(&app, cp)).collect();
    let page = json!({"next": next, "size": size, "total": all.len()});
    Ok(Json(json!({"data": data, "meta": {"page": page}})))
}

/// `{"members": [{"id": …}]}`.
async fn members(headers: &HeaderMap, body: Body) -> Result<Vec<Uuid>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Member {
        id: Uuid,
    }
    let mut fields = Fields::new(body::object(headers, body).await?);
    let members: Option<Vec<Member>> = fields.take("members");
    if members.is_none() && !fields.refused("members") {
        fields.refuse("members", "is required");
    }
    if members
        .as_ref()
        .is_some_and(|list| list.len() > MEMBERS_MAX)
    {
        fields.refuse(
            "members",
            format!("must have at most {MEMBERS_MAX} entries"),
        );
    }
    let members = fields.finish(members.unwrap_or_default());
    let members = members.map_err(|bad| Problem::invalid_all(&bad))?;
    Ok(members.into_iter().map(|member| member.id).collect())
}

async fn replace(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let change = Members::Replace(members(&headers, body).await?);
    changed(&store, &actor, &text, change).await
}

async fn add(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let change = Members::Add(members(&headers, body).await?);
    changed(&store, &actor, &text, change).await
}

async fn drop_out(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let change = Members::Remove(members(&headers, body).await?);
    changed(&store, &actor, &text, change).await
}

async fn changed(
    store: &Store,
    actor: &Actor,
    text: &str,
    change: Members,
) -> Result<StatusCode, Problem> {
    store.change_group(actor, id(text)?, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn group_status(
    State(store): State<Store>,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    let group = group(&store, &text).await?;
    let found = store.group_conflicts(group.id).await?;
    let conflicts: Vec<Value> = found
        .iter()
        .map(|conflict| {
            json!({
                "cluster_id": conflict.member,
                "description": conflict.reason,
                "resource": {"id": conflict.id, "type": conflict.kind.singular()},
            })
        })
        .collect();
    let state = if conflicts.is_empty() {
        "OK"
    } else {
        "CONFLICT"
    };
    Ok(Json(json!({"item": {
        "id": group.id,
        "created_at": stamp(group.created_at_ms),
        "updated_at": stamp(group.updated_at_ms),
        "conflicts": conflicts,
        "state": state,
    }})))
}

async fn member_status(
    State(store): State<Store>,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    let is_member = store.is_in_a_group(id(&text)?).await?;
    Ok(Json(json!({"is_member": is_member})))
}
