//! Access tokens of users (`kpat_…`) and of system accounts (`spat_…`).

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use sallyport_store::{Actor, NewToken, Owner, Store, Token};
use serde_json::{Value, json};
use uuid::Uuid;

use super::people::id;
use super::principal::{Principal, now_ms};
use super::roles::Access::{Read, Write};
use super::roles::Needs;
use super::settings::{self, PatSettings};
use super::stamp;
use super::token::{Prefix, digest, new_token};
use crate::body;
use crate::fields::Fields;
use crate::page::{List, PAGE};
use crate::problem::Problem;
use crate::route::Route;

const OF_USER: &str = "/v3/users/{user}/access-tokens";
const OF_ACCOUNT: &str = "/v3/system-accounts/{account}/access-tokens";

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(super) fn routes() -> Vec<Route> {
    let mut all = Vec::new();
    for (path, owner, read, write, new, one) in [
        (
            OF_USER,
            Prefix::Person,
            Needs::Person(Read),
            Needs::Person(Write),
            "NewAccessToken",
            "AccessToken",
        ),
        (
            OF_ACCOUNT,
            Prefix::SystemAccount,
            Needs::Identity(Read),
            Needs::Identity(Write),
            "NewSystemToken",
            "SystemToken",
        ),
    ] {
        let single = format!("{path}/{{token}}");
        all.extend([
            Route::get(
                path,
                read,
                "List access tokens",
                move |store, path, query| list(owner, store, path, query),
            )
            .query(PAGE)
            .gives(200, format!("{one}List")),
            Route::post(
                path,
                write,
                "Make an access token",
                move |store, actor, path, headers, body| {
                    create(owner, store, actor, path, headers, body)
                },
            )
            .takes(new)
            .gives(201, one),
            Route::get(&*single, read, "Show an access token", show).gives(200, one),
            Route::patch(&*single, write, "Rename an access token", rename)
                .takes("TokenChange")
                .gives(200, one),
            Route::delete(&*single, write, "Remove an access token", remove),
        ]);
    }
    all.push(
        Route::patch(
            format!("{OF_USER}/{{token}}/revoke"),
            Needs::Person(Write),
            "Revoke an access token",
            revoke,
        )
        .gives(200, "AccessToken"),
    );
    all.push(
        Route::get(
            "/v3/organizations/{organization}/personal-access-tokens",
            Needs::Identity(Read),
            "List the access tokens of all users",
            all_of_people,
        )
        .query(PAGE)
        .gives(200, "AccessTokenList"),
    );
    all
}

fn shown(token: &Token) -> Value {
    let when = |at: Option<i64>| at.map(stamp);
    let mut shown = json!({
        "id": token.id,
        "name": token.name,
        "created_at": stamp(token.created_at_ms),
        "updated_at": stamp(token.updated_at_ms),
        "expires_at": when(token.expires_at_ms),
        "last_used_at": when(token.last_used_at_ms),
    });
    if let Owner::User(user) = &token.owner {
        let expired = token.expires_at_ms.is_some_and(|at| now_ms() >= at);
        shown["user_id"] = json!(user.id);
        shown["revoked_at"] = json!(when(token.revoked_at_ms));
        shown["revoked_by"] = json!(token.revoked_by);
        shown["state"] = json!(match token.revoked_at_ms {
            Some(_) => "REVOKED",
            None if expired => "EXPIRED",
            None => "ACTIVE",
        });
    }
    shown
}

/// The owner of the path; it must be there.
async fn owner(kind: Prefix, store: &Store, text: &str) -> Result<Uuid, Problem> {
    Ok(match kind {
        Prefix::Person => store.user(id("user", text)?).await?.id,
        Prefix::SystemAccount => store.system_account(id("system account", text)?).await?.id,
    })
}

async fn list(
    kind: Prefix,
    State(store): State<Store>,
    Path(text): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let list = List::parse(&query, &["name"])?;
    let owner = owner(kind, &store, &text).await?;
    let all = store.tokens(Some(owner)).await?;
    Ok(Json(list.of(all.iter().map(shown).collect())))
}

async fn all_of_people(
    State(store): State<Store>,
    Path(text): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    settings::own_organization(&store, &text).await?;
    let list = List::parse(&query, &["name"])?;
    let all = store.tokens(None).await?;
    let of_people = all.iter().filter(|it| matches!(it.owner, Owner::User(_)));
    Ok(Json(list.of(of_people.map(shown).collect())))
}

