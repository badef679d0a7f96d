//! Settings of the organisation: how people log in, their tokens, from where requests may come.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use ipnet::IpNet;
use sallyport_store::{Actor, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::people::id;
use super::roles::Access::{Read, Write};
use super::roles::Needs;
use crate::body;
use crate::fields::Fields;
use crate::problem::Problem;
use crate::route::Route;

/// Names under which the store keeps them.
const AUTHENTICATION: &str = "authentication";
const PERSONAL_ACCESS_TOKENS: &str = "personal_access_tokens";
const IP_ALLOW_LIST: &str = "ip_allow_list";

const ADDRESSES_MAX: usize = 1000;

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Needs::Identity(Read), Needs::Identity(Write));
    let pats = "/v3/organizations/{organization}/personal-access-token-settings";
    let list = "/v3/organizations/{organization}/ip-allow-list";
    vec![
        Route::get(
            "/v3/authentication-settings",
            read,
            "How people log in",
            authentication,
        )
        .gives(200, "AuthenticationSettings"),
        Route::patch(
            "/v3/authentication-settings",
            write,
            "Change how people log in",
            change_authentication,
        )
        .takes("AuthenticationSettings")
        .gives(200, "AuthenticationSettings"),
        Route::get(pats, read, "Rules for personal access tokens", pat_settings)
            .gives(200, "PatSettings"),
        Route::patch(
            pats,
            write,
            "Change the rules for personal access tokens",
            change_pats,
        )
        .takes("PatSettings")
        .gives(200, "PatSettings"),
        Route::get(list, read, "From where requests may come", allow_list)
            .gives(200, "IpAllowList"),
        Route::put(
            list,
            write,
            "Set from where requests may come",
            replace_list,
        )
        .takes("IpAllowList")
        .gives(201, "IpAllowList"),
        Route::patch(
            list,
            write,
            "Change from where requests may come",
            change_list,
        )
        .takes("IpAllowList")
        .gives(200, "IpAllowList"),
    ]
}

/// There is one organisation; any other id names nothing.
pub(super) async fn own_organization(store: &Store, text: &str) -> Result<(), Problem> {
    let none = || Problem::not_found(&format!("organization {text:?}"));
    let wanted = id("organization", text)?;
    let own = store.organization().await?.id;
    if own == wanted { Ok(()) } else { Err(none()) }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
struct Authentication {
    basic_auth_enabled: bool,
    oidc_auth_enabled: bool,
    saml_auth_enabled: bool,
    idp_mapping_enabled: bool,
    konnect_mapping_enabled: bool,
}

impl Default for Authentication {
    fn default() -> Authentication {
        Authentication {
            basic_auth_enabled: true,
            oidc_auth_enabled: false,
            saml_auth_enabled: false,
            idp_mapping_enabled: false,
            konnect_mapping_enabled: true,
        }
    }
}

async fn stored<T: Default + serde::de::DeserializeOwned>(
    store: &Store,
    name: &str,
) -> Result<T, Problem> {
    let found = store.setting(name).await?;
    let read = found.and_then(|value| serde_json::from_value(value).ok());
    Ok(read.unwrap_or_default())
}

async fn authentication(State(store): State<Store>) -> Result<Json<Value>, Problem> {
    let settings: Authentication = stored(&store, AUTHENTICATION).await?;
    Ok(Json(json!(settings)))
}

async fn change_authentication(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::new(body::object(&headers, body).await?);
    let mut settings: Authentication = stored(&store, AUTHENTICATION).await?;
    for (name, setting) in [
        ("basic_auth_enabled", &mut settings.basic_auth_enabled),
        (
            "konnect_mapping_enabled",
            &mut settings.konnect_mapping_enabled,
        ),
    ] {
        *setting = fields.take(name).unwrap_or(*setting);
    }
    // What needs an identity provider stays off: there is none in this build.
    for name in [
        "oidc_auth_enabled",
        "saml_auth_enabled",
        "idp_mapping_enabled",
    ] {
        if fields.take(name) == Some(true) {
            fields.refuse(
                name,
                "needs an identity provider, which this build does not have",
            );
        }
    }
    let settings = fields
        .finish(settings)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let value = json!(settings);
    store
        .set_setting(&actor, AUTHENTICATION, value.clone())
        .await?;
    Ok(Json(value))
}

/// What personal access tokens may be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PatSettings {
    pub(super) pats_enabled: bool,
    /// 1..=365.
    pub(super) max_expiration_period_days: i64,
}

