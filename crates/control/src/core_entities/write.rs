//! Creation, replacement and deletion of entities.

use std::time::{SystemTime, UNIX_EPOCH};

use sallyport_model::schema::{FieldError, Path, PluginSchemas};
use sallyport_model::{Kind, basic_auth, schema};
use sallyport_store::{Actor, IfExists, Put, Store, StoreError};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Ask;
use super::error::CoreError;
use super::generated::{complete_plugin, secret};
use super::place::Collection;
use super::read::{belongs, by_key, id, parent_id, uuid};

/// POST: a new entity; its id may be given.
pub(super) async fn create(
    ask: &Ask,
    collection: &Collection,
    body: Value,
) -> Result<Value, CoreError> {
    let put = prepared_create(ask, collection, body).await?;
    written(ask, put).await
}

/// What [`create`] writes.
pub(super) async fn prepared_create(
    ask: &Ask,
    collection: &Collection,
    mut body: Value,
) -> Result<Put, CoreError> {
    refer_to_parent(ask, collection, &mut body).await?;
    prepare(ask, collection.kind, body, Uuid::new_v4(), IfExists::Refuse).await
}

/// PUT: the whole entity, new or not. A name in the path makes one of that name.
pub(super) async fn upsert(
    ask: &Ask,
    collection: &Collection,
    key: &str,
    body: Value,
) -> Result<Value, CoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let put = prepared_upsert(ask, collection, key, body.clone()).await?;
        let by_name = uuid(key).is_none();
        match written(ask, put).await {
            // Somebody else made one of this name in between: this is a replacement then.
            Err(CoreError::Store(StoreError::UniqueTaken { .. }, _)) if by_name && tries < 3 => {}
            outcome => return outcome,
        }
    }
}

/// What [`upsert`] writes.
pub(super) async fn prepared_upsert(
    ask: &Ask,
    collection: &Collection,
    key: &str,
    mut body: Value,
) -> Result<Put, CoreError> {
    let parent = refer_to_parent(ask, collection, &mut body).await?;
    if let Some(id) = uuid(key) {
        set_id(&mut body, id)?;
        return prepare(ask, collection.kind, body, id, IfExists::Replace).await;
    }
    let Some(field) = schema::of(collection.kind).endpoint_key else {
        let message = format!("'{key}' is no id, and {} have no names", collection.path());
        return Err(CoreError::Argument(message));
    };
    match body[field].as_str() {
        None if body[field].is_null() => body[field] = json!(key),
        Some(other) if !same_name(collection.kind, parent, key, other) => {
            let message = format!("the body has the {field} '{other}', the path has '{key}'");
            return Err(CoreError::Argument(message));
        }
        // Anything but a text is for the schema to refuse.
        _ => {}
    }
    let found = by_key(ask, collection.kind, parent, key).await?;
    let found = found.as_ref().and_then(id);
    if let Some(id) = found {
        set_id(&mut body, id)?;
    }
    let id = found.unwrap_or_else(Uuid::new_v4);
    prepare(ask, collection.kind, body, id, IfExists::Replace).await
}

/// PATCH: an entity that is there, with some fields changed.
pub(super) async fn change(
    ask: &Ask,
    collection: &Collection,
    key: &str,
    changes: Value,
) -> Result<Value, CoreError> {
    let mut body = super::read::one(ask, collection, key).await?;
    let id = id(&body).ok_or(CoreError::Internal)?;
    let hashed = collection.kind == Kind::BasicAuth && changes["password"].is_null();
    merge(&mut body, changes);
    set_id(&mut body, id)?;
    let kind = collection.kind;
    if !hashed {
        let put = prepare(ask, kind, body, id, IfExists::Replace).await?;
        return written(ask, put).await;
    }
    // The stored password is a hash already.
    let entity = checked(kind, body, ask.app.plugins)?;
    written(ask, indexed(kind, entity, id, IfExists::Replace)?).await
}

/// Puts the members of `changes` into `body`, records within records; a reference as a whole.
fn merge(body: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else {
        return;
    };
    for (name, change) in changes {
        let is_reference = change.get("id").is_some();
        match &mut body[name.as_str()] {
            old @ Value::Object(_) if change.is_object() && !is_reference => merge(old, change),
            old => *old = change,
        }
    }
}

