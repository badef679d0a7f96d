//! Enrolment: a new data plane gets its certificate by one call, with a token that works once.
//!
//! The key is made at the data plane and stays there; what travels is a certificate request. The
//! certificate comes from the installation's own authority and is pinned to the control plane.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use sallyport_runtime::certs::Request;
use sallyport_store::{Actor, EnrolmentToken, NewEnrolmentToken, Store, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::body;
use crate::config_sync::now_secs;
use crate::control_planes::host;
use crate::dp_certificates::{Legacy, id, read};
use crate::identity::Access::{Read, Write};
use crate::identity::{Needs, Part, digest, random_text};
use crate::route::Route;

const PATH: &str = "/v2/control-planes/{cp}/enrolment-tokens";
/// How long a token can be used, unless it is said.
const LIFE_SECS: i64 = 3600;
const LIFE_SECS_MAX: i64 = 7 * 24 * 3600;
/// How long a certificate is valid, unless it is said.
const DAYS: u32 = 365;

pub(crate) fn routes() -> Vec<Route> {
    let needs = |access| Needs::ControlPlane(Part::DpCertificates, access);
    vec![
        Route::get(PATH, needs(Read), "List enrolment tokens", list),
        Route::post(PATH, needs(Write), "Make an enrolment token", create),
        Route::delete(
            format!("{PATH}/{{token}}"),
            needs(Write),
            "Take an enrolment token back",
            remove,
        ),
        // who has no access token yet; the enrolment token is in the body
        Route::post(
            "/v2/enrol",
            Needs::Nothing,
            "Get a certificate for a new data plane, with an enrolment token",
            enrol,
        ),
    ]
}

fn shown(token: &EnrolmentToken) -> Value {
    json!({
        "id": token.id,
        "title": token.title,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "expired": token.expires_at < now_secs(),
    })
}

async fn list(State(store): State<Store>, Path(cp): Path<String>) -> Result<Json<Value>, Legacy> {
    let all = store.enrolment_tokens(id(&cp)?).await?;
    let items: Vec<Value> = all.iter().map(shown).collect();
    Ok(Json(
        json!({"page": {"total_count": items.len()}, "items": items}),
    ))
}

async fn create(
    State(store): State<Store>,
    Path(cp): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Legacy> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct New {
        #[serde(default)]
        title: String,
        #[serde(default)]
        expires_in: Option<i64>,
    }
    let new: New = serde_json::from_value(body::object(&headers, body).await?)
        .map_err(|error| Legacy::bad(error.to_string()))?;
    let life = new.expires_in.unwrap_or(LIFE_SECS);
    if !(1..=LIFE_SECS_MAX).contains(&life) {
        return Err(Legacy::bad(format!(
            "expires_in: must be between 1 and {LIFE_SECS_MAX} seconds"
        )));
    }
    let text = random_text(32).map_err(|_| Legacy::bad("the system gave no random bytes"))?;
    let token = format!("spe_{text}");
    let new = NewEnrolmentToken {
        digest: digest(&token),
        title: new.title,
        expires_at: now_secs() + life,
    };
    let made = store.create_enrolment_token(id(&cp)?, new).await?;
    let mut item = shown(&made);
    // the only time that it is seen
    item["token"] = json!(token);
    Ok((StatusCode::CREATED, Json(json!({"item": item}))))
}

async fn remove(
    State(store): State<Store>,
    Path((cp, text)): Path<(String, String)>,
) -> Result<StatusCode, Legacy> {
    store.delete_enrolment_token(id(&cp)?, id(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v2/enrol`: a certificate for a key whose owner has a token.
async fn enrol(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Legacy> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        token: String,
        csr: String,
        #[serde(default)]
        name: Option<String>,
    }
    let wish: Wish = serde_json::from_value(body::object(&headers, body).await?)
        .map_err(|error| Legacy::bad(error.to_string()))?;
    let issuer = app.issuer.as_ref().ok_or_else(|| {
        let text = "this installation has no authority of its own; upload a certificate instead";
        Legacy::unable(text)
    })?;
    let request =
        Request::parse(&wish.csr).map_err(|error| Legacy::bad(format!("csr: {error}")))?;
    let refused = || {
        let text = "token: it is not known, was used already or has expired; ask for a new one";
        Legacy::forbidden(text)
    };
    let token = app.store.enrolment_token(digest(&wish.token)).await?;
    let token = token.filter(|token| token.expires_at >= now_secs());
    let token = token.ok_or_else(refused)?;
    let name = wish.name.unwrap_or_else(|| "data-plane".to_owned());
    let issued = issuer.issue_requested(request, &name, &[] as &[&str], DAYS);
    let cert = issued.map_err(|error| Legacy::bad(format!("name: {error}")))?;
    let new = read(&cert, token.title.clone()).map_err(|error| Legacy::bad(error.to_string()))?;
    let actor = Actor(format!("enrolment:{}", token.id));
    let pinned = match app.store.enrol(&token, &actor, new).await {
        Err(StoreError::NotFound) => return Err(refused()),
        pinned => pinned?,
    };
    let plane = app.store.control_plane(token.control_plane).await?;
    let name = |entry| host(entry, &app.base_domain, &app.geo, &plane.prefix).ok();
    Ok((
        StatusCode::CREATED,
        Json(json!({"item": {
            "certificate_id": pinned.id,
            "control_plane": plane.id,
            "cert": pinned.pem,
            "ca": issuer.pem().cert,
            "cluster_server_name": name("config_sync"),
            "cluster_telemetry_server_name": name("telemetry"),
        }})),
    ))
}
