//! Entities of one control plane, under `/v2/control-planes/{id}/core-entities`.
//!
//! The paths and values are those that decK and the other clients of a hosted control plane use;
//! decK 1.4.0, which knows only Kong's Admin API, works on this prefix as well.

mod error;
mod generated;
mod import;
mod place;
mod read;
mod schemas;
mod write;

use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Json, Router};
use http::request::Parts;
use http::{Method, StatusCode};
use sallyport_model::Kind;
use sallyport_store::{Actor, ClusterType};
use serde_json::json;
use uuid::Uuid;

use self::error::CoreError;
pub use self::import::{ImportError, import};
use self::place::Place;
use crate::app::App;
use crate::body;

pub(crate) fn routes() -> Router<App> {
    let path = "/v2/control-planes/{cp}/core-entities";
    Router::new()
        .route(path, any(answer))
        .route(&format!("{path}/"), any(answer))
        .route(&format!("{path}/{{*rest}}"), any(answer))
}

/// One request, as the parts of this feature see it.
struct Ask {
    app: App,
    cp: Uuid,
    actor: Actor,
    query: Vec<(String, String)>,
}

async fn answer(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Path(path): Path<Vec<(String, String)>>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, CoreError> {
    let (
        Parts {
            method,
            uri,
            headers,
            ..
        },
        body,
    ) = request.into_parts();
    let cp = path
        .iter()
        .find(|(name, _)| name == "cp")
        .map_or("", |(_, value)| value.as_str());
    let cp = Uuid::try_parse(cp).map_err(|_| CoreError::NotFound)?;
    // The raw path: a key may hold an encoded slash.
    let below = uri
        .path()
        .split_once("/core-entities")
        .map_or("", |(_, below)| below);
    let place = Place::parse(below);
    let control_plane = app.store.control_plane(cp).await?;
    let writes = matches!(
        method,
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE
    );
    let validates = matches!(place, Place::Validate(_));
    if writes && !validates && control_plane.cluster_type == ClusterType::K8sIngressController {
        return Err(CoreError::IngressController);
    }
    let ask = Ask {
        app,
        cp,
        actor,
        query,
    };
    match (method, place) {
        (Method::GET | Method::HEAD, place) => get(&ask, place).await,
        (_, Place::Unsupported { name, .. }) if writes => Err(CoreError::Unsupported(name)),
        (Method::POST, Place::Collection(collection)) if collection.writable() => {
            let body = body::object(&headers, body).await?;
            let stored = write::create(&ask, &collection, body).await?;
            Ok((StatusCode::CREATED, Json(stored)).into_response())
        }
        (Method::PUT, Place::One(collection, key)) if collection.writable() => {
            let body = body::object(&headers, body).await?;
            Ok(Json(write::upsert(&ask, &collection, &key, body).await?).into_response())
        }
        (Method::DELETE, Place::One(collection, key)) if collection.writable() => {
            write::delete(&ask, &collection, &key).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (Method::POST, Place::Validate(table)) => {
            let kind = Kind::from_table(&table).ok_or(CoreError::Unsupported(table))?;
            schemas::validate(&ask.app, kind, body::object(&headers, body).await?)?;
            Ok(Json(json!({"message": "schema validation successful"})).into_response())
        }
        (_, Place::Unknown) => Err(CoreError::NotFound),
        (method, _) => Err(CoreError::Method(method, uri.path().to_owned())),
    }
}

async fn get(ask: &Ask, place: Place) -> Result<Response, CoreError> {
    let value = match place {
        Place::Root => schemas::root(ask).await,
        Place::Collection(collection) => read::list(ask, &collection).await?,
        Place::One(collection, key) => read::one(ask, &collection, &key).await?,
        Place::PluginSchema(name) => schemas::plugin(&ask.app, &name)?,
        Place::EntitySchema(table) => schemas::entity(&table)?,
        Place::JsonSchema(singular) => schemas::json(&singular)?,
        Place::Unsupported { listed: true, .. } => json!({"data": [], "next": null}),
        Place::Unsupported { .. } | Place::Validate(_) | Place::Unknown => {
            return Err(CoreError::NotFound);
        }
    };
    Ok(Json(value).into_response())
}
