//! Schema documents, validation without writing, and what this gateway version is.

use sallyport_model::{Kind, schema};
use serde_json::{Map, Value, json};

use super::Ask;
use super::error::CoreError;
use crate::KONG_VERSION;
use crate::app::App;

/// The answer on the prefix itself, in the shape of Kong's `GET /`: decK reads the version.
pub(super) async fn root(ask: &Ask) -> Value {
    let names = ask.app.plugins.names();
    let available: Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!({"version": KONG_VERSION})))
        .collect();
    json!({
        "version": KONG_VERSION,
        "edition": "community",
        "tagline": "Sallyport control plane",
        "node_id": ask.app.node_id,
        "configuration": {"database": "embedded", "role": "control_plane"},
        "plugins": {"available_on_server": available, "enabled_in_cluster": []},
    })
}

/// `schemas/plugins/{name}`.
pub(super) fn plugin(app: &App, name: &str) -> Result<Value, CoreError> {
    schema::plugin_schema(name, app.plugins)
        .map_err(|_| CoreError::NoSchema(format!("No plugin named '{name}'")))
}

/// `schemas/vaults/{name}`.
pub(super) fn vault(name: &str) -> Result<Value, CoreError> {
    let config = schema::vault_schema(name)
        .ok_or_else(|| CoreError::NoSchema(format!("No vault named '{name}'")))?;
    let config = schema::lua_schema(config);
    let mut field = json!({"type": "record", "required": true});
    field["fields"] = config["fields"].clone();
    Ok(json!({"name": name, "fields": [{"config": field}]}))
}

/// `schemas/{table}`.
pub(super) fn entity(table: &str) -> Result<Value, CoreError> {
    let kind = Kind::from_table(table)
        .ok_or_else(|| CoreError::NoSchema(format!("No entity named '{table}'")))?;
    Ok(schema::lua_schema(&schema::of(kind).record))
}

/// `v1/schemas/json/{singular}`.
pub(super) fn json(singular: &str) -> Result<Value, CoreError> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.singular() == singular);
    let kind = kind.ok_or_else(|| CoreError::NoSchema(format!("No entity named '{singular}'")))?;
    Ok(schema::json_schema(&schema::of(kind).record))
}

/// `schemas/{table}/validate`: whether an entity would pass, by itself.
pub(super) fn validate(app: &App, kind: Kind, body: Value) -> Result<(), CoreError> {
    super::write::checked(kind, body, app.plugins).map(drop)
}
