//! Gateway plugins: one file each, with its configuration, phases, docs and tests.
//!
//! [`ALL`] is the registry; the schema that the control plane validates with, the handler that
//! the gateway runs and the list of plugins a gateway reports all come from it.

mod absent;
mod acl;
mod arguments;
mod arrival;
mod auth;
mod basic_auth;
mod bot_detection;
mod checks;
mod correlation_id;
mod cors;
mod endpoint;
mod exchange;
mod fields;
mod file_log;
mod finished;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hmac_auth;
mod http_log;
mod identities;
pub mod ids;
mod ip_restriction;
mod jwt;
mod key_auth;
mod listed;
mod log_lines;
pub mod log_queue;
pub mod metrics;
mod multipart;
mod node;
mod observing;
mod opentelemetry;
mod params;
mod prometheus;
mod proxy_cache;
mod rate_limiting;
mod redirect;
mod redis;
mod reference;
mod request_size_limiting;
mod request_termination;
mod request_transformer;
mod response_ratelimiting;
mod response_transformer;
mod schemas;
mod session;
mod statsd;
mod syslog;
mod tcp_log;
#[cfg(test)]
mod testing;
mod trace;
#[cfg(test)]
mod trial;
mod udp_log;
mod zipkin;

use sallyport_model::schema::{PROTOCOLS_HTTP, Record};
use serde_json::Value;
use uuid::Uuid;

pub use absent::{ABSENT, absent};
pub use arrival::{Arrival, Arriving};
pub use endpoint::Endpoint;
pub use exchange::{
    BodyUse, Captures, Credential, Env, Exchange, Flow, Handler, Reply, ReplyBody, Request,
    RequestBody, ResponseHead, Resume,
};
pub use fields::{Fields, decimal};
pub use finished::{
    Entity, Finished, Latencies, LogEntry, Part, PartOf, ResponseSource, StreamSession, TlsSession,
    Try,
};
pub use identities::{Consumer, Identities, IdentityEdits, Owner};
pub use log_lines::{LogLine, LogLines, Severity};
pub use node::{Facts, Node, Tracing};
pub use observing::observes;
pub use proxy_cache::Cache;
pub use rate_limiting::{CountAnswer, CountError, CountNodes, Counters};
pub use redis::{Redis, RedisAnswer, RedisCommand, RedisError, RedisServer, RedisTls, RedisValue};
pub use reference::{page, scopes, table};
pub use schemas::{Schemas, schemas};

/// Every plugin of this build, those that run first at the top; a new one is one file and one
/// line here.
#[rustfmt::skip] // a line each
pub const ALL: &[&dyn Plugin] = &[
    &correlation_id::CorrelationId,
    &zipkin::Zipkin,
    &bot_detection::BotDetection,
    &cors::Cors,
    &session::Session,
    &jwt::Jwt,
    &key_auth::KeyAuth,
    &basic_auth::BasicAuth,
    &hmac_auth::HmacAuth,
    &ip_restriction::IpRestriction,
    &request_size_limiting::RequestSizeLimiting,
    &acl::Acl,
    &rate_limiting::RateLimiting,
    &response_ratelimiting::ResponseRatelimiting,
    &request_transformer::RequestTransformer,
    &response_transformer::ResponseTransformer,
    &redirect::Redirect,
    &proxy_cache::ProxyCache,
    &opentelemetry::OpenTelemetry,
    &prometheus::Prometheus,
    &http_log::HttpLog,
    &statsd::Statsd,
    &file_log::FileLog,
    &udp_log::UdpLog,
    &tcp_log::TcpLog,
    &syslog::Syslog,
    &request_termination::RequestTermination,
];

/// A plugin of this build.
pub trait Plugin: Sync {
    /// Its name in configurations.
    fn name(&self) -> &'static str;

    /// Its place in every phase, larger first. Source: Kong's bundled plugins.
    fn priority(&self) -> i32;

    /// What it does, in one sentence without a full stop; starts in lower case.
    fn summary(&self) -> &'static str;

    /// What its reference page says below the fields, in Markdown: answers, headers, limits.
    fn about(&self) -> &'static str {
        ""
    }

    /// The protocols it is configured for if nothing else is said.
    fn protocols(&self) -> &'static [&'static str] {
        PROTOCOLS_HTTP
    }

    /// The protocols it may be configured for. Source: the `protocols` of Kong's schemas.
    fn protocols_allowed(&self) -> &'static [&'static str] {
        self.protocols()
    }

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

    /// The same for the entity with this id: what a plugin keeps beyond a configuration may go by
    /// it.
    ///
    /// # Errors
    /// As [`compile`](Plugin::compile).
    fn compile_entity(&self, config: &Value, id: Uuid) -> Result<Box<dyn Handler>, CompileError> {
        _ = id;
        self.compile(config)
    }
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
