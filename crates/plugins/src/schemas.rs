//! The plugins' schemas, as validation and schema requests ask for them.

use std::sync::OnceLock;

use sallyport_model::schema::{PROTOCOLS_HTTP, PluginSchemas, Record};

use crate::{ALL, Plugin, absent, by_name};

/// The schemas of [`ALL`], made once.
pub struct Schemas(Vec<(&'static str, Record)>);

/// The schemas of this build's plugins.
pub fn schemas() -> &'static Schemas {
    static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        Schemas(
            ALL.iter()
                .map(|plugin| (plugin.name(), plugin.schema()))
                .collect(),
        )
    })
}

impl PluginSchemas for Schemas {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    fn config(&self, plugin: &str) -> Option<&Record> {
        self.0
            .iter()
            .find(|(name, _)| *name == plugin)
            .map(|(_, config)| config)
    }

    fn absent(&self, plugin: &str) -> Option<&'static str> {
        absent(plugin)
    }

    fn protocols(&self, plugin: &str) -> &'static [&'static str] {
        by_name(plugin).map_or(PROTOCOLS_HTTP, Plugin::protocols)
    }

    fn protocols_allowed(&self, plugin: &str) -> &'static [&'static str] {
        by_name(plugin).map_or(PROTOCOLS_HTTP, Plugin::protocols_allowed)
    }

    fn consumer_scope(&self, plugin: &str) -> bool {
        by_name(plugin).is_some_and(|plugin| plugin.consumer_scope())
    }
}
