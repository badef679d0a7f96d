//! What a node's settings allow: its plugins (`plugins` in `kong.conf`), and what its router
//! reads (`router_flavor`).

use sallyport_model::RouterFlavor;
use sallyport_model::schema::{PluginSchemas, Record};
use sallyport_plugins::schemas;

use crate::conf::Conf;

/// Schemas of the plugins that may be configured here; the others are as unknown.
#[derive(Clone, Debug)]
pub(crate) struct Enabled {
    plugins: Vec<String>,
    flavor: RouterFlavor,
}

impl Enabled {
    /// What these settings allow.
    pub(crate) fn new(conf: &Conf) -> Enabled {
        Enabled {
            plugins: conf.plugins.clone(),
            flavor: conf.router_flavor,
        }
    }

    /// Every plugin that this build has.
    #[cfg(test)]
    pub(crate) fn all(flavor: RouterFlavor) -> Enabled {
        let plugins = schemas().names().into_iter().map(str::to_owned).collect();
        Enabled { plugins, flavor }
    }
}

impl PluginSchemas for Enabled {
    fn names(&self) -> Vec<&str> {
        self.plugins.iter().map(String::as_str).collect()
    }

    fn config(&self, plugin: &str) -> Option<&Record> {
        self.plugins
            .iter()
            .find(|name| *name == plugin)
            .and_then(|name| schemas().config(name))
    }

    fn absent(&self, plugin: &str) -> Option<&'static str> {
        schemas().absent(plugin)
    }

    fn protocols(&self, plugin: &str) -> &'static [&'static str] {
        schemas().protocols(plugin)
    }

    fn protocols_allowed(&self, plugin: &str) -> &'static [&'static str] {
        schemas().protocols_allowed(plugin)
    }

    fn consumer_scope(&self, plugin: &str) -> bool {
        schemas().consumer_scope(plugin)
    }

    fn router_flavor(&self) -> Option<RouterFlavor> {
        Some(self.flavor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_the_settings_leave_out_is_unknown() {
        let enabled = Enabled {
            plugins: vec!["key-auth".to_owned()],
            flavor: RouterFlavor::Expressions,
        };
        assert!(enabled.config("key-auth").is_some());
        assert!(schemas().config("rate-limiting").is_some());
        assert!(enabled.config("rate-limiting").is_none());
        assert_eq!(enabled.names(), ["key-auth"]);
    }
}
