//! Who I am, and what this installation is.

use axum::extract::State;
use axum::{Extension, Json};
use sallyport_store::{Organization, Owner, Store};
use serde_json::{Value, json};

use super::principal::Principal;
use super::roles::{Needs, ROLES};
use super::{accounts, people, stamp};
use crate::app::App;
use crate::problem::Problem;
use crate::route::Route;

pub(super) fn routes() -> Vec<Route> {
    let mine = |path: &str| {
        Route::get(path, Needs::Token, "My organization", organization).gives(200, "Organization")
    };
    vec![
        mine("/v2/organizations/me"),
        mine("/v3/organizations/me"),
        Route::get(
            "/v3/organizations/me/entitlements",
            Needs::Token,
            "What the organization may use, and uses",
            entitlements,
        )
        .gives(200, "Entitlements"),
        Route::get("/v3/users/me", Needs::Token, "Whose token this is", me).gives(200, "User"),
        Route::get(
            "/v3/roles",
            Needs::Token,
            "Roles that can be assigned",
            roles,
        )
        .gives(200, "Object"),
        Route::get(
            "/v3/available-regions",
            Needs::Nothing,
            "The geo of this installation",
            regions,
        )
        .gives(200, "Object"),
    ]
}

fn shown(organization: &Organization) -> Value {
    json!({
        "id": organization.id,
        "name": organization.name,
        "owner_id": organization.owner.id,
        "login_path": null,
        "state": "active",
        "retention_period_days": null,
        "created_at": stamp(organization.created_at_ms),
        "updated_at": stamp(organization.updated_at_ms),
    })
}

async fn organization(State(store): State<Store>) -> Result<Json<Value>, Problem> {
    Ok(Json(shown(&store.organization().await?)))
}

/// A system account has no person: it is shown as one that has its name.
async fn me(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Problem> {
    let owner = principal.token().map(|token| &token.owner);
    Ok(Json(match owner {
        Some(Owner::User(user)) => people::shown(user, &app.geo),
        Some(Owner::SystemAccount(account)) => {
            let mut shown = accounts::shown(account);
            shown["email"] = Value::Null;
            shown["full_name"] = json!(account.name);
            shown["preferred_name"] = Value::Null;
            shown["active"] = json!(true);
            shown["inferred_region"] = json!(app.geo);
            shown
        }
        None => return Err(Problem::not_found("the user")),
    }))
}

async fn entitlements(State(store): State<Store>) -> Result<Json<Value>, Problem> {
    let used = |count: usize| json!({"limit": null, "used": count});
    Ok(Json(json!({
        "plan": "self-hosted",
        "control_planes": used(store.control_planes().await?.len()),
        "users": used(store.users().await?.len()),
        "teams": used(store.teams().await?.len()),
        "system_accounts": used(store.system_accounts().await?.len()),
    })))
}

/// `{"control_planes": {"name": …, "roles": {"viewer": {"name", "description"}}}}`.
async fn roles() -> Json<Value> {
    let mut groups = json!({});
    for role in &ROLES {
        let group = &mut groups[key(role.entity_type)];
        group["name"] = json!(role.entity_type);
        group["roles"][key(role.name)] =
            json!({"name": role.name, "description": role.description});
    }
    Json(groups)
}

fn key(name: &str) -> String {
    name.to_lowercase().replace(' ', "_")
}

async fn regions(State(app): State<App>) -> Json<Value> {
    Json(json!({"regions": {"stable": [app.geo], "stable_opt_in": [], "beta": []}}))
}
