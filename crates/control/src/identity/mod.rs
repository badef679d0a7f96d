//! Who is asking: access tokens, and the organisation and person behind one.

mod token;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use http::header::AUTHORIZATION;
use sallyport_store::{Actor, Store, Token, User};
use serde_json::{Value, json};

use crate::app::App;
use crate::audit_log::Caller;
use crate::problem::Problem;

pub(crate) use token::{digest, new_token, random_text};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/v2/organizations/me", get(my_organization))
        .route("/v3/organizations/me", get(my_organization))
        .route("/v3/users/me", get(me))
}

/// Lets a request with a known token through, with its [`Token`] and [`Actor`].
pub(crate) async fn require_token(
    State(store): State<Store>,
    mut request: Request,
    next: Next,
) -> Response {
    let text = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let text = text.and_then(bearer).map(str::to_owned);
    let token = match text {
        Some(text) => store.token_by_digest(digest(&text)).await,
        None => Ok(None),
    };
    match token {
        Ok(Some(token)) => {
            if let Some(caller) = request.extensions().get::<Caller>() {
                caller.set(&token);
            }
            request
                .extensions_mut()
                .insert(Actor(format!("token:{}", token.name)));
            request.extensions_mut().insert(token);
            next.run(request).await
        }
        Ok(None) => refuse(request.uri().path()),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// The token in `Bearer <token>`; the scheme in any case.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// 401 in the form that clients of this path expect.
fn refuse(path: &str) -> Response {
    if path.contains("/core-entities") || !path.starts_with("/v") {
        let body = json!({"message": "Unauthorized", "status": 401});
        return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
    }
    let detail = "a valid access token is needed in the header Authorization: Bearer <token>";
    Problem::new(StatusCode::UNAUTHORIZED, detail).into_response()
}

async fn my_organization(State(store): State<Store>) -> Result<Json<Value>, Problem> {
    let organization = store.organization().await?;
    Ok(Json(json!({
        "id": organization.id,
        "name": organization.name,
        "owner_id": organization.owner.id,
        "login_path": null,
        "state": "active",
        "retention_period_days": null,
        "created_at": stamp(organization.created_at_ms),
        "updated_at": stamp(organization.updated_at_ms),
    })))
}

async fn me(State(app): State<App>, Extension(token): Extension<Token>) -> Json<Value> {
    let User {
        id,
        email,
        full_name,
        created_at_ms,
        updated_at_ms,
    } = token.user;
    Json(json!({
        "id": id,
        "email": email,
        "full_name": full_name,
        "preferred_name": null,
        "active": true,
        "inferred_region": app.geo,
        "created_at": stamp(created_at_ms),
        "updated_at": stamp(updated_at_ms),
    }))
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn stamp(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_header_is_read_leniently() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            (" BEARER abc", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(bearer(header), token, "{header:?}");
        }
    }

    #[test]
    fn times_have_three_digits_of_a_second() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
    }
}
