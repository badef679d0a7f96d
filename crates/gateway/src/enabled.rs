//! The plugins that a node's settings allow (`plugins` in `kong.conf`).

use sallyport_model::schema::{PluginSchemas, Record};
use sallyport_plugins::schemas;

/// Schemas of the plugins that may be configured here; the others are as unknown.
#[derive(Clone, Debug)]
pub(crate) struct Enabled(Vec<String>);

impl Enabled {
    /// Those with these names.
    pub(crate) fn new(names: &[String]) -> Enabled {
        Enabled(names.to_vec())
    }
}

impl PluginSchemas for Enabled {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    fn config(&self, plugin: &str) -> Option<&Record> {
        self.0
            .iter()
            .find(|name| *name == plugin)
            .and_then(|name| schemas().config(name))
    }

    fn consumer_scope(&self, plugin: &str) -> bool {
        schemas().consumer_scope(plugin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_the_settings_leave_out_is_unknown() {
        let enabled = Enabled::new(&["key-auth".to_owned()]);
        assert!(enabled.config("key-auth").is_some());
        assert!(schemas().config("rate-limiting").is_some());
        assert!(enabled.config("rate-limiting").is_none());
        assert_eq!(enabled.names(), ["key-auth"]);
    }
}
