//! `/v3/teams` with their members.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use sallyport_store::{Actor, Holder, NameUpdate, Store, Team};
use serde_json::{Value, json};
use uuid::Uuid;

use super::people::{self, id};
use super::roles::Access::{Read, Write};
use super::roles::{Needs, absent};
use super::{accounts, stamp};
use crate::app::App;
use crate::body;
use crate::fields::Fields;
use crate::page::{List, PAGE};
use crate::problem::Problem;
use crate::route::Route;

const PATH: &str = "/v3/teams/{team}";

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Needs::Identity(Read), Needs::Identity(Write));
    let below = |rest: &str| format!("{PATH}/{rest}");
    vec![
        Route::get("/v3/teams", read, "List teams", list)
            .query(&[
                "page[size]",
                "page[number]",
                "filter[name]",
                "filter[name][contains]",
            ])
            .gives(200, "TeamList"),
        Route::post("/v3/teams", write, "Make a team", create)
            .takes("NewTeam")
            .gives(201, "Team"),
        Route::get(PATH, read, "Show a team", show).gives(200, "Team"),
        Route::patch(PATH, write, "Change a team", change)
            .takes("TeamChange")
            .gives(200, "Team"),
        Route::delete(PATH, write, "Remove a team", remove),
        Route::get(below("users"), read, "List the users of a team", users)
            .query(PAGE)
            .gives(200, "UserList"),
        Route::post(below("users"), write, "Put a user into a team", add_user)
            .takes("Member")
            .gives_nothing(201),
        Route::delete(
            below("users/{user}"),
            write,
            "Take a user out of a team",
            drop_user,
        ),
        Route::get(
            below("system-accounts"),
            read,
            "List the system accounts of a team",
            programs,
        )
        .query(PAGE)
        .gives(200, "SystemAccountList"),
        Route::post(
            below("system-accounts"),
            write,
            "Put a system account into a team",
            add_account,
        )
        .takes("Member")
        .gives_nothing(201),
        Route::delete(
            below("system-accounts/{account}"),
            write,
            "Take a system account out of a team",
            drop_account,
        ),
    ]
}

pub(super) fn shown(team: &Team) -> Value {
    json!({
        "id": team.id,
        "name": team.name,
        "description": team.description,
        "system_team": team.predefined,
        "labels": team.labels,
        "created_at": stamp(team.created_at_ms),
        "updated_at": stamp(team.updated_at_ms),
    })
}

async fn list(
    State(store): State<Store>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &["id", "name"])?;
    Ok(Json(
        list.of(store.teams().await?.iter().map(shown).collect()),
    ))
}

fn labels(fields: &mut Fields) -> Option<BTreeMap<String, String>> {
    let labels: BTreeMap<String, String> = fields.take("labels")?;
    crate::control_planes::check_labels(fields, &labels);
    Some(labels)
}

async fn create(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut fields = Fields::new(body::object(&headers, body).await?);
    let name = fields.required_text("name", 1, 250);
    let description = fields.text("description", 0, 250).unwrap_or_default();
    let labels = labels(&mut fields).unwrap_or_default();
    let (name, description, labels) = fields
        .finish((name, description, labels))
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let made = store.create_team(&actor, name, description, labels).await?;
    Ok((StatusCode::CREATED, Json(shown(&made))))
}

async fn show(
    State(store): State<Store>,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(shown(&store.team(id("team", &text)?).await?)))
}

/// A team of the organisation's own.
pub(super) async fn own(store: &Store, text: &str) -> Result<Uuid, Problem> {
    let team = store.team(id("team", text)?).await?;
    if team.predefined {
        let detail = format!("{} is predefined and cannot be changed", team.name);
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    Ok(team.id)
}

async fn change(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::new(body::object(&headers, body).await?);
    let update = NameUpdate {
        name: fields.text("name", 1, 250),
        description: fields.text("description", 0, 250),
        labels: labels(&mut fields),
    };
    let update = fields
        .finish(update)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let team = own(&store, &text).await?;
    Ok(Json(shown(&store.update_team(&actor, team, update).await?)))
}

async fn remove(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    let team = own(&store, &text).await?;
    store.delete_team(&actor, team).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn users(
    State(app): State<App>,
    Path(text): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &[])?;
    let all = app.store.team_users(id("team", &text)?).await?;
    Ok(Json(list.of(
        all.iter().map(|it| people::shown(it, &app.geo)).collect(),
    )))
}

async fn programs(
    State(store): State<Store>,
    Path(text): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &[])?;
    let all = store.team_accounts(id("team", &text)?).await?;
    Ok(Json(list.of(all.iter().map(accounts::shown).collect())))
}

/// The id in the body of a new membership.
async fn member(field: &str, headers: &HeaderMap, body: Body) -> Result<Uuid, Problem> {
    let mut fields = Fields::new(body::object(headers, body).await?);
    let member: Option<Uuid> = fields.take(field);
    if member.is_none() && !fields.refused(field) {
        fields.refuse(field, "is required");
    }
    let member = fields
        .finish(member)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    member.ok_or_else(|| Problem::invalid(field, "is required"))
}

/// A team that takes members.
async fn open(store: &Store, text: &str) -> Result<Uuid, Problem> {
    let team = store.team(id("team", text)?).await?;
    if let Some(what) = absent(&team.name).filter(|_| team.predefined) {
        let detail = format!(
            "{} is for {what}, which are not in this build: it would open nothing",
            team.name
        );
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    Ok(team.id)
}

async fn add_user(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let user = Holder::User(member("id", &headers, body).await?);
    let team = open(&store, &text).await?;
    store.join_team(&actor, team, user).await?;
    Ok(StatusCode::CREATED)
}

async fn add_account(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let account = Holder::SystemAccount(member("id", &headers, body).await?);
    let team = open(&store, &text).await?;
    store.join_team(&actor, team, account).await?;
    Ok(StatusCode::CREATED)
}

async fn drop_user(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path((team, user)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user = Holder::User(id("user", &user)?);
    store.leave_team(&actor, id("team", &team)?, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn drop_account(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path((team, account)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let account = Holder::SystemAccount(id("system account", &account)?);
    store
        .leave_team(&actor, id("team", &team)?, account)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
