//! `core-entities:batch`: several writes as one version, or none of them.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::{HeaderMap, Method};
use sallyport_store::{Actor, Write};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::CoreError;
use super::place::{Collection, Place};
use super::read::{by_key, uuid};
use super::{Ask, write};
use crate::app::App;
use crate::body;
use crate::identity::{Principal, allowed};

/// Writes of one batch.
const OPERATIONS_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    expected_version: Option<u64>,
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    method: String,
    path: String,
    #[serde(default)]
    body: Value,
}

pub(super) async fn answer(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Extension(caller): Extension<Principal>,
    Path(cp): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, CoreError> {
    let cp = Uuid::try_parse(&cp).map_err(|_| CoreError::NotFound)?;
    let control_plane = app.store.control_plane(cp).await?;
    super::writable(&control_plane)?;
    let batch: Batch = serde_json::from_value(body::object(&headers, body).await?)
        .map_err(|error| CoreError::Argument(error.to_string()))?;
    if batch.operations.len() > OPERATIONS_MAX {
        let message = format!("a batch has at most {OPERATIONS_MAX} operations");
        return Err(CoreError::Argument(message));
    }
    let ask = Ask::of_batch(app, cp, actor);
    let (mut writes, mut results) = (Vec::new(), Vec::new());
    for (at, operation) in batch.operations.into_iter().enumerate() {
        let (written, result) = one(&ask, &caller, operation)
            .await
            .map_err(|error| error.within(at))?;
        writes.extend(written);
        results.push(result);
    }
    let (store, expected) = (&ask.app.store, batch.expected_version);
    let applied = store.apply(cp, &ask.actor, expected, writes).await?;
    Ok(Json(json!({
        "version": applied.revision,
        "changes": applied.count,
        "results": results,
    })))
}

/// One write, and what it answers: the entity, or null of a deletion.
async fn one(
    ask: &Ask,
    caller: &Principal,
    operation: Operation,
) -> Result<(Option<Write>, Value), CoreError> {
    let Operation { method, path, body } = operation;
    let place = Place::parse(&path);
    let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
    if !allowed(&ask.app.store, caller, place.needs(&method), Some(ask.cp)).await {
        return Err(CoreError::Forbidden);
    }
    if method != Method::DELETE && !body.is_object() {
        return Err(CoreError::Argument(
            "body: must be a JSON object".to_owned(),
        ));
    }
    match (method, place) {
        (Method::POST, Place::Collection(collection)) if collection.writable() => {
            let put = write::prepared_create(ask, &collection, body).await?;
            let body = put.body.clone();
            Ok((Some(Write::Put(put)), body))
        }
        (Method::PUT, Place::One(collection, key)) if collection.writable() => {
            let put = write::prepared_upsert(ask, &collection, &key, body).await?;
            let body = put.body.clone();
            Ok((Some(Write::Put(put)), body))
        }
        (Method::DELETE, Place::One(collection, key)) if collection.writable() => {
            let id = existing(ask, &collection, &key).await?;
            let write = id.map(|id| Write::Delete(collection.kind, id));
            Ok((write, Value::Null))
        }
        (method, _) => {
            let message = format!(
                "{method} {path}: a batch takes POST of collections, PUT and DELETE of entities"
            );
            Err(CoreError::Argument(message))
        }
    }
}

/// The id of an entity that is there.
async fn existing(
    ask: &Ask,
    collection: &Collection,
    key: &str,
) -> Result<Option<Uuid>, CoreError> {
    let parent = match &collection.parent {
        Some(parent) => Some(super::read::parent_id(ask, parent).await?),
        None => None,
    };
    let found = by_key(ask, collection.kind, parent, key).await?;
    Ok(found.and_then(|entity| uuid(entity["id"].as_str()?)))
}
