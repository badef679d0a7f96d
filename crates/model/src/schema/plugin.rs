//! Plugin schemas: what the crate that has the plugins tells about them, and the document that
//! clients get.

use serde_json::{Value, json};

use super::documents::lua_field;
use super::error::{FieldError, Path};
use super::field::{Field, OnDelete, each};
use super::record::Record;
use crate::Kind;

/// The protocols a plugin runs on unless it says otherwise.
pub const PROTOCOLS_HTTP: &[&str] = &["grpc", "grpcs", "http", "https"];

/// What this build knows about its plugins.
pub trait PluginSchemas: Send + Sync {
    /// Names of all plugins, such as `key-auth`.
    fn names(&self) -> Vec<&str>;

    /// The members of `config`; `None` for a plugin that this build does not have.
    fn config(&self, plugin: &str) -> Option<&Record>;

    /// Whether it may be set on one consumer.
    fn consumer_scope(&self, plugin: &str) -> bool;

    /// The protocols it runs on; default and only valid values of the entity's `protocols`.
    fn protocols(&self, plugin: &str) -> &'static [&'static str] {
        let _ = plugin;
        PROTOCOLS_HTTP
    }
}

/// The whole record of one plugin: the entity's members with `config`, `protocols` and
/// `consumer` as this plugin has them.
///
/// # Errors
/// A field error on `name` if this build does not have the plugin.
pub(super) fn plugin_record(name: &str, plugins: &dyn PluginSchemas) -> Result<Record, FieldError> {
    let Some(config) = plugins.config(name) else {
        let message =
            format!("plugin '{name}' not enabled; add it to the 'plugins' configuration property");
        return Err(FieldError::field(Path::root().key("name"), message));
    };
    let protocols = plugins.protocols(name);
    let consumer = Field::foreign("consumer", Kind::Consumer).on_delete(OnDelete::Cascade);
    let consumer = match plugins.consumer_scope(name) {
        true => consumer,
        false => consumer.null(),
    };
    Ok(Record::new([
        Field::uuid("id").auto(),
        Field::string("name").required(),
        Field::string("instance_name").unique(),
        Field::integer("created_at").auto().timestamp(),
        Field::integer("updated_at").auto().timestamp(),
        Field::foreign("route", Kind::Route).on_delete(OnDelete::Cascade),
        Field::foreign("service", Kind::Service).on_delete(OnDelete::Cascade),
        consumer,
        Field::record("config", config.clone()).required(),
        Field::set("protocols", each::string().one_of(protocols))
            .required()
            .default(json!(protocols)),
        Field::boolean("enabled").required().default(json!(true)),
        Field::set("tags", each::string()),
    ]))
}

/// The document of `schemas/plugins/{name}`: scope fields, `protocols` and `config` in Kong's
/// schema form.
///
/// # Errors
/// A field error on `name` if this build does not have the plugin.
pub fn plugin_schema(name: &str, plugins: &dyn PluginSchemas) -> Result<Value, FieldError> {
    let record = plugin_record(name, plugins)?;
    let shown = ["consumer", "service", "route", "protocols", "config"];
    let fields: Vec<Value> = shown
        .iter()
        .filter_map(|name| record.field(name))
        .map(|field| json!({ field.name: lua_field(field) }))
        .collect();
    Ok(json!({ "fields": fields, "entity_checks": [] }))
}
