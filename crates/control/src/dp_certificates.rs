//! `dp-client-certificates`: which certificates data planes of a control plane may present.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::{HeaderMap, StatusCode};
use sallyport_runtime::tls;
use sallyport_store::{Actor, Certificate, NewCertificate, StorageFailure, Store, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::body::{self, BodyError};

const PATH: &str = "/v2/control-planes/{cp}/dp-client-certificates";

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route(PATH, get(list).post(pin))
        .route(&format!("{PATH}/{{id}}"), get(show).delete(unpin))
}

/// An error in the older form of these endpoints: `{"message": …}`.
pub(crate) struct Legacy(StatusCode, String);

impl Legacy {
    pub(crate) fn bad(message: impl Into<String>) -> Legacy {
        Legacy(StatusCode::BAD_REQUEST, message.into())
    }

    pub(crate) fn not_found() -> Legacy {
        Legacy(StatusCode::NOT_FOUND, "Not Found".to_owned())
    }
}

/// An id in a path; what is no id names nothing.
pub(crate) fn id(text: &str) -> Result<Uuid, Legacy> {
    Uuid::try_parse(text).map_err(|_| Legacy::not_found())
}

impl From<StoreError> for Legacy {
    fn from(error: StoreError) -> Legacy {
        match error {
            StoreError::NotFound | StoreError::NoControlPlane(_) => Legacy::not_found(),
            StoreError::UniqueTaken { value, .. } => {
                let message = format!("this certificate is pinned already, as {value}");
                Legacy(StatusCode::CONFLICT, message)
            }
            StoreError::Storage(StorageFailure::Full) => {
                Legacy(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            error => {
                tracing::error!(%error, "a request failed in the database");
                Legacy(StatusCode::INTERNAL_SERVER_ERROR, String::new())
            }
        }
    }
}

impl From<BodyError> for Legacy {
    fn from(error: BodyError) -> Legacy {
        match error {
            BodyError::TooLarge => Legacy(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            _ => Legacy::bad(error.to_string()),
        }
    }
}

impl IntoResponse for Legacy {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"message": self.1}))).into_response()
    }
}

fn shown(certificate: &Certificate) -> Value {
    json!({
        "id": certificate.id,
        "cert": certificate.pem,
        "title": certificate.title,
        "created_at": certificate.created_at,
        "updated_at": certificate.updated_at,
    })
}

async fn list(State(store): State<Store>, Path(cp): Path<String>) -> Result<Json<Value>, Legacy> {
    let all = store.certificates(id(&cp)?).await?;
    let items: Vec<Value> = all.iter().map(shown).collect();
    Ok(Json(
        json!({"page": {"total_count": items.len()}, "items": items}),
    ))
}

async fn show(
    State(store): State<Store>,
    Path((cp, text)): Path<(String, String)>,
) -> Result<Json<Value>, Legacy> {
    let all = store.certificates(id(&cp)?).await?;
    let wanted = id(&text)?;
    let found = all.iter().find(|certificate| certificate.id == wanted);
    Ok(Json(
        json!({"item": shown(found.ok_or_else(Legacy::not_found)?)}),
    ))
}

async fn pin(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(cp): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Legacy> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct New {
        cert: String,
        title: Option<String>,
    }
    let new: New = serde_json::from_value(body::object(&headers, body).await?)
        .map_err(|error| Legacy::bad(error.to_string()))?;
    let chain = tls::certificates(&new.cert).map_err(|e| Legacy::bad(format!("cert: {e}")))?;
    let [certificate] = chain.as_slice() else {
        let message = format!(
            "cert: expected exactly one certificate, got {}",
            chain.len()
        );
        return Err(Legacy::bad(message));
    };
    let leaf = tls::Leaf::parse(certificate).map_err(|e| Legacy::bad(format!("cert: {e}")))?;
    let title = new.title.unwrap_or_default();
    let new = NewCertificate {
        pem: new.cert,
        digest: leaf.digest.0,
        title,
    };
    let pinned = store.pin_certificate(id(&cp)?, &actor, new).await?;
    Ok((StatusCode::CREATED, Json(json!({"item": shown(&pinned)}))))
}

async fn unpin(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path((cp, text)): Path<(String, String)>,
) -> Result<StatusCode, Legacy> {
    store
        .unpin_certificate(id(&cp)?, &actor, id(&text)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
