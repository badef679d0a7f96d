//! Spans of one request, in version 2 of Zipkin's JSON. Times are microseconds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Spans;
use super::settings::Config;
use crate::exchange::Exchange;
use crate::finished::{Entity, Finished, PartOf};
use crate::node::Facts;
use crate::trace::{hex, span_id};

#[derive(Default, Deserialize)]
struct Named {
    id: Option<String>,
    name: Option<String>,
    host: Option<String>,
}

fn read(entity: Option<Entity<'_>>) -> Named {
    let read = entity.and_then(|entity| serde_json::from_str(entity.json.get()).ok());
    read.unwrap_or_default()
}

/// A span before it is JSON.
struct Span<'a> {
    config: &'a Config,
    trace_id: &'a str,
    id: u64,
    parent: Option<u64>,
    kind: &'static str,
    name: String,
    start_ns: u64,
    end_ns: u64,
    address: Option<IpAddr>,
    port: Option<u16>,
    service_name: Option<String>,
    tags: BTreeMap<String, String>,
    annotations: Vec<(&'static str, u64)>,
}

impl Span<'_> {
    fn tag(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        if !value.is_empty() {
            self.tags.insert(name.to_owned(), value);
        }
    }

    fn json(self) -> Value {
        let service = self
            .service_name
            .or_else(|| self.config.default_service_name.clone());
        let remote = (service.is_some() || self.port.is_some()).then(|| {
            let mut remote = Map::new();
            if let Some(service) = service {
                remote.insert("serviceName".to_owned(), json!(service));
            }
            if let Some(port) = self.port {
                remote.insert("port".to_owned(), json!(port));
            }
            if let Some(address) = self.address {
                let key = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                remote.insert(key.to_owned(), json!(address));
            }
            remote
        });
        let mut span = json!({
            "traceId": self.trace_id,
            "name": self.name,
            "id": hex(self.id.into(), 8),
            "kind": self.kind,
            "timestamp": self.start_ns / 1000,
            "duration": self.end_ns.saturating_sub(self.start_ns) / 1000,
            "localEndpoint": {"serviceName": self.config.local_service_name},
            "remoteEndpoint": remote,
        });
        if let Some(parent) = self.parent {
            span["parentId"] = json!(hex(parent.into(), 8));
        }
        if !self.tags.is_empty() {
            span["tags"] = json!(self.tags);
        }
        if !self.annotations.is_empty() {
            let annotations = self.annotations.iter();
            let annotations =
                annotations.map(|(value, ns)| json!({"value": value, "timestamp": ns / 1000}));
            span["annotations"] = annotations.collect();
        }
        span
    }
}

/// All spans of a request that is over.
pub(super) fn all(
    spans: &Spans,
    config: &Config,
    exchange: &Exchange,
    finished: &Finished<'_>,
    facts: &Facts,
) -> Vec<Value> {
    let (start, end) = (finished.started_ns, finished.ended_ns);
    let part = |what| {
        let found = finished.parts.iter().find(|part| part.what == what);
        found.map(|part| (part.start_ns, part.end_ns))
    };
    let access = part(PartOf::Access).unwrap_or((end, end));
    let header_filter = part(PartOf::HeaderFilter);
    let path = finished.uri.path();
    let name = match config.http_span_name.as_str() {
        "method_path" => format!("{} {path}", finished.method),
        _ => finished.method.to_string(),
    };
    let (route, service) = (read(finished.route), read(finished.service));
    let span = |id, parent, kind, name, times: (u64, u64)| Span {
        config,
        trace_id: &spans.trace_id,
        id,
        parent,
        kind,
        name,
        start_ns: times.0,
        end_ns: times.1,
        address: None,
        port: None,
        service_name: None,
        tags: BTreeMap::new(),
        annotations: Vec::new(),
    };
    let place = |span: &mut Span<'_>| {
        span.service_name.clone_from(&service.name);
        for (tag, value) in [
            ("kong.service", &service.id),
            ("kong.service_name", &service.name),
            ("kong.route", &route.id),
            ("kong.route_name", &route.name),
        ] {
            span.tag(tag, value.as_deref().unwrap_or_default());
        }
    };

    let mut request = span(
        spans.request,
        spans.parent,
        "SERVER",
        name.clone(),
        (start, end),
    );
    request.address = Some(exchange.client_ip);
    request.port = finished.peer.1;
    request.tag("lc", "kong");
    request.tag("http.method", finished.method);
    request.tag("http.host", finished.host);
    request.tag("http.path", path);
    request.tag("http.protocol", format!("{:?}", exchange.request.version));
    for tag in config.static_tags.iter().flatten() {
        request.tag(&tag.name, &tag.value);
    }
    for (tag, value) in &spans.tags {
        request.tag(tag, value);
    }
    request.tag("http.status_code", finished.status.as_u16());
    if let Some(consumer) = &exchange.consumer {
        request.tag("kong.consumer", consumer.id);
    }
    if let Some(credential) = exchange
        .credential
        .as_ref()
        .filter(|_| config.include_credential)
    {
        request.tag("kong.credential", credential.id);
    }
    request.tag("kong.node.id", facts.id);

    let proxy_name = format!("{name} (proxy)");
    let mut proxy = span(
        spans.proxy,
        Some(spans.request),
        "CLIENT",
        proxy_name,
        (access.0, end),
    );
    place(&mut proxy);
    if config.phase_duration_flavor == "annotations" {
        request.annotations = vec![("krs", start), ("krf", access.0)];
        proxy.annotations = vec![("kas", access.0), ("kaf", access.1)];
        let (from, to) = header_filter.unwrap_or((end, end));
        proxy
            .annotations
            .extend([("khs", from), ("khf", to), ("kbs", to), ("kbf", end)]);
    } else {
        let ms = |from: u64, to: u64| to.saturating_sub(from) / 1_000_000;
        request.tag("kong.rewrite.duration_ms", ms(start, access.0));
        proxy.tag("kong.access.duration_ms", ms(access.0, access.1));
        if let Some((from, to)) = header_filter {
            proxy.tag("kong.header_filter.duration_ms", ms(from, to));
            proxy.tag("kong.body_filter.duration_ms", ms(to, end));
        }
    }

    let mut all = Vec::new();
    let tries = finished.tries;
    for (number, tried) in (1..).zip(tries) {
        let started = tried.balancer_start_ns;
        let connected = started + tried.balancer_latency_ns;
        let try_name = format!("{name} (balancer try {number})");
        let mut span = span(
            span_id(),
            Some(spans.request),
            "CLIENT",
            try_name,
            (started, connected),
        );
        (span.address, span.port) = (tried.ip, tried.port);
        span.tag("kong.balancer.try", number);
        if let (Some(state), Some(code)) = (tried.state, tried.code) {
            span.tag("error", true);
            span.tag("kong.balancer.state", state);
            span.tag("http.status_code", code);
        }
        place(&mut span);
        all.push(span.json());
    }
    if let Some(last) = tries.last() {
        proxy.tag("peer.hostname", service.host.as_deref().unwrap_or_default());
        (proxy.address, proxy.port) = (last.ip, last.port);
    }
    all.push(proxy.json());
    all.push(request.json());
    all
}