impl Default for PatSettings {
    fn default() -> PatSettings {
        PatSettings {
            pats_enabled: true,
            max_expiration_period_days: 365,
        }
    }
}

pub(super) async fn personal_access_tokens(store: &Store) -> Result<PatSettings, Problem> {
    stored(store, PERSONAL_ACCESS_TOKENS).await
}

async fn pat_settings(
    State(store): State<Store>,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    own_organization(&store, &text).await?;
    Ok(Json(json!(personal_access_tokens(&store).await?)))
}

async fn change_pats(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    own_organization(&store, &text).await?;
    let mut fields = Fields::new(body::object(&headers, body).await?);
    let mut settings = personal_access_tokens(&store).await?;
    settings.pats_enabled = fields.take("pats_enabled").unwrap_or(settings.pats_enabled);
    let days: Option<i64> = fields.take("max_expiration_period_days");
    settings.max_expiration_period_days = days.unwrap_or(settings.max_expiration_period_days);
    if !(1..=365).contains(&settings.max_expiration_period_days) {
        fields.refuse("max_expiration_period_days", "must be from 1 to 365");
    }
    let settings = fields
        .finish(settings)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let value = json!(settings);
    let set = store.set_setting(&actor, PERSONAL_ACCESS_TOKENS, value.clone());
    set.await?;
    Ok(Json(value))
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct AllowList {
    enabled: bool,
    allowed_ips: Vec<String>,
}

/// An address or a network in CIDR form.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(address)
}

async fn allow_list(
    State(store): State<Store>,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    own_organization(&store, &text).await?;
    let list: AllowList = stored(&store, IP_ALLOW_LIST).await?;
    Ok(Json(json!(list)))
}

/// Stores `list` with the fields of a body.
async fn set_list(
    store: &Store,
    actor: &Actor,
    text: &str,
    mut list: AllowList,
    body: Value,
) -> Result<Json<Value>, Problem> {
    own_organization(store, text).await?;
    let mut fields = Fields::new(body);
    list.enabled = fields.take("enabled").unwrap_or(list.enabled);
    list.allowed_ips = fields.take("allowed_ips").unwrap_or(list.allowed_ips);
    if list.allowed_ips.len() > ADDRESSES_MAX {
        fields.refuse(
            "allowed_ips",
            format!("must have at most {ADDRESSES_MAX} entries"),
        );
    }
    for (at, text) in list.allowed_ips.iter().enumerate() {
        if network(text).is_none() {
            let reason = "is neither an address nor a network such as 10.0.0.0/8";
            fields.refuse(format!("allowed_ips[{at}]"), reason);
        }
    }
    let list = fields
        .finish(list)
        .map_err(|bad| Problem::invalid_all(&bad))?;
    let value = json!(list);
    store
        .set_setting(actor, IP_ALLOW_LIST, value.clone())
        .await?;
    Ok(Json(value))
}

async fn replace_list(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body = body::object(&headers, body).await?;
    let set = set_list(&store, &actor, &text, AllowList::default(), body);
    Ok((StatusCode::CREATED, set.await?))
}

async fn change_list(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let body = body::object(&headers, body).await?;
    let before = stored(&store, IP_ALLOW_LIST).await?;
    set_list(&store, &actor, &text, before, body).await
}
