//! `statsd`: sends counters and timers of requests to a StatsD server.

mod message;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use sallyport_model::schema::{PROTOCOLS, Record};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::exchange::{Env, Exchange, Handler};
use crate::finished::Finished;
use crate::log_queue::{Destination, Outlet, QueueConfig, QueueSpec, Sink, lines, milliseconds};
use crate::{CompileError, Plugin};

use message::{Subject, TagStyle, USAGE};
use settings::Config;

const ABOUT: &str = "\
| metric | name below the prefix and the scope | kind |
|---|---|---|
| `request_count` | `request.count` | `c` |
| `latency`, `upstream_latency`, `kong_latency` | `latency`, `upstream_latency`, `kong_latency` | `ms` |
| `request_size`, `response_size` | `request.size`, `response.size` | `c` |
| `status_count` | `status.<status>` | `c` |
| `unique_users` | `user.uniques` | `s` |
| `request_per_user`, `status_count_per_user` | `user.<consumer>.request.count`, `user.<consumer>.status.<status>` | `c` |
| `status_count_per_workspace` | `workspace.<id>.status.<status>` | `c` |
| `status_count_per_user_per_route` | `route.<id>.user.<consumer>.status.<status>`, without the scope | `c` |
| `shdict_usage` | `node.<host>.shdict.kong_db_cache.capacity`, `….free_space`, without the scope | `g` |

The scope is `service.<service>`, with `_` for each dot of the service's name, or `global.unmatched`. With `tag_style`
there is no scope: tags tell service, route, workspace, consumer, node and status, and metrics of users and statuses are
left out, as is `shdict_usage`. That tells the bytes that [`proxy-cache`](proxy-cache.md) may keep and those that are free,
with the first request of each minute; Kong's other dictionaries do not exist here. What of a request has no value (such as the latency of an upstream that was not asked) is not sent.

Over UDP every metric is a datagram of its own, unless `udp_packet_size` lets several share one. How entries wait:
[log queues](../log_queue.md).
";

/// The plugin, as the registry lists it.
pub(crate) struct Statsd;

impl Plugin for Statsd {
    fn name(&self) -> &'static str {
        "statsd"
    }

    fn priority(&self) -> i32 {
        11
    }

    fn summary(&self) -> &'static str {
        "sends counters and timers of requests to a StatsD server"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        PROTOCOLS
    }

    fn schema(&self) -> Record {
        settings::schema()
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        self.compile_entity(config, Uuid::nil())
    }

    fn compile_entity(&self, config: &Value, id: Uuid) -> Result<Box<dyn Handler>, CompileError> {
        let limits = QueueConfig::deserialize(config)?.limits();
        let config = Config::deserialize(config)?;
        let (host, port) = (
            config
                .host
                .clone()
                .unwrap_or_else(|| "localhost".to_owned()),
            config.port.unwrap_or(8125),
        );
        let packet = config.packet_bytes();
        let timeout = milliseconds(None, 1000.0);
        let destination = match config.use_tcp.unwrap_or(false) {
            true => {
                let sink = Sink::Tcp {
                    host,
                    port,
                    timeout,
                    keepalive: milliseconds(None, 60_000.0),
                    tls: None,
                };
                Destination::new(sink, |batch| vec![lines(batch)])
            }
            false => {
                let sink = Sink::Udp {
                    host,
                    port,
                    timeout,
                };
                Destination::new(sink, move |batch| message::packets(batch, packet))
            }
        };
        Ok(Box::new(Active {
            outlet: Outlet::new(QueueSpec {
                plugin: self.name(),
                name: id.to_string(),
                limits,
                destination,
            }),
            usage: (config.metrics.iter())
                .any(|metric| metric.name == USAGE)
                .then(|| AtomicU64::new(u64::MAX)),
            statuses: config.statuses(),
            tag_style: config.tag_style.as_deref().and_then(TagStyle::named),
            config,
        }))
    }
}

struct Active {
    outlet: Outlet,
    config: Config,
    /// When usage was told last, in minutes since 1970; `None` if it is not asked for.
    usage: Option<AtomicU64>,
    /// Only these are told, if there are any.
    statuses: Option<Vec<(u16, u16)>>,
    tag_style: Option<TagStyle>,
}

impl Handler for Active {
    fn logs(&self) -> bool {
        true
    }

    fn log(&self, _: &mut Exchange, finished: &Finished<'_>, env: &Env<'_>) {
        let status = finished.status.as_u16();
        let told = self.statuses.as_ref().is_none_or(|ranges| {
            let mut ranges = ranges.iter();
            ranges.any(|(from, to)| (*from..=*to).contains(&status))
        });
        if !told {
            return;
        }
        let node = env.node.facts.hostname.replace('.', "_");
        let subject = Subject::new(finished, &node);
        let mut text = String::new();
        for metric in &self.config.metrics {
            message::write(&mut text, metric, &self.config, self.tag_style, &subject);
        }
        if let Some(told) = &self.usage
            && self.tag_style.is_none()
        {
            let minute = finished.ended_ns / 60_000_000_000;
            if told.swap(minute, Ordering::Relaxed) != minute {
                message::usage(&mut text, &self.config, &subject, &env.node.cache);
            }
        }
        if !text.is_empty() {
            text.pop(); // the last line feed
            self.outlet.push(text, env);
        }
    }
}
