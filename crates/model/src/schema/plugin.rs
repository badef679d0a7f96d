//! Plugin schemas: what the crate that has the plugins tells about them, and the document that
//! clients get.

use serde_json::{Value, json};

use super::documents::lua_field;
use super::error::{FieldError, Path};
use super::field::{Field, OnDelete};
use super::plugins;
use super::record::Record;
use crate::{Kind, RouterFlavor};

/// Every protocol that routes and services may have.
pub const PROTOCOLS: &[&str] = super::services::PROTOCOLS;

/// The protocols a plugin runs on unless it says otherwise.
pub const PROTOCOLS_HTTP: &[&str] = &["grpc", "grpcs", "http", "https"];

/// What the node that entities are for knows and allows.
pub trait PluginSchemas: Send + Sync {
    /// Names of all plugins, such as `key-auth`.
    fn names(&self) -> Vec<&str>;

    /// The members of `config`; `None` for a plugin that this build does not have.
    fn config(&self, plugin: &str) -> Option<&Record>;

    /// Whether it may be set on one consumer, or on a consumer group.
    fn consumer_scope(&self, plugin: &str) -> bool;

    /// Why this build leaves out a plugin that Kong bundles; `None` for any other name.
    fn absent(&self, plugin: &str) -> Option<&'static str> {
        let _ = plugin;
        None
    }

    /// The protocols it runs on unless it says otherwise; default of the entity's `protocols`.
    fn protocols(&self, plugin: &str) -> &'static [&'static str] {
        let _ = plugin;
        PROTOCOLS_HTTP
    }

    /// The valid values of the entity's `protocols`; unless it says otherwise, only those of the
    /// default.
    fn protocols_allowed(&self, plugin: &str) -> &'static [&'static str] {
        self.protocols(plugin)
    }

    /// How the node reads routes; `None` for one that does not, such as a control plane.
    fn router_flavor(&self) -> Option<RouterFlavor> {
        None
    }
}

/// The whole record of one plugin: the entity's members with `config`, `protocols`,
/// `consumer` and `consumer_group` as this plugin has them.
///
/// # Errors
/// A field error on `name` if this build does not have the plugin.
pub(super) fn plugin_record(name: &str, known: &dyn PluginSchemas) -> Result<Record, FieldError> {
    let config = known.config(name).ok_or_else(|| not_enabled(name, known))?;
    let protocols = known.protocols(name);
    let consumer = Field::foreign("consumer", Kind::Consumer).on_delete(OnDelete::Cascade);
    let group = Field::foreign("consumer_group", Kind::ConsumerGroup).on_delete(OnDelete::Cascade);
    let (consumer, group) = match known.consumer_scope(name) {
        true => (consumer, group),
        false => (consumer.null(), group.null()),
    };
    let config = Field::record("config", config.clone()).required();
    let allowed = known.protocols_allowed(name);
    Ok(plugins::fields(consumer, group, config, protocols, allowed))
}

/// The error for a plugin that this build does not have.
pub(super) fn not_enabled(name: &str, known: &dyn PluginSchemas) -> FieldError {
    let message = match known.absent(name) {
        Some(reason) => format!("plugin '{name}' is not part of this build: {reason}"),
        None => {
            format!("plugin '{name}' not enabled; add it to the 'plugins' configuration property")
        }
    };
    FieldError::field(Path::root().key("name"), message)
}

/// The document of `schemas/plugins/{name}`: scope fields, `protocols` and `config` in Kong's
/// schema form.
///
/// # Errors
/// A field error on `name` if this build does not have the plugin.
pub fn plugin_schema(name: &str, plugins: &dyn PluginSchemas) -> Result<Value, FieldError> {
    let record = plugin_record(name, plugins)?;
    let shown = [
        "consumer",
        "consumer_group",
        "service",
        "route",
        "protocols",
        "config",
    ];
    let fields: Vec<Value> = shown
        .iter()
        .filter_map(|name| record.field(name))
        .map(|field| json!({ field.name: lua_field(field) }))
        .collect();
    Ok(json!({ "fields": fields, "entity_checks": [] }))
}
