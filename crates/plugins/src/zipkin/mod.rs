//! `zipkin`: tells a collector the spans of sampled requests, in Zipkin's JSON.

mod settings;
mod span;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use sallyport_model::schema::{PROTOCOLS, Record};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::exchange::{Env, Exchange, Flow, Handler, ResponseHead};
use crate::finished::Finished;
use crate::log_queue::{Destination, Outlet, QueueConfig, QueueSpec, Sink, array};
use crate::trace::{Context, Propagation, TraceHeaders, hex, propagate, span_id, trace_id};
use crate::{CompileError, Plugin};

use settings::Config;

const ABOUT: &str = "\
A sampled request becomes a span `<method>` of kind SERVER, a span `<method> (proxy)` below it, and one
`<method> (balancer try <n>)` for each try to reach the upstream. Upstreams get the proxy span as their parent, in the
trace headers that `propagation` says. A caller's decision to sample or not counts; else `sample_ratio` does.

Annotations of a phase, or tags with its milliseconds: rewrite (`krs`, `krf`), access (`kas`, `kaf`), header filter
(`khs`, `khf`), body (`kbs`, `kbf`). Here finding the route counts as rewrite.

Without `http_endpoint` trace headers are passed on and nothing is sent. The collector's certificate is verified against
`lua_ssl_trusted_certificate`. How spans wait: [log queues](../log_queue.md); more on traces:
[Tracing](../tracing.md).
";

/// The plugin, as the registry lists it.
pub(crate) struct Zipkin;

impl Plugin for Zipkin {
    fn name(&self) -> &'static str {
        "zipkin"
    }

    fn priority(&self) -> i32 {
        100_000
    }

    fn summary(&self) -> &'static str {
        "tells a Zipkin collector where the time of requests went"
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
        let propagation = TraceHeaders::deserialize(config)?.propagation()?;
        let config = Config::deserialize(config)?;
        let outlet = match &config.http_endpoint {
            None => None,
            Some(url) => Some(Outlet::new(QueueSpec {
                plugin: self.name(),
                name: id.to_string(),
                limits,
                destination: Destination::new(Sink::Http(config.sink(url)?), |batch| {
                    vec![array(batch)]
                }),
            })),
        };
        let name = |name: &str| name.parse::<HeaderName>().map_err(CompileError::value);
        Ok(Box::new(Active {
            outlet,
            propagation,
            tags_header: name(&config.tags_header)?,
            trace_header: config
                .http_response_header_for_traceid
                .as_deref()
                .map(name)
                .transpose()?,
            config,
        }))
    }
}

struct Active {
    /// `None` without a collector.
    outlet: Option<Outlet>,
    config: Config,
    propagation: Propagation,
    tags_header: HeaderName,
    trace_header: Option<HeaderName>,
}

/// The spans of a request under way.
#[derive(Clone, Debug)]
struct Spans {
    trace_id: String,
    /// The gateway's own.
    request: u64,
    parent: Option<u64>,
    proxy: u64,
    sampled: bool,
    /// What the request's headers say about it.
    tags: BTreeMap<String, String>,
}

impl Active {
    fn begin(&self, found: &Context, tags: BTreeMap<String, String>) -> (Spans, Context) {
        let bytes = self.config.traceid_byte_count;
        // ids of callers are of 16 bytes inside of Kong, whatever they had
        let (trace, shown_bytes) = match found.trace_id {
            Some(id) => (id, 16),
            None => (trace_id(bytes), bytes),
        };
        let (request, parent) = match found.span_id {
            Some(shared) if found.shared_span => (shared, found.parent_id),
            caller => (span_id(), caller),
        };
        let ratio = self.config.sample_ratio.unwrap_or(0.001);
        let sampled = found.sampled.unwrap_or_else(|| chance() < ratio);
        let spans = Spans {
            trace_id: hex(trace, shown_bytes),
            request,
            parent,
            proxy: span_id(),
            sampled,
            tags,
        };
        let context = Context {
            trace_id: Some(trace),
            span_id: Some(spans.proxy),
            parent_id: Some(request),
            sampled: Some(sampled),
            ..found.clone()
        };
        (spans, context)
    }
}

/// A number from 0 to 1, 1 not included.
fn chance() -> f64 {
    (span_id() >> 11) as f64 / (1_u64 << 53) as f64
}

/// `name=value; name=value`. Source: `request_tags.lua` of Kong's plugin.
fn request_tags<'a>(lines: impl Iterator<Item = &'a [u8]>) -> BTreeMap<String, String> {
    lines
        .filter_map(|line| std::str::from_utf8(line).ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|item| item.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
        .filter(|(name, value)| {
            !name.is_empty() && !value.is_empty() && !name.contains(char::is_whitespace)
        })
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, _: &Env<'_>) -> Flow {
        let tags = request_tags(exchange.request.headers.get_all(&self.tags_header));
        let mut spans = None;
        propagate(&self.propagation, exchange, |found| {
            let (begun, context) = self.begin(found, tags);
            spans = Some(begun);
            context
        });
        exchange.state.insert(spans.expect("it was begun"));
        Flow::Continue
    }

    fn filters_headers(&self) -> bool {
        self.trace_header.is_some()
    }

    fn header_filter(&self, exchange: &mut Exchange, response: &mut ResponseHead<'_>) {
        let trace = exchange.state.get::<Spans>().map(|spans| &spans.trace_id);
        if let (Some(name), Some(trace)) = (&self.trace_header, trace)
            && let Ok(value) = HeaderValue::from_str(trace)
        {
            response.headers.append(name, &value);
        }
    }

    fn traces(&self) -> bool {
        self.outlet.is_some()
    }

    fn logs(&self) -> bool {
        self.outlet.is_some()
    }

    fn log(&self, exchange: &mut Exchange, finished: &Finished<'_>, env: &Env<'_>) {
        let Some(outlet) = &self.outlet else { return };
        let spans = match exchange.state.remove::<Spans>() {
            Some(spans) => spans,
            // no route matched, so nothing went upstream
            None => self.begin(&Context::default(), BTreeMap::new()).0,
        };
        if !spans.sampled {
            return;
        }
        for span in span::all(&spans, &self.config, exchange, finished, &env.node.facts) {
            outlet.push(Bytes::from(span.to_string()), env);
        }
    }
}
