//! `opentelemetry`: tells a collector the spans of sampled requests, over OTLP/HTTP.

mod settings;
mod spans;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use http::{HeaderName, HeaderValue};
use sallyport_model::schema::Record;
use sallyport_wire::opentelemetry::{Attribute, LogRecord, export};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::exchange::{Env, Exchange, Flow, Handler, ResponseHead};
use crate::finished::Finished;
use crate::log_lines::LogLines;
use crate::log_queue::{Destination, HttpSink, Limits, Outlet, QueueConfig, QueueSpec, Sink};
use crate::node::{Facts, Tracing};
use crate::trace::{Context, Propagation, TraceHeaders, hex, propagate, span_id, trace_id};
use crate::{CompileError, Plugin};

use settings::Config;

const ABOUT: &str = "\
Which spans there are says `tracing_instrumentations` in `kong.conf`; while it is `off`, as by default, trace headers
are passed on, marked as not sampled, and nothing is sent.

| span | needs | attributes |
|---|---|---|
| `kong` (server) | `request`, or any other | `http.method`, `http.url`, `http.host`, `http.scheme`, `http.flavor`, `http.client_ip`, `net.peer.ip`, `kong.request.id`, `http.status_code`, `http.route` |
| `kong.router` | `router` | |
| `kong.access.plugin.<name>`, `kong.header_filter.plugin.<name>` | `plugin_access`, `plugin_header_filter` | |
| `kong.dns` (client) | `dns_query` | `dns.record.domain`, `dns.record.port`, `dns.record.ip` |
| `kong.balancer` (client), one for each try | `balancer` | `try_count`, `net.peer.ip`, `net.peer.port`, `net.peer.name`; `http.status_code` of a try that failed |

A caller's decision not to sample counts. Otherwise `sampling_rate` or, without it, `tracing_sampling_rate` of
`kong.conf` decides by the trace's id, so gateways in a row with one rate decide the same.

Requests go as protobuf (`application/x-protobuf`). The collector's certificate is verified against
`lua_ssl_trusted_certificate`. How spans wait: [log queues](../log_queue.md); more on traces:
[Tracing](../tracing.md).

With `logs_endpoint` the lines of the gateway's own log go there, as far as its level lets them: each in the log phase of
the request that it tells of, with the id of its trace and `request.id`; others in the log phase of whatever request
comes next. They are kept once a plugin with `logs_endpoint` is in force. At most 1,000 wait for a log phase; later ones are
dropped until there is room. Fields of a line are attributes (Kong has places in its source there). Lines about queues of
log plugins are not sent, so that a collector that is gone is not told so.
";

/// The plugin, as the registry lists it.
pub(crate) struct OpenTelemetry;

impl Plugin for OpenTelemetry {
    fn name(&self) -> &'static str {
        "opentelemetry"
    }

    fn priority(&self) -> i32 {
        14
    }

    fn summary(&self) -> &'static str {
        "tells an OpenTelemetry collector where the time of requests went"
    }

    fn about(&self) -> &'static str {
        ABOUT
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
        let name = |name: &str| name.parse::<HeaderName>().map_err(CompileError::value);
        let [traces, logs] = config.sinks()?;
        if logs.is_some() {
            // a line may be older than the log phase of the first request
            LogLines::of_process().want();
        }
        let resource = config.resource_attributes.unwrap_or_default();
        let way = |sink: Option<HttpSink>, what: &str| {
            Some(Way {
                name: format!("{id}:{what}"),
                limits: limits.clone(),
                sink: sink?,
                resource: resource.clone(),
                outlet: OnceLock::new(),
            })
        };
        Ok(Box::new(Active {
            propagation,
            sampling_rate: config.sampling_rate,
            trace_header: config
                .http_response_header_for_traceid
                .as_deref()
                .map(name)
                .transpose()?,
            traces: way(traces, "traces"),
            logs: way(logs, "logs"),
        }))
    }
}

struct Active {
    propagation: Propagation,
    sampling_rate: Option<f64>,
    trace_header: Option<HeaderName>,
    traces: Option<Way>,
    logs: Option<Way>,
}

/// The way to one endpoint.
struct Way {
    /// Of the queue.
    name: String,
    limits: Limits,
    sink: HttpSink,
    resource: serde_json::Map<String, Value>,
    /// Opened once there is something to send: requests say what the node is.
    outlet: OnceLock<Outlet>,
}

/// The trace of a request under way.
#[derive(Clone, Debug)]
struct Trace {
    id: u128,
    /// The gateway's own span.
    root: u64,
    parent: Option<u64>,
    /// The span of the last try to reach the upstream, which upstreams get as their parent.
    balancer: u64,
    sampled: bool,
}

