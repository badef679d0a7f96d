//! Secrets in configurations of plugins that the client did not give.

use sallyport_model::schema::PluginSchemas;
use sallyport_model::{Kind, schema};
use sallyport_store::Store;
use serde_json::Value;
use uuid::Uuid;

use super::error::CoreError;
use super::read::uuid;
use crate::identity::random_text;

/// A fresh random secret of this many letters and digits.
pub(super) fn secret(length: usize) -> Result<String, CoreError> {
    random_text(length).map_err(|error| {
        tracing::error!(%error, "the system gave no random bytes");
        CoreError::Internal
    })
}

/// Completes a checked plugin whose schema has generated fields. A secret that an older version of
/// the plugin has is kept: to replace it is to end what depends on it, such as all sessions.
///
/// `fresh` is the id of the plugin if it brings none.
pub(super) async fn complete_plugin(
    store: &Store,
    cp: Uuid,
    plugins: &dyn PluginSchemas,
    plugin: &mut Value,
    fresh: Uuid,
) -> Result<(), CoreError> {
    let config = plugin["name"]
        .as_str()
        .and_then(|name| plugins.config(name));
    let unset: Vec<&str> = config
        .into_iter()
        .flat_map(schema::generated_in)
        .filter(|field| plugin["config"][*field].is_null())
        .collect();
    if unset.is_empty() {
        return Ok(());
    }
    let id = plugin["id"].as_str().and_then(uuid).unwrap_or(fresh);
    let before = store.get(cp, Kind::Plugin, id).await?.unwrap_or_default();
    for field in unset {
        plugin["config"][field] = match &before["config"][field] {
            Value::Null => Value::from(secret(44)?),
            kept => kept.clone(),
        };
    }
    Ok(())
}
