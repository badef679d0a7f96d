//! What the plugins of one gateway share whatever its configuration is.

use crate::log_queue::{LogQueues, NoQueues};
use crate::proxy_cache::Cache;
use crate::rate_limiting::Counters;
use crate::redis::{NoRedis, Redis};

/// Counters, stored responses and ways out of one gateway; all of its cores share them.
pub struct Node {
    /// Requests counted by the rate limits of this gateway.
    pub counters: Counters,
    /// Responses kept by `proxy-cache`.
    pub cache: Cache,
    /// The way to Redis servers.
    pub redis: Box<dyn Redis>,
    /// The way to sinks of log plugins.
    pub log_queues: Box<dyn LogQueues>,
}

impl Node {
    /// Nothing counted and nothing stored yet; at most `cache_bytes_max` of responses are kept.
    pub fn new(
        redis: Box<dyn Redis>,
        log_queues: Box<dyn LogQueues>,
        cache_bytes_max: u64,
    ) -> Node {
        Node {
            counters: Counters::default(),
            cache: Cache::new(cache_bytes_max),
            redis,
            log_queues,
        }
    }
}

impl Default for Node {
    /// A gateway that reaches no server, drops what is logged and keeps 16 MiB of responses.
    fn default() -> Node {
        Node::new(Box::new(NoRedis), Box::new(NoQueues), 16 << 20)
    }
}