/// Name and end of a new token.
fn input(body: Value, now: i64, rules: &PatSettings) -> Result<(String, i64), Problem> {
    let mut fields = Fields::new(body);
    let name = fields.required_text("name", 1, 250);
    let at: Option<String> = fields.take("expires_at");
    let ttl: Option<i64> = fields.take("ttl_seconds");
    let expires = match (at, ttl) {
        (Some(_), Some(_)) => {
            fields.refuse("ttl_seconds", "cannot stand beside expires_at");
            None
        }
        (Some(text), None) => match text.parse::<jiff::Timestamp>() {
            Ok(time) => Some(time.as_millisecond()),
            Err(_) => {
                fields.refuse("expires_at", "is not a time of RFC 3339");
                None
            }
        },
        (None, Some(secs)) if (86_400..=31_536_000).contains(&secs) => Some(now + secs * 1000),
        (None, Some(_)) => {
            fields.refuse("ttl_seconds", "must be from 86400 to 31536000");
            None
        }
        (None, None) => {
            if !fields.refused("expires_at") && !fields.refused("ttl_seconds") {
                fields.refuse("expires_at", "is required");
            }
            None
        }
    };
    let latest = now + rules.max_expiration_period_days * DAY_MS;
    match expires {
        Some(at) if at <= now => fields.refuse("expires_at", "must be in the future"),
        // a day more, for clients that count in whole days
        Some(at) if at > latest + DAY_MS => {
            let days = rules.max_expiration_period_days;
            fields.refuse("expires_at", format!("must be at most {days} days away"));
        }
        _ => {}
    }
    fields
        .finish((name, expires.unwrap_or_default()))
        .map_err(|bad| Problem::invalid_all(&bad))
}

async fn create(
    kind: Prefix,
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body = body::object(&headers, body).await?;
    let rules = match kind {
        Prefix::Person => settings::personal_access_tokens(&store).await?,
        Prefix::SystemAccount => PatSettings::default(),
    };
    let (name, expires) = input(body, now_ms(), &rules)?;
    let owner = owner(kind, &store, &text).await?;
    if !rules.pats_enabled {
        let detail = "the organization does not allow personal access tokens";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let secret = new_token(kind).map_err(|error| {
        tracing::error!(%error, "the system gave no random bytes");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "")
    })?;
    let new = NewToken {
        name,
        digest: digest(&secret),
        owner,
        expires_at_ms: Some(expires),
    };
    let mut shown = shown(&store.create_token(&actor, new).await?);
    let field = match kind {
        Prefix::Person => "konnect_token",
        Prefix::SystemAccount => "token",
    };
    shown[field] = json!(secret);
    Ok((StatusCode::CREATED, Json(shown)))
}

/// The token of a path, if it is one of that owner.
async fn of_owner(store: &Store, (owner, token): &(String, String)) -> Result<Token, Problem> {
    let none = || Problem::not_found(&format!("token {token:?}"));
    let (owner, wanted) = (id("owner", owner)?, id("token", token)?);
    let all = store.tokens(Some(owner)).await?.into_iter();
    all.into_iter().find(|it| it.id == wanted).ok_or_else(none)
}

async fn show(
    State(store): State<Store>,
    Path(path): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(shown(&of_owner(&store, &path).await?)))
}

async fn rename(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::new(body::object(&headers, body).await?);
    let name = fields.text("name", 1, 250);
    let name = fields
        .finish(name)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let token = of_owner(&store, &path).await?;
    let Some(name) = name else {
        return Ok(Json(shown(&token)));
    };
    Ok(Json(shown(
        &store.rename_token(&actor, token.id, name).await?,
    )))
}

async fn revoke(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Extension(caller): Extension<Principal>,
    Path(path): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let token = of_owner(&store, &path).await?;
    let by = caller.id().unwrap_or_default().to_string();
    Ok(Json(shown(
        &store.revoke_token(&actor, token.id, by).await?,
    )))
}

async fn remove(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(path): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let token = of_owner(&store, &path).await?;
    store.delete_token(&actor, token.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: Value, expected: Result<i64, &str>) {
        let got = input(body.clone(), 0, &PatSettings::default()).map(|(_, expires)| expires);
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{body}"),
            (Err(problem), Err(field)) => {
                let problem = format!("{problem:?}");
                assert!(problem.contains(field), "{body}: {problem}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_token_has_a_name_and_an_end() {
        check(json!({"name": "a", "ttl_seconds": 86_400}), Ok(DAY_MS));
        check(
            json!({"name": "a", "expires_at": "1970-01-02T00:00:00Z"}),
            Ok(DAY_MS),
        );
        check(json!({"ttl_seconds": 86_400}), Err("name"));
        check(json!({"name": "a"}), Err("expires_at"));
        check(json!({"name": "a", "ttl_seconds": 1}), Err("ttl_seconds"));
        check(
            json!({"name": "a", "expires_at": "tomorrow"}),
            Err("RFC 3339"),
        );
        check(
            json!({"name": "a", "expires_at": "1969-01-02T00:00:00Z"}),
            Err("in the future"),
        );
        check(
            json!({"name": "a", "expires_at": "1972-01-02T00:00:00Z"}),
            Err("at most 365"),
        );
        let both =
            json!({"name": "a", "ttl_seconds": 86_400, "expires_at": "1970-01-02T00:00:00Z"});
        check(both, Err("beside"));
    }
}