impl Way {
    fn outlet(&self, facts: &Facts) -> &Outlet {
        self.outlet.get_or_init(|| {
            let resource = resource(facts, &self.resource);
            Outlet::new(QueueSpec {
                plugin: OpenTelemetry.name(),
                name: self.name.clone(),
                limits: self.limits.clone(),
                destination: Destination::new(Sink::Http(self.sink.clone()), move |batch| {
                    vec![export(&resource, batch).into()]
                }),
            })
        })
    }
}

impl Active {
    /// Sends the lines of the log that wait for this request.
    fn tell_lines(&self, logs: &Way, trace: &Trace, finished: &Finished<'_>, env: &Env<'_>) {
        for line in env
            .node
            .log_lines
            .take(finished.request_id, finished.ended_ns)
        {
            let text = |(name, value): &(&'static str, String)| {
                (*name, Attribute::Text(value.clone().into()))
            };
            let mut attributes: Vec<_> = line.fields.iter().map(text).collect();
            if let Some(id) = &line.request_id {
                attributes.push(("request.id", Attribute::Text(id.into())));
            }
            let is_own = line.request_id.as_deref() == Some(finished.request_id);
            let record = LogRecord {
                time_ns: line.time_ns,
                severity: (line.severity as u32, line.severity.as_str()),
                body: &line.message,
                attributes,
                trace: is_own.then_some((trace.id, trace.sampled)),
            };
            logs.outlet(&env.node.facts).push(record.encode(), env);
        }
    }

    fn begin(&self, found: &Context, tracing: &Tracing) -> (Trace, Context) {
        let id = found.trace_id.unwrap_or_else(|| trace_id(16));
        let rate = self.sampling_rate.unwrap_or(tracing.sampling_rate);
        let sampled = tracing.request && sampled(id, found.sampled, rate);
        let trace = Trace {
            id,
            root: span_id(),
            parent: found.span_id.or(found.parent_id),
            balancer: span_id(),
            sampled,
        };
        let context = Context {
            trace_id: Some(id),
            span_id: Some(match tracing.balancer {
                true => trace.balancer,
                false => trace.root,
            }),
            parent_id: match tracing.balancer {
                true => Some(trace.root),
                false => trace.parent,
            },
            sampled: Some(sampled),
            ..found.clone()
        };
        (trace, context)
    }
}

/// Whether a trace is kept. Source: `get_sampling_decision` of Kong's tracer.
fn sampled(id: u128, caller: Option<bool>, rate: f64) -> bool {
    if caller == Some(false) || rate <= 0.0 {
        return caller == Some(true);
    }
    // the last 63 bits of the id, as one number from 0 to 1
    rate >= 1.0 || ((id as u64 >> 1) as f64) < rate * (1_u64 << 63) as f64
}

/// What the gateway is, under what the configuration says it is.
fn resource(facts: &Facts, more: &serde_json::Map<String, Value>) -> Vec<(String, String)> {
    let own = [
        ("service.name", "kong".to_owned()),
        ("service.instance.id", facts.id.to_string()),
        ("service.version", facts.version.clone()),
    ];
    let own = own
        .into_iter()
        .filter(|(name, _)| !more.contains_key(*name))
        .map(|(name, value)| (name.to_owned(), value));
    let more = more
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    own.chain(more).collect()
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let mut trace = None;
        propagate(&self.propagation, exchange, |found| {
            let (begun, context) = self.begin(found, &env.node.facts.tracing);
            trace = Some(begun);
            context
        });
        exchange.state.insert(trace.expect("it was begun"));
        Flow::Continue
    }

    fn filters_headers(&self) -> bool {
        self.trace_header.is_some()
    }

    fn header_filter(&self, exchange: &mut Exchange, response: &mut ResponseHead<'_>) {
        let trace = exchange.state.get::<Trace>();
        if let (Some(name), Some(trace)) = (&self.trace_header, trace)
            && let Ok(value) = HeaderValue::from_str(&hex(trace.id, 16))
        {
            response.headers.append(name, &value);
        }
    }

    fn traces(&self) -> bool {
        true
    }

    fn logs(&self) -> bool {
        true
    }

    fn log(&self, exchange: &mut Exchange, finished: &Finished<'_>, env: &Env<'_>) {
        let facts = &env.node.facts;
        let trace = match exchange.state.remove::<Trace>() {
            Some(trace) => trace,
            // no route matched, so nothing went upstream
            None => self.begin(&Context::default(), &facts.tracing).0,
        };
        if let Some(logs) = &self.logs {
            self.tell_lines(logs, &trace, finished, env);
        }
        let Some(traces) = self.traces.as_ref().filter(|_| trace.sampled) else {
            return;
        };
        for span in spans::all(&trace, &facts.tracing, exchange, finished) {
            traces.outlet(facts).push(span, env);
        }
    }
}
