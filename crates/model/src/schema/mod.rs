//! The one schema table: it validates and fills defaults, answers schema requests, and says what
//! is unique and what refers to what.
//!
//! One table for all three, because a field that is filled on write without the same default in
//! its schema document shows up in decK as a change for ever.

mod certificates;
mod checks;
mod consumer_groups;
mod consumers;
mod credentials;
#[cfg(test)]
mod deck_tests;
mod documents;
mod entity;
mod error;
mod field;
mod key_auths;
mod keys;
mod plugin;
mod plugins;
#[cfg(test)]
pub(crate) mod property_tests;
mod record;
mod references;
#[cfg(test)]
mod route_tests;
mod routes;
mod rules;
mod services;
#[cfg(test)]
mod table_tests;
mod targets;
#[cfg(test)]
pub(crate) mod tests;
mod upstreams;
mod validate;
mod vaults;

pub use documents::{json_schema, lua_schema};
pub use entity::reference;
pub use entity::{
    EntitySchema, Fill, Index, generated, generated_in, index, of, parse_entity, parse_entity_in,
    unique_child, unique_target,
};
pub use error::{ErrorKind, FieldError, Path, PathPart, nested};
pub use field::{Field, Foreign, OnDelete, Rule, Type, each};
pub use plugin::{PROTOCOLS, PROTOCOLS_HTTP, PluginSchemas, plugin_schema};
pub use record::{Alias, EntityCheck, Match, Record};
pub use references::{is_reference, resolve_references};
pub(crate) use validate::canonical_uuid;
pub use validate::{Mode, validate};
pub use vaults::{VAULTS, vault_schema};
