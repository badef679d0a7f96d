//! `/v3/users` and `/v3/invites`.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use sallyport_store::{Actor, Holder, Store, User, UserUpdate};
use serde_json::{Value, json};
use uuid::Uuid;

use super::roles::Access::{Read, Write};
use super::roles::Needs;
use super::{stamp, teams};
use crate::app::App;
use crate::body;
use crate::fields::Fields;
use crate::page::{List, PAGE};
use crate::problem::Problem;
use crate::route::Route;

const PATH: &str = "/v3/users/{user}";
const FILTERS: [&str; 4] = ["id", "email", "full_name", "active"];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v3/users", Needs::Identity(Read), "List users", list)
            .query(&[
                "page[size]",
                "page[number]",
                "filter[id]",
                "filter[email]",
                "filter[email][contains]",
                "filter[full_name]",
                "filter[full_name][contains]",
                "filter[active]",
            ])
            .gives(200, "UserList"),
        Route::post("/v3/invites", Needs::Identity(Write), "Add a user", invite)
            .takes("NewUser")
            .gives(201, "User"),
        Route::get(PATH, Needs::Person(Read), "Show a user", show).gives(200, "User"),
        Route::patch(PATH, Needs::Person(Write), "Change a user", change)
            .takes("UserChange")
            .gives(200, "User"),
        Route::delete(PATH, Needs::Identity(Write), "Remove a user", remove),
        Route::get(
            format!("{PATH}/teams"),
            Needs::Person(Read),
            "List the teams of a user",
            teams_of,
        )
        .query(PAGE)
        .gives(200, "TeamList"),
    ]
}

/// An id in a path of the v3 APIs; what is no id names nothing.
pub(super) fn id(what: &str, text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::not_found(&format!("{what} {text:?}")))
}

pub(super) fn shown(user: &User, geo: &str) -> Value {
    json!({
        "id": user.id,
        "email": user.email,
        "full_name": user.full_name,
        "preferred_name": user.preferred_name,
        "active": user.active,
        "inferred_region": geo,
        "created_at": stamp(user.created_at_ms),
        "updated_at": stamp(user.updated_at_ms),
    })
}

async fn list(
    State(app): State<App>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &FILTERS)?;
    let all = app.store.users().await?;
    Ok(Json(
        list.of(all.iter().map(|it| shown(it, &app.geo)).collect()),
    ))
}

/// Nothing is mailed: who invites hands over a token.
async fn invite(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut fields = Fields::new(body::object(&headers, body).await?);
    let email = fields.required_text("email", 3, 254);
    if !fields.refused("email") && !is_address(&email) {
        fields.refuse("email", "is not an e-mail address");
    }
    let full_name = fields
        .text("full_name", 1, 250)
        .unwrap_or_else(|| email.clone());
    let (email, full_name) = fields
        .finish((email, full_name))
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let made = app.store.create_user(&actor, email, full_name).await?;
    Ok((StatusCode::CREATED, Json(shown(&made, &app.geo))))
}

/// Whether a text has the form of an address; whether mail arrives there is another matter.
fn is_address(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace());
    let split = text.rsplit_once('@');
    split.is_some_and(|(local, host)| plain(local) && plain(host) && !local.contains('@'))
}

async fn show(State(app): State<App>, Path(text): Path<String>) -> Result<Json<Value>, Problem> {
    let user = app.store.user(id("user", &text)?).await?;
    Ok(Json(shown(&user, &app.geo)))
}

async fn change(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Extension(caller): Extension<super::Principal>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let id = id("user", &text)?;
    let mut fields = Fields::new(body::object(&headers, body).await?);
    let cleared = fields.has("preferred_name");
    let preferred_name = fields.text("preferred_name", 1, 250);
    let update = UserUpdate {
        full_name: fields.text("full_name", 1, 250),
        preferred_name: cleared.then_some(preferred_name),
        active: fields.take("active"),
    };
    if update.active.is_some() && !caller.may(Needs::Identity(Write), None) {
        fields.refuse("active", "is for others to change");
    }
    let owner = app.store.organization().await?.owner.id;
    if update.active == Some(false) && owner == id {
        fields.refuse("active", "the owner of the organization stays active");
    }
    let update = fields
        .finish(update)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let user = app.store.update_user(&actor, id, update).await?;
    Ok(Json(shown(&user, &app.geo)))
}

async fn remove(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = id("user", &text)?;
    if store.organization().await?.owner.id == id {
        let detail = "the owner of the organization cannot be removed";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    store.delete_user(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn teams_of(
    State(store): State<Store>,
    Path(text): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &[])?;
    let all = store.teams_of(Holder::User(id("user", &text)?)).await?;
    Ok(Json(list.of(all.iter().map(teams::shown).collect())))
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn addresses() {
        for good in ["a@b", "ann.b+c@example.com"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "ann", "@b", "a@", "a b@c", "a@b@c"] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
