//! Gateway plugins: one file each, with its configuration, phases, docs and tests.
//!
//! [`ALL`] is the registry; the schema that the control plane validates with, the handler that
//! the gateway runs and the list of plugins a gateway reports all come from it.

mod exchange;
mod fields;
mod finished;
mod identities;
mod key_auth;
pub mod metrics;
mod rate_limiting;
mod schemas;
#[cfg(test)]
mod testing;

use sallyport_model::schema::Record;
use serde_json::Value;

pub use exchange::{
    BodyUse, Credential, Env, Exchange, Flow, Handler, Reply, ReplyBody, Request, RequestBody,
    ResponseHead, Resume,
};
pub use fields::{Fields, decimal};
pub use finished::{Entity, Finished, Latencies, LogEntry, ResponseSource, TlsSession, Try};
pub use identities::{Consumer, Identities, KeyOwner};
pub use rate_limiting::Counters;
pub use schemas::{Schemas, schemas};

/// Every plugin of this build, those that run first at the top; a new one is one file and one
/// line here.
pub const ALL: &[&dyn Plugin] = &[&key_auth::KeyAuth, &rate_limiting::RateLimiting];

/// A plugin of this build.
pub trait Plugin: Sync {
    /// Its name in configurations.
    fn name(&self) -> &'static str;

    /// Its place in every phase, larger first. Source: Kong's bundled plugins.
    fn priority(&self) -> i32;

    /// Whether it may be configured for one consumer.
    fn consumer_scope(&self) -> bool {
        true
    }

    /// The schema of its `config`.
    fn schema(&self) -> Record;

    /// Makes a configuration that passed the schema ready to run.
    ///
    /// # Errors
    /// A value that the schema lets through but that cannot be used.
    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError>;
}

/// The plugin with this name, if this build has it.
pub fn by_name(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.name() == name)
}

/// Why a configuration cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(String);

impl CompileError {
    fn value(error: impl std::fmt::Display) -> CompileError {
        CompileError(error.to_string())
    }
}

impl From<serde_json::Error> for CompileError {
    fn from(error: serde_json::Error) -> CompileError {
        CompileError(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_in_the_order_plugins_run() {
        assert!(
            ALL.windows(2)
                .all(|pair| pair[0].priority() > pair[1].priority())
        );
        for plugin in ALL {
            assert_eq!(
                by_name(plugin.name()).map(Plugin::name),
                Some(plugin.name())
            );
        }
    }
}
