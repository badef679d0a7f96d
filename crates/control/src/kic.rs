//! What Kubernetes ingress controllers use, on the host `<geo>.kic.api.<base>` under
//! `/kic/api/control-planes/{id}`: the entities of their control plane, their nodes, licences.
//!
//! A caller is who its certificate says: one that is pinned to the control plane in the path.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use sallyport_store::{ClusterType, ControlPlane, KicNode, Store, StoreError};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::arguments::Arguments;
use crate::audit_log;
use crate::body;
use crate::config_sync::{Refusal, is_trusted};
use crate::core_entities;
use crate::dp_certificates::{Legacy, id};
use crate::identity::Principal;
use crate::metrics;

/// The certificate that a connection was opened with.
#[derive(Clone, Debug)]
pub(crate) struct Shown(pub(crate) rustls::pki_types::CertificateDer<'static>);

const PREFIX: &str = "/kic/api/control-planes/{cp}";

/// Every path for ingress controllers.
pub(crate) fn router(app: App) -> Router {
    let recorder = app.audit.recorder.clone();
    let nodes = format!("{PREFIX}/v1/kic-nodes");
    Router::new()
        .route(&nodes, get(list).post(create))
        .route(
            &format!("{nodes}/{{node}}"),
            get(show).put(replace).delete(forget),
        )
        .route(&format!("{PREFIX}/v1/licenses"), get(licences))
        .route(
            &format!("{PREFIX}/{{*rest}}"),
            any(core_entities::for_ingress),
        )
        .layer(middleware::from_fn_with_state(app.clone(), require))
        .fallback(|| async { Legacy::not_found() })
        .layer(middleware::from_fn_with_state(recorder, audit_log::record))
        .layer(middleware::from_fn_with_state(app.clone(), metrics::count))
        .with_state(app)
}

/// Lets an ingress controller through to its own control plane.
async fn require(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let shown = request.extensions().get::<Shown>().cloned();
    match admitted(&app.store, &path, shown).await {
        Ok(control_plane) => {
            let name = format!("ingress:{}", control_plane.name);
            Principal::program(name).stands_behind(&mut request);
            next.run(request).await
        }
        Err(Refusal::Store(error)) => Legacy::from(error).into_response(),
        Err(reason) => {
            tracing::warn!(%reason, "ingress controller refused");
            let body = json!({"message": "Unauthorized", "status": 401});
            (StatusCode::UNAUTHORIZED, Json(body)).into_response()
        }
    }
}

/// The control plane of a path, if it is one of ingress controllers to which the certificate is
/// pinned. One refusal for all that does not fit, so that nobody learns what is there.
async fn admitted(
    store: &Store,
    path: &str,
    shown: Option<Shown>,
) -> Result<ControlPlane, Refusal> {
    let nothing = || Refusal::NoControlPlane(path.to_owned());
    let text = path.split('/').nth(4).unwrap_or_default();
    let id = Uuid::try_parse(text).map_err(|_| nothing())?;
    let control_plane = match store.control_plane(id).await {
        Ok(found) => found,
        Err(StoreError::NoControlPlane(_)) => return Err(nothing()),
        Err(error) => return Err(error.into()),
    };
    if control_plane.cluster_type != ClusterType::K8sIngressController {
        return Err(Refusal::OtherCluster(control_plane.name));
    }
    let shown = shown.ok_or_else(|| Refusal::Unreadable("none".to_owned()))?;
    is_trusted(store, &control_plane, &shown.0).await?;
    Ok(control_plane)
}

/// Fields that ingress controllers send and read back.
const FIELDS: [&str; 7] = [
    "hostname",
    "type",
    "version",
    "last_ping",
    "status",
    "config_hash",
    "compatibility_status",
];

fn shown(node: &KicNode) -> Value {
    let mut shown = node.body.clone();
    shown["id"] = json!(node.id);
    shown["created_at"] = json!(node.created_at);
    shown["updated_at"] = json!(node.updated_at);
    shown
}

/// The fields of a node, checked; and its id if there is one.
fn input(body: Value) -> Result<(Option<Uuid>, Value), Legacy> {
    let Value::Object(body) = body else {
        return Err(Legacy::bad("the request body must be a JSON object"));
    };
    let id = match &body.get("id") {
        None | Some(Value::Null) => None,
        Some(id) => {
            let id = id.as_str().and_then(|id| Uuid::try_parse(id).ok());
            Some(id.ok_or_else(|| Legacy::bad("id: must be a UUID"))?)
        }
    };
    let mut kept = Map::new();
    for (name, value) in body {
        let fits = match name.as_str() {
            "hostname" => value
                .as_str()
                .is_some_and(|text| (1..=1024).contains(&text.len())),
            "type" => ["ingress-controller", "kong-proxy"].contains(&value.as_str().unwrap_or("")),
            "version" | "config_hash" => value.as_str().is_some_and(|text| text.len() <= 1024),
            "last_ping" => value.is_i64(),
            "status" => value.as_str().is_some_and(|text| {
                text.starts_with("INGRESS_CONTROLLER_STATE_") && text.len() <= 128
            }),
            "compatibility_status" => value.is_object(),
            // of newer ones
            _ => true,
        };
        if !fits && !value.is_null() {
            return Err(Legacy::bad(format!("{name}: is not what a node has there")));
        }
        if FIELDS.contains(&name.as_str()) && !value.is_null() {
            kept.insert(name, value);
        }
    }
    for field in ["hostname", "type"] {
        if !kept.contains_key(field) {
            return Err(Legacy::bad(format!("{field}: is required")));
        }
    }
    Ok((id, Value::Object(kept)))
}

#[derive(Deserialize)]
struct Paging {
    #[serde(rename = "page.next_cursor")]
    cursor: Option<Uuid>,
}

const SIZE: usize = 100;

async fn list(
    State(store): State<Store>,
    Path(cp): Path<String>,
    Arguments(paging): Arguments<Paging>,
) -> Result<Json<Value>, Legacy> {
    let all = store.kic_nodes(id(&cp)?).await?;
    let rest: Vec<&KicNode> = all
        .iter()
        .filter(|node| paging.cursor.is_none_or(|after| node.id > after))
        .collect();
    let page = &rest[..rest.len().min(SIZE)];
    let more = rest.len() > page.len();
    let cursor = page.last().filter(|_| more).map(|node| node.id.to_string());
    let items: Vec<Value> = page.iter().map(|node| shown(node)).collect();
    Ok(Json(json!({
        "items": items,
        "page": {
            "total_count": all.len(),
            "next_cursor": cursor.unwrap_or_default(),
            "has_next_page": more,
        },
    })))
}

async fn create(
    State(store): State<Store>,
    Path(cp): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Legacy> {
    let (node, body) = input(body::object(&headers, body).await?)?;
    let node = node.unwrap_or_else(Uuid::new_v4);
    let stored = store.put_kic_node(id(&cp)?, node, body).await?;
    Ok((StatusCode::CREATED, Json(json!({"item": shown(&stored)}))))
}

async fn replace(
    State(store): State<Store>,
    Path((cp, node)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Legacy> {
    let (_, body) = input(body::object(&headers, body).await?)?;
    let stored = store.put_kic_node(id(&cp)?, id(&node)?, body).await?;
    Ok(Json(json!({"item": shown(&stored)})))
}

/// Bare, not wrapped: so its clients read it.
async fn show(
    State(store): State<Store>,
    Path((cp, node)): Path<(String, String)>,
) -> Result<Json<Value>, Legacy> {
    let (cp, wanted) = (id(&cp)?, id(&node)?);
    let all = store.kic_nodes(cp).await?;
    let found = all.iter().find(|node| node.id == wanted);
    Ok(Json(shown(found.ok_or_else(Legacy::not_found)?)))
}

async fn forget(
    State(store): State<Store>,
    Path((cp, node)): Path<(String, String)>,
) -> Result<StatusCode, Legacy> {
    store.delete_kic_node(id(&cp)?, id(&node)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 404 says that there is no licence, which is no error: nothing here needs one.
async fn licences() -> Legacy {
    Legacy::not_found()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_checked_and_unknown_fields_left_out() {
        let node = json!({
            "id": "11111111-1111-4111-8111-111111111111", "hostname": "ns/pod",
            "type": "ingress-controller", "version": "3.5.0", "last_ping": 1,
            "status": "INGRESS_CONTROLLER_STATE_OPERATIONAL", "new_field": 1,
        });
        let (id, kept) = input(node.clone()).ok().unwrap();
        assert!(id.is_some());
        assert_eq!(kept.get("new_field"), None);
        assert_eq!(kept["status"], node["status"]);
        for (field, bad) in [
            ("hostname", json!("")),
            ("hostname", json!(null)),
            ("type", json!("toaster")),
            ("last_ping", json!("1")),
            ("last_ping", json!(1.5)),
            ("status", json!("FINE")),
            ("id", json!("x")),
        ] {
            let mut node = node.clone();
            node[field] = bad;
            assert!(input(node.clone()).is_err(), "{node}");
        }
    }
}
