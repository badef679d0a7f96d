//! Spans of one request, under Kong's names. Source: `tracing/instrumentation.lua`.

use std::borrow::Cow;

use http::Version;
use sallyport_wire::opentelemetry::{Attribute, Span, SpanKind};
use serde::Deserialize;

use super::Trace;
use crate::exchange::Exchange;
use crate::finished::{Entity, Finished, PartOf};
use crate::node::Tracing;
use crate::trace::span_id;

#[derive(Default, Deserialize)]
struct Route<'a> {
    #[serde(borrow, default)]
    paths: Option<Vec<Cow<'a, str>>>,
}

#[derive(Default, Deserialize)]
struct Service<'a> {
    #[serde(borrow, default)]
    host: Option<Cow<'a, str>>,
    port: Option<u16>,
}

fn read<'a, T: Deserialize<'a> + Default>(entity: Option<Entity<'a>>) -> T {
    let read = entity.and_then(|entity| serde_json::from_str(entity.json.get()).ok());
    read.unwrap_or_default()
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> Attribute<'a> {
    Attribute::Text(text.into())
}

/// All spans of a request that is over, encoded; the root is the first.
pub(super) fn all(
    trace: &Trace,
    tracing: &Tracing,
    exchange: &Exchange,
    finished: &Finished<'_>,
) -> Vec<Vec<u8>> {
    let mut all = vec![root(trace, exchange, finished).encode()];
    let service: Service<'_> = read(finished.service);
    let host = service.host.as_deref().unwrap_or_default();
    for part in finished.parts {
        let (wanted, name, kind) = match part.what {
            PartOf::Router => (tracing.router, "kong.router".into(), SpanKind::Internal),
            PartOf::AccessOf(plugin) => (
                tracing.plugin_access,
                Cow::from(format!("kong.access.plugin.{plugin}")),
                SpanKind::Internal,
            ),
            PartOf::HeaderFilterOf(plugin) => (
                tracing.plugin_header_filter,
                Cow::from(format!("kong.header_filter.plugin.{plugin}")),
                SpanKind::Internal,
            ),
            PartOf::Dns => (tracing.dns_query, "kong.dns".into(), SpanKind::Client),
            PartOf::Access | PartOf::HeaderFilter => continue,
        };
        if !wanted {
            continue;
        }
        let mut span = child(trace, span_id(), &name, kind, (part.start_ns, part.end_ns));
        if part.what == PartOf::Dns {
            span.attributes.push(("dns.record.domain", text(host)));
            if let Some(port) = service.port {
                let port = Attribute::Integer(port.into());
                span.attributes.push(("dns.record.port", port));
            }
            // the try that follows it says what came of it
            let next = finished.tries.iter().rev();
            let tried = next.filter(|tried| tried.balancer_start_ns <= part.start_ns);
            match tried.clone().next().and_then(|tried| tried.ip) {
                Some(ip) => span
                    .attributes
                    .push(("dns.record.ip", text(ip.to_string()))),
                None => span.failed = true,
            }
        }
        all.push(span.encode());
    }
    if !tracing.balancer {
        return all;
    }
    let last = finished.tries.len();
    for (number, tried) in (1..).zip(finished.tries) {
        let connected = tried.balancer_start_ns + tried.balancer_latency_ns;
        let failed = tried.state.is_some();
        // upstreams know the last one, which lasts as long as they answer
        let (id, end_ns) = match number == last {
            true if !failed => (trace.balancer, finished.ended_ns),
            true => (trace.balancer, connected),
            false => (span_id(), connected),
        };
        let start_ns = tried.balancer_start_ns;
        let mut span = child(
            trace,
            id,
            "kong.balancer",
            SpanKind::Client,
            (start_ns, end_ns),
        );
        let count = Attribute::Integer(number as i64);
        span.attributes.push(("try_count", count));
        if let Some(ip) = tried.ip {
            span.attributes.push(("net.peer.ip", text(ip.to_string())));
        }
        if let Some(port) = tried.port {
            let port = Attribute::Integer(port.into());
            span.attributes.push(("net.peer.port", port));
        }
        if !host.is_empty() {
            span.attributes.push(("net.peer.name", text(host)));
        }
        if let Some(code) = tried.code {
            let code = Attribute::Integer(code.into());
            span.attributes.push(("http.status_code", code));
        }
        span.failed = failed;
        all.push(span.encode());
    }
    all
}

/// A span below the root.
fn child<'a>(trace: &Trace, id: u64, name: &'a str, kind: SpanKind, ns: (u64, u64)) -> Span<'a> {
    Span {
        trace_id: trace.id,
        span_id: id,
        parent_span_id: Some(trace.root),
        name,
        kind,
        start_ns: ns.0,
        end_ns: ns.1,
        attributes: Vec::new(),
        failed: false,
    }
}

fn root<'a>(trace: &Trace, exchange: &Exchange, finished: &'a Finished<'_>) -> Span<'a> {
    let scheme = if finished.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let target = finished.uri.path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    let flavor = match exchange.request.version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2.0",
        _ => "1.1",
    };
    let route: Route<'_> = read(finished.route);
    let path = route.paths.into_iter().flatten().next();
    let status = Attribute::Integer(finished.status.as_u16().into());
    Span {
        trace_id: trace.id,
        span_id: trace.root,
        parent_span_id: trace.parent,
        name: "kong",
        kind: SpanKind::Server,
        start_ns: finished.started_ns,
        end_ns: finished.ended_ns,
        attributes: vec![
            ("http.method", text(finished.method.as_str())),
            (
                "http.url",
                text(format!("{scheme}://{}{target}", finished.host)),
            ),
            ("http.host", text(finished.host)),
            ("http.scheme", text(scheme)),
            ("http.flavor", text(flavor)),
            ("http.client_ip", text(exchange.client_ip.to_string())),
            ("net.peer.ip", text(finished.peer.0.to_string())),
            ("kong.request.id", text(finished.request_id)),
            ("http.status_code", status),
            ("http.route", text(path.unwrap_or_default())),
        ],
        failed: false,
    }
}
