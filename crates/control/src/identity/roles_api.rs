//! `assigned-roles` of users, teams and system accounts.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use sallyport_store::{Actor, AssignedRole, Holder, NewRole, Store};
use serde_json::{Value, json};
use uuid::Uuid;

use super::people::id;
use super::roles::Access::{Read, Write};
use super::roles::{Needs, ROLES, role};
use super::teams;
use crate::app::App;
use crate::body;
use crate::fields::Fields;
use crate::page::{List, PAGE};
use crate::problem::Problem;
use crate::route::Route;

/// The kinds of holder: where their paths are, and what their id makes.
const USERS: Kind = Kind("user", Holder::User);
const TEAMS: Kind = Kind("team", Holder::Team);
const ACCOUNTS: Kind = Kind("system account", Holder::SystemAccount);

#[derive(Clone, Copy)]
struct Kind(&'static str, fn(Uuid) -> Holder);

impl Kind {
    fn read(self, text: &str) -> Result<Holder, Problem> {
        Ok(self.1(id(self.0, text)?))
    }
}

pub(super) fn routes() -> Vec<Route> {
    let mut all = Vec::new();
    for (path, kind, read) in [
        ("/v3/users/{user}", USERS, Needs::Person(Read)),
        ("/v3/teams/{team}", TEAMS, Needs::Identity(Read)),
        (
            "/v3/system-accounts/{account}",
            ACCOUNTS,
            Needs::Identity(Read),
        ),
    ] {
        let write = Needs::Identity(Write);
        let (path, one) = (
            format!("{path}/assigned-roles"),
            format!("{path}/assigned-roles/{{role}}"),
        );
        all.extend([
            Route::get(
                &*path,
                read,
                "List assigned roles",
                move |store, path, query| list(kind, store, path, query),
            )
            .query(PAGE)
            .gives(200, "AssignedRoleList"),
            Route::post(
                &*path,
                write,
                "Assign a role",
                move |app, actor, path, headers, body| {
                    assign(kind, app, actor, path, headers, body)
                },
            )
            .takes("NewAssignedRole")
            .gives(201, "AssignedRole"),
            Route::get(&*one, read, "Show an assigned role", move |store, path| {
                show(kind, store, path)
            })
            .gives(200, "AssignedRole"),
            Route::delete(
                &*one,
                write,
                "Take a role away",
                move |store, actor, path| remove(kind, store, actor, path),
            ),
        ]);
    }
    all
}

fn shown(assigned: &AssignedRole) -> Value {
    json!({
        "id": assigned.id,
        "role_name": assigned.role.role,
        "entity_id": assigned.role.entity,
        "entity_type_name": assigned.role.entity_type,
        "entity_region": assigned.role.region,
    })
}

async fn list(
    kind: Kind,
    State(store): State<Store>,
    Path(text): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &["role_name", "entity_type_name"])?;
    let all = store.assigned_roles(kind.read(&text)?).await?;
    Ok(Json(list.of(all.iter().map(shown).collect())))
}

/// The role that a body describes.
fn input(body: Value, geo: &str) -> Result<NewRole, Problem> {
    let mut fields = Fields::new(body);
    let new = NewRole {
        role: fields.required_text("role_name", 1, 250),
        entity_type: fields.required_text("entity_type_name", 1, 250),
        entity: fields.required_text("entity_id", 1, 36),
        region: fields
            .text("entity_region", 1, 8)
            .unwrap_or_else(|| "*".to_owned()),
    };
    if fields.bad.is_empty() && role(&new.entity_type, &new.role).is_none() {
        let types: Vec<&str> = ROLES.iter().map(|role| role.entity_type).collect();
        match types.contains(&new.entity_type.as_str()) {
            true => fields.refuse("role_name", "is not a role of this build; see /v3/roles"),
            false => fields.refuse(
                "entity_type_name",
                "has no roles in this build; see /v3/roles",
            ),
        }
    }
    let is_id = new.entity == "*" || Uuid::try_parse(&new.entity).is_ok();
    if !fields.refused("entity_id") && !is_id {
        fields.refuse("entity_id", "must be an id or *");
    }
    if new.entity != "*" && new.entity_type != "Control Planes" {
        fields.refuse("entity_id", format!("must be * for {}", new.entity_type));
    }
    if new.region != "*" && new.region != geo {
        fields.refuse("entity_region", format!("must be {geo:?} or \"*\" here"));
    }
    fields.finish(new).map_err(|bad| Problem::invalid_all(&bad))
}

async fn assign(
    kind: Kind,
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let new = input(body::object(&headers, body).await?, &app.geo)?;
    let holder = kind.read(&text)?;
    if let Holder::Team(_) = holder {
        teams::own(&app.store, &text).await?;
    }
    let assigned = app.store.assign_role(&actor, holder, new).await?;
    Ok((StatusCode::CREATED, Json(shown(&assigned))))
}

async fn show(
    kind: Kind,
    State(store): State<Store>,
    Path((text, role)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let wanted = id("role", &role)?;
    let all = store.assigned_roles(kind.read(&text)?).await?;
    let found = all.iter().find(|assigned| assigned.id == wanted);
    let none = || Problem::not_found(&format!("role {role:?}"));
    Ok(Json(shown(found.ok_or_else(none)?)))
}

async fn remove(
    kind: Kind,
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path((text, role)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (holder, role) = (kind.read(&text)?, id("role", &role)?);
    store.unassign_role(&actor, holder, role).await?;
    Ok(StatusCode::NO_CONTENT)
}
