//! `dp-client-certificates`: which certificates data planes of a control plane may present.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use sallyport_runtime::tls;
use sallyport_store::{Actor, Certificate, NewCertificate, StorageFailure, Store, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::body::{self, BodyError};
use crate::identity::Access::{Read, Write};
use crate::identity::{Needs, Part};
use crate::route::Route;

const PATH: &str = "/v2/control-planes/{cp}/dp-client-certificates";

pub(crate) fn routes() -> Vec<Route> {
    let needs = |access| Needs::ControlPlane(Part::DpCertificates, access);
    let one = format!("{PATH}/{{certificate}}");
    vec![
        Route::get(PATH, needs(Read), "List certificates of data planes", list)
            .gives(200, "DpCertificateList"),
        Route::post(PATH, needs(Write), "Pin a certificate of data planes", pin)
            .takes("NewDpCertificate")
            .gives(201, "DpCertificateItem"),
        Route::get(
            &*one,
            needs(Read),
            "Show a certificate of data planes",
            show,
        )
        .gives(200, "DpCertificateItem"),
        Route::put(
            &*one,
            needs(Write),
            "Pin a certificate of data planes under an id",
            put,
        )
        .takes("NewDpCertificate")
        .gives(200, "DpCertificateItem"),
        Route::delete(
            &*one,
            needs(Write),
            "Unpin a certificate of data planes",
            unpin,
        ),
    ]
}

/// A text that cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is no certificate in PEM.
    #[error(transparent)]
    Pem(#[from] tls::PemError),
    /// What is inside is no certificate.
    #[error("{0}")]
    Content(String),
    /// A chain or a bundle; only one certificate can be what a data plane presents.
    #[error("expected exactly one certificate, got {0}")]
    Several(usize),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Pins the one certificate of a PEM text to a control plane. Pinning it again changes nothing.
///
/// # Errors
/// See [`CertificateError`].
pub async fn pin_certificate(
    store: &Store,
    control_plane: Uuid,
    pem: &str,
    title: &str,
) -> Result<Certificate, CertificateError> {
    let new = read(pem, title.to_owned())?;
    let pins = store.certificates_by_digest(new.digest).await?;
    if let Some(pin) = pins
        .into_iter()
        .find(|pin| pin.control_plane == control_plane)
    {
        return Ok(pin);
    }
    let actor = Actor("bootstrap".to_owned());
    Ok(store.pin_certificate(control_plane, &actor, new).await?)
}

pub(crate) fn read(pem: &str, title: String) -> Result<NewCertificate, CertificateError> {
    let chain = tls::certificates(pem)?;
    let [certificate] = chain.as_slice() else {
        return Err(CertificateError::Several(chain.len()));
    };
    let leaf =
        tls::Leaf::parse(certificate).map_err(|e| CertificateError::Content(e.to_string()))?;
    Ok(NewCertificate {
        pem: pem.to_owned(),
        digest: leaf.digest.0,
        title,
    })
}

/// An error in the older form of these endpoints: `{"message": …}`.
pub(crate) struct Legacy(StatusCode, String);

impl Legacy {
    pub(crate) fn bad(message: impl Into<String>) -> Legacy {
        Legacy(StatusCode::BAD_REQUEST, message.into())
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Legacy {
        Legacy(StatusCode::FORBIDDEN, message.into())
    }

    /// For what this installation cannot do now.
    pub(crate) fn unable(message: impl Into<String>) -> Legacy {
        Legacy(StatusCode::SERVICE_UNAVAILABLE, message.into())
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
            StoreError::UniqueTaken { field, value } => {
                let message = match field.as_str() {
                    "id" => format!("the id {value} is taken, choose another one"),
                    _ => format!("this certificate is pinned already, as {value}"),
                };
                Legacy(StatusCode::CONFLICT, message)
            }
            StoreError::Storage(StorageFailure::Full) => {
                Legacy(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            StoreError::Storage(StorageFailure::Unavailable(failure)) => {
                tracing::warn!(%failure, "a request failed: no database");
                let message = "the database is not available, try again";
                Legacy(StatusCode::SERVICE_UNAVAILABLE, message.to_owned())
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
    let parsed = tls::certificates(&certificate.pem).ok();
    let leaf = parsed.and_then(|chain| tls::Leaf::parse(chain.first()?).ok());
    json!({
        "id": certificate.id,
        "cert": certificate.pem,
        "expires_at": leaf.map(|leaf| leaf.not_after),
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

/// The certificate that a body brings.
async fn given(headers: &HeaderMap, body: Body) -> Result<NewCertificate, Legacy> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct New {
        cert: String,
        title: Option<String>,
    }
    let new: New = serde_json::from_value(body::object(headers, body).await?)
        .map_err(|error| Legacy::bad(error.to_string()))?;
    read(&new.cert, new.title.unwrap_or_default())
        .map_err(|error| Legacy::bad(format!("cert: {error}")))
}

async fn put(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path((cp, text)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Legacy> {
    let new = given(&headers, body).await?;
    let pinned = store
        .put_certificate(id(&cp)?, &actor, id(&text)?, new)
        .await?;
    Ok(Json(json!({"item": shown(&pinned)})))
}

async fn pin(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path(cp): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Legacy> {
    let new = given(&headers, body).await?;
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

#[cfg(test)]
mod tests {
    use sallyport_runtime::certs::{Curve, data_plane_pair};

    use super::*;

    #[tokio::test]
    async fn pinning_again_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
        let cp = crate::bootstrap(&store, "test", None)
            .await
            .unwrap()
            .control_plane
            .id;
        let pem = data_plane_pair("gw", Curve::P256, 30).unwrap().cert;
        let first = pin_certificate(&store, cp, &pem, "gw").await.unwrap();
        assert_eq!(
            pin_certificate(&store, cp, &pem, "other").await.unwrap(),
            first
        );
        assert_eq!(store.certificates(cp).await.unwrap(), [first]);
        let twice = format!("{pem}{pem}");
        let refused = pin_certificate(&store, cp, &twice, "")
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(refused, "expected exactly one certificate, got 2");
    }
}