/// DELETE: gone afterwards, whether it was there or not; clients repeat what they are unsure of.
pub(super) async fn delete(ask: &Ask, collection: &Collection, key: &str) -> Result<(), CoreError> {
    let parent = match &collection.parent {
        Some(parent) => match parent_id(ask, parent).await {
            Ok(id) => Some((parent.field.to_owned(), id)),
            Err(CoreError::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        },
        None => None,
    };
    let below = parent.as_ref().map(|(_, id)| *id);
    let found = by_key(ask, collection.kind, below, key).await?;
    let found = found.filter(|entity| belongs(entity, parent.as_ref()));
    let Some(id) = found.as_ref().and_then(id) else {
        return Ok(());
    };
    match ask
        .app
        .store
        .delete(ask.cp, &ask.actor, collection.kind, id)
        .await
    {
        Ok(_) | Err(StoreError::NotFound) => Ok(()),
        Err(error) => Err(CoreError::Store(error, Some(collection.kind))),
    }
}

/// Sets the reference to the parent of the path; its id.
async fn refer_to_parent(
    ask: &Ask,
    collection: &Collection,
    body: &mut Value,
) -> Result<Option<Uuid>, CoreError> {
    let Some(parent) = &collection.parent else {
        return Ok(None);
    };
    let id = parent_id(ask, parent).await?;
    body[parent.field] = json!({"id": id});
    Ok(Some(id))
}

/// Sets the id of the path, unless the body has another one.
fn set_id(body: &mut Value, id: Uuid) -> Result<(), CoreError> {
    match body["id"].as_str() {
        Some(other) if uuid(other) != Some(id) => {
            return Err(CoreError::Argument(format!(
                "the body has the id '{other}', the path has '{id}'"
            )));
        }
        None if !body["id"].is_null() => {} // for the schema to refuse
        _ => body["id"] = json!(id),
    }
    Ok(())
}

/// Whether a body's name is the one of the path; a target may lack its port in either.
fn same_name(kind: Kind, upstream: Option<Uuid>, key: &str, other: &str) -> bool {
    match (kind, upstream) {
        (Kind::Target, Some(upstream)) => {
            schema::unique_target(upstream, key) == schema::unique_target(upstream, other)
        }
        _ => key == other,
    }
}

/// Checks an entity and makes it ready to be stored. `fresh` is its id if the body brings none.
async fn prepare(
    ask: &Ask,
    kind: Kind,
    body: Value,
    fresh: Uuid,
    if_exists: IfExists,
) -> Result<Put, CoreError> {
    let mut entity = checked(kind, body, ask.app.plugins)?;
    if kind == Kind::BasicAuth && !asks(ask, "skip_hash") {
        basic_auth::hash_entity(&mut entity);
    }
    if kind == Kind::Service {
        authorities_are_there(ask, &entity).await?;
    }
    if kind == Kind::Plugin {
        let (store, plugins) = (&ask.app.store, ask.app.plugins);
        complete_plugin(store, ask.cp, plugins, &mut entity, fresh).await?;
    }
    indexed(kind, entity, fresh, if_exists)
}

/// Stores what [`prepare`] made.
async fn written(ask: &Ask, put: Put) -> Result<Value, CoreError> {
    let kind = put.kind;
    let stored = ask.app.store.put(ask.cp, &ask.actor, put).await;
    stored
        .map(|stored| stored.body)
        .map_err(|error| CoreError::Store(error, Some(kind)))
}

/// A list of ids is no reference that the store knows of.
async fn authorities_are_there(ask: &Ask, service: &Value) -> Result<(), CoreError> {
    let ids = service["ca_certificates"].as_array().into_iter().flatten();
    for (at, id) in ids.enumerate() {
        let found = match id.as_str().and_then(uuid) {
            Some(id) => ask.stored(Kind::CaCertificate, id).await?,
            None => None,
        };
        if found.is_none() {
            let path = Path::root().key("ca_certificates").index(at);
            let message = format!("there is no CA certificate {id}");
            return Err(vec![FieldError::field(path, message)].into());
        }
    }
    Ok(())
}

/// Whether the query has this flag.
fn asks(ask: &Ask, flag: &str) -> bool {
    let found = ask.query.iter().find(|(name, _)| name == flag);
    found.is_some_and(|(_, value)| value == "true")
}

/// An entity that passed the schema, and that gateways act on in all its fields.
pub(super) fn checked(
    kind: Kind,
    body: Value,
    plugins: &dyn PluginSchemas,
) -> Result<Value, CoreError> {
    Ok(schema::parse_entity(kind, body, plugins)?)
}

/// Stores an entity that passed the schema, with what the writer adds: id, key, times.
pub(super) async fn put(
    store: &Store,
    cp: Uuid,
    actor: &Actor,
    kind: Kind,
    entity: Value,
    fresh: Uuid,
    if_exists: IfExists,
) -> Result<Value, CoreError> {
    let put = indexed(kind, entity, fresh, if_exists)?;
    let stored = store.put(cp, actor, put).await;
    stored
        .map(|stored| stored.body)
        .map_err(|error| CoreError::Store(error, Some(kind)))
}

/// An entity that passed the schema, with what the writer adds, and what it is found by.
pub(super) fn indexed(
    kind: Kind,
    mut entity: Value,
    fresh: Uuid,
    if_exists: IfExists,
) -> Result<Put, CoreError> {
    let random_keys = [secret(32)?, secret(32)?];
    let now = now_secs();
    let fill = schema::Fill {
        id: fresh,
        created_at: now,
        updated_at: now,
        random_keys: [&random_keys[0], &random_keys[1]],
    };
    fill.apply(kind, &mut entity);
    let id = id(&entity).ok_or(CoreError::Internal)?;
    Ok(Put {
        if_exists,
        ..Put::of(kind, id, entity)
    })
}

fn now_secs() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_what_it_names() {
        let mut body = json!({
            "name": "a", "tags": ["x"], "config": {"limit": 1, "by": "ip"},
            "service": {"id": "1"}, "headers": null,
        });
        merge(
            &mut body,
            json!({
                "tags": [], "config": {"limit": 2}, "service": {"id": "2"},
                "headers": {"h": ["v"]}, "name": null,
            }),
        );
        let expected = json!({
            "name": null, "tags": [], "config": {"limit": 2, "by": "ip"},
            "service": {"id": "2"}, "headers": {"h": ["v"]},
        });
        assert_eq!(body, expected);
    }
}
