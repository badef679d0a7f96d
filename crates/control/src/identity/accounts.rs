//! `/v3/system-accounts`.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use sallyport_store::{Actor, Holder, NameUpdate, Store, SystemAccount};
use serde_json::{Value, json};

use super::people::id;
use super::roles::Access::{Read, Write};
use super::roles::Needs;
use super::{stamp, teams};
use crate::body;
use crate::fields::Fields;
use crate::page::{List, PAGE};
use crate::problem::Problem;
use crate::route::Route;

const PATH: &str = "/v3/system-accounts/{account}";

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Needs::Identity(Read), Needs::Identity(Write));
    vec![
        Route::get("/v3/system-accounts", read, "List system accounts", list)
            .query(&[
                "page[size]",
                "page[number]",
                "filter[name]",
                "filter[name][contains]",
            ])
            .gives(200, "SystemAccountList"),
        Route::post(
            "/v3/system-accounts",
            write,
            "Make a system account",
            create,
        )
        .takes("NewSystemAccount")
        .gives(201, "SystemAccount"),
        Route::get(PATH, read, "Show a system account", show).gives(200, "SystemAccount"),
        Route::patch(PATH, write, "Change a system account", change)
            .takes("SystemAccountChange")
            .gives(200, "SystemAccount"),
        Route::delete(PATH, write, "Remove a system account", remove),
        Route::get(
            format!("{PATH}/teams"),
            read,
            "List the teams of a system account",
            teams_of,
        )
        .query(PAGE)
        .gives(200, "TeamList"),
    ]
}

pub(super) fn shown(account: &SystemAccount) -> Value {
    json!({
        "id": account.id,
        "name": account.name,
        "description": account.description,
        "konnect_managed": false,
        "created_at": stamp(account.created_at_ms),
        "updated_at": stamp(account.updated_at_ms),
    })
}

async fn list(
    State(store): State<Store>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &["id", "name", "description"])?;
    let all = store.system_accounts().await?;
    Ok(Json(list.of(all.iter().map(shown).collect())))
}

async fn create(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut fields = Fields::new(body::object(&headers, body).await?);
    let name = fields.required_text("name", 1, 250);
    let description = fields.text("description", 0, 1_000).unwrap_or_default();
    let (name, description) = fields
        .finish((name, description))
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let made = store.create_system_account(&actor, name, description);
    Ok((StatusCode::CREATED, Json(shown(&made.await?))))
}

async fn show(
    State(store): State<Store>,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    let account = store.system_account(id("system account", &text)?);
    Ok(Json(shown(&account.await?)))
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
        description: fields.text("description", 0, 1_000),
        labels: None,
    };
    let update = fields
        .finish(update)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let id = id("system account", &text)?;
    Ok(Json(shown(
        &store.update_system_account(&actor, id, update).await?,
    )))
}

async fn remove(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = id("system account", &text)?;
    store.delete_system_account(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn teams_of(
    State(store): State<Store>,
    Path(text): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &[])?;
    let holder = Holder::SystemAccount(id("system account", &text)?);
    let all = store.teams_of(holder).await?;
    Ok(Json(list.of(all.iter().map(teams::shown).collect())))
}
