//! What the plugins of one gateway share whatever its configuration is.

use std::sync::Arc;

use uuid::Uuid;

use crate::log_lines::LogLines;
use crate::log_queue::{LogQueues, NoQueues};
use crate::proxy_cache::Cache;
use crate::rate_limiting::{CountNodes, Counters, NoNodes};
use crate::redis::{NoRedis, Redis};

/// What a gateway says about itself, to sinks of metrics and traces.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The id of the node.
    pub id: Uuid,
    /// The name of the machine.
    pub hostname: String,
    /// The version it claims.
    pub version: String,
    /// What of a request becomes a span.
    pub tracing: Tracing,
}

/// What of a request becomes a span of `opentelemetry`: `tracing_instrumentations` and
/// `tracing_sampling_rate` of `kong.conf`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracing {
    /// Whether there are spans at all.
    pub request: bool,
    /// A span for finding the route.
    pub router: bool,
    /// A span for each try to reach the upstream.
    pub balancer: bool,
    /// A span for looking up the upstream's name.
    pub dns_query: bool,
    /// A span for each plugin before the request is sent on.
    pub plugin_access: bool,
    /// A span for each plugin on the way back.
    pub plugin_header_filter: bool,
    /// The part of traces that are kept where the caller does not say, 0 to 1.
    pub sampling_rate: f64,
}

/// Counters, stored responses and ways out of one gateway; all of its cores share them.
pub struct Node {
    /// Requests counted by the rate limits of this gateway.
    pub counters: Counters,
    /// Responses kept by `proxy-cache`.
    pub cache: Cache,
    /// The way to Redis servers.
    pub redis: Box<dyn Redis>,
    /// The way to the nodes that count for several gateways.
    pub nodes: Box<dyn CountNodes>,
    /// The way to sinks of log plugins.
    pub log_queues: Box<dyn LogQueues>,
    /// Lines of its own log that are to be sent on.
    pub log_lines: Arc<LogLines>,
    /// What it says about itself.
    pub facts: Facts,
}

impl Node {
    /// Nothing counted and nothing stored yet; at most `cache_bytes_max` of responses are kept.
    pub fn new(
        redis: Box<dyn Redis>,
        log_queues: Box<dyn LogQueues>,
        cache_bytes_max: u64,
        facts: Facts,
    ) -> Node {
        Node {
            counters: Counters::default(),
            cache: Cache::new(cache_bytes_max),
            redis,
            nodes: Box::new(NoNodes),
            log_queues,
            log_lines: LogLines::of_process().clone(),
            facts,
        }
    }

    /// The same, with a way to nodes that count.
    pub fn counting_on(self, nodes: Box<dyn CountNodes>) -> Node {
        Node { nodes, ..self }
    }
}

impl Default for Node {
    /// A gateway that reaches no server, drops what is logged and keeps 16 MiB of responses.
    fn default() -> Node {
        let facts = Facts {
            id: Uuid::nil(),
            hostname: "gate.example".to_owned(),
            version: "3.9.1".to_owned(),
            tracing: Tracing::default(),
        };
        Node {
            log_lines: Arc::default(),
            ..Node::new(Box::new(NoRedis), Box::new(NoQueues), 16 << 20, facts)
        }
    }
}
