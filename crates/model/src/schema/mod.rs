//! The one schema table: it validates and fills defaults, answers schema requests, and says what
//! is unique and what refers to what.
//!
//! One table for all three, because a field that is filled on write without the same default in
//! its schema document shows up in decK as a change for ever.

mod documents;
mod error;
mod field;
mod plugin;
mod record;
#[cfg(test)]
mod tests;
mod validate;

pub use documents::{json_schema, lua_schema};
pub use error::{ErrorKind, FieldError, Path, PathPart, nested};
pub use field::{Field, Foreign, OnDelete, Rule, Type, each};
pub use plugin::{PROTOCOLS_HTTP, PluginSchemas, plugin_schema};
pub use record::{Alias, EntityCheck, Match, Record};
pub use validate::{Mode, validate};
