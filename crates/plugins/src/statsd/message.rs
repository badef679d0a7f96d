//! Metrics as lines. Source: `kong/plugins/statsd/log.lua` and `statsd_logger.lua`.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::settings::{Config, Metric};
use crate::finished::{Entity, Finished};
use crate::proxy_cache::Cache;

/// The one workspace there is.
const WORKSPACE_ID: &str = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
const WORKSPACE_NAME: &str = "default";

/// How tags are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagStyle {
    Dogstatsd,
    Influxdb,
    Librato,
    Signalfx,
}

impl TagStyle {
    pub(super) fn named(name: &str) -> Option<TagStyle> {
        Some(match name {
            "dogstatsd" => TagStyle::Dogstatsd,
            "influxdb" => TagStyle::Influxdb,
            "librato" => TagStyle::Librato,
            "signalfx" => TagStyle::Signalfx,
            _ => return None,
        })
    }
}

/// What a request is told about.
pub(super) struct Subject<'a> {
    finished: &'a Finished<'a>,
    node: &'a str,
    service: Option<Service>,
    route: Option<Route>,
    consumer: Option<Consumer>,
}

#[derive(Deserialize)]
struct Service {
    id: String,
    name: Option<String>,
    host: Option<String>,
}

#[derive(Deserialize)]
struct Route {
    id: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Consumer {
    id: String,
    username: Option<String>,
    custom_id: Option<String>,
}

fn read<T: DeserializeOwned>(entity: Option<Entity<'_>>) -> Option<T> {
    serde_json::from_str(entity?.json.get()).ok()
}

impl<'a> Subject<'a> {
    pub(super) fn new(finished: &'a Finished<'a>, node: &'a str) -> Subject<'a> {
        Subject {
            finished,
            node,
            service: read(finished.service),
            route: read(finished.route),
            consumer: read(finished.consumer),
        }
    }

    fn service(&self, identifier: &str) -> Option<&str> {
        let service = self.service.as_ref()?;
        let (name, host) = (service.name.as_deref(), service.host.as_deref());
        match identifier {
            "service_id" => Some(&service.id),
            "service_name" => name,
            "service_host" => host,
            _ => name.or(host),
        }
    }

    fn consumer(&self, identifier: &str) -> Option<&str> {
        let consumer = self.consumer.as_ref()?;
        match identifier {
            "consumer_id" => Some(&consumer.id),
            "username" => consumer.username.as_deref(),
            _ => consumer.custom_id.as_deref(),
        }
    }
}

fn workspace(identifier: &str) -> &'static str {
    match identifier {
        "workspace_name" => WORKSPACE_NAME,
        _ => WORKSPACE_ID,
    }
}

/// Writes the line of one metric, if the request has a value for it.
pub(super) fn write(
    out: &mut String,
    metric: &Metric,
    config: &Config,
    style: Option<TagStyle>,
    subject: &Subject<'_>,
) {
    let finished = subject.finished;
    let (status, latencies) = (finished.status.as_u16(), finished.latencies);
    let identifier =
        |own: &Option<String>, default: &String| own.clone().unwrap_or(default.clone());
    let by_service = identifier(
        &metric.service_identifier,
        &config.service_identifier_default,
    );
    let by_consumer = identifier(
        &metric.consumer_identifier,
        &config.consumer_identifier_default,
    );
    let by_workspace = identifier(
        &metric.workspace_identifier,
        &config.workspace_identifier_default,
    );
    let plain = match metric.name.as_str() {
        "request_count" => Some(("request.count", 1)),
        "request_size" => Some(("request.size", finished.request_bytes)),
        "response_size" => Some(("response.size", finished.response_bytes)),
        "latency" => Some(("latency", latencies.request)),
        "kong_latency" => Some(("kong_latency", latencies.kong)),
        "upstream_latency" => match u64::try_from(latencies.proxy) {
            Ok(latency) => Some(("upstream_latency", latency)),
            Err(_) => return, // the upstream was not asked
        },
        _ => None,
    };
    let prefix = prefix(config, subject);
    if let (Some(style), Some((name, value))) = (style, plain) {
        let tags = tags(subject, &by_service, &by_consumer, &by_workspace);
        let kind = kind(&metric.stat_type);
        let line = Line {
            name: &format!("{prefix}.{name}"),
            value: &value.to_string(),
            kind,
            sample_rate: metric.sample_rate,
        };
        return line.tagged(out, style, &tags);
    }
    if style.is_some() {
        return;
    }
    let scope = match (&subject.service, subject.service(&by_service)) {
        (None, _) => "global.unmatched".to_owned(),
        (Some(_), None) => "service.unnamed".to_owned(),
        (Some(_), Some(name)) => format!("service.{}", name.replace('.', "_")),
    };
    let consumer = subject.consumer(&by_consumer);
    let (name, value, kind) = match (metric.name.as_str(), plain, consumer) {
        (_, Some((name, value)), _) => (
            format!("{scope}.{name}"),
            value.to_string(),
            kind(&metric.stat_type),
        ),
        ("status_count", ..) => (format!("{scope}.status.{status}"), "1".to_owned(), "c"),
        ("status_count_per_workspace", ..) => (
            format!(
                "{scope}.workspace.{}.status.{status}",
                workspace(&by_workspace)
            ),
            "1".to_owned(),
            "c",
        ),
        ("unique_users", _, Some(consumer)) => {
            (format!("{scope}.user.uniques"), consumer.to_owned(), "s")
        }
        ("request_per_user", _, Some(consumer)) => (
            format!("{scope}.user.{consumer}.request.count"),
            "1".to_owned(),
            "c",
        ),
        ("status_count_per_user", _, Some(consumer)) => (
            format!("{scope}.user.{consumer}.status.{status}"),
            "1".to_owned(),
            "c",
        ),
        ("status_count_per_user_per_route", _, Some(consumer)) => match &subject.route {
            Some(route) => (
                format!("route.{}.user.{consumer}.status.{status}", route.id),
                "1".to_owned(),
                "c",
            ),
            None => return,
        },
        _ => return,
    };
    let line = Line {
        name: &format!("{prefix}.{name}"),
        value: &value,
        kind,
        sample_rate: metric.sample_rate.filter(|_| kind != "s"),
    };
    line.write(out, "", "");
}

/// The metric of [`usage`].
pub(super) const USAGE: &str = "shdict_usage";

/// Writes the lines of the one store that has a counterpart among Kong's shared dictionaries.
pub(super) fn usage(out: &mut String, config: &Config, subject: &Subject<'_>, cache: &Cache) {
    let prefix = prefix(config, subject);
    let place = match config.hostname_in_prefix {
        Some(true) => prefix,
        _ => format!("{prefix}.node.{}", subject.node),
    };
    let capacity = cache.bytes_max();
    for (name, value) in [
        ("capacity", capacity),
        ("free_space", capacity.saturating_sub(cache.bytes())),
    ] {
        let line = Line {
            name: &format!("{place}.shdict.kong_db_cache.{name}"),
            value: &value.to_string(),
            kind: "g",
            sample_rate: None,
        };
        line.write(out, "", "");
    }
}

fn prefix(config: &Config, subject: &Subject<'_>) -> String {
    let prefix = config.prefix.as_deref().unwrap_or("kong");
    match config.hostname_in_prefix {
        Some(true) => format!("{prefix}.node.{}", subject.node),
        _ => prefix.to_owned(),
    }
}

fn kind(stat_type: &str) -> &'static str {
    match stat_type {
        "gauge" => "g",
        "timer" => "ms",
        "histogram" => "h",
        "meter" => "m",
        "set" => "s",
        _ => "c",
    }
}

/// Empty for a request without a service.
fn tags(
    subject: &Subject<'_>,
    by_service: &str,
    by_consumer: &str,
    by_workspace: &str,
) -> Vec<(&'static str, String)> {
    let Some(service) = subject.service(by_service) else {
        return Vec::new();
    };
    let route = subject.route.as_ref();
    let route = route.map(|route| route.name.as_ref().unwrap_or(&route.id).clone());
    let consumer = subject.consumer(by_consumer).map(str::to_owned);
    [
        ("consumer", consumer),
        ("node", Some(subject.node.to_owned())),
        ("route", route),
        ("service", Some(service.to_owned())),
        ("status", Some(subject.finished.status.as_u16().to_string())),
        ("workspace", Some(workspace(by_workspace).to_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

struct Line<'a> {
    name: &'a str,
    value: &'a str,
    kind: &'a str,
    sample_rate: Option<f64>,
}

impl Line<'_> {
    fn tagged(&self, out: &mut String, style: TagStyle, tags: &[(&'static str, String)]) {
        if tags.is_empty() {
            return self.write(out, "", "");
        }
        let joined = |between: &str| {
            let tags: Vec<String> = tags
                .iter()
                .map(|(name, value)| format!("{name}{between}{}", tag(value)))
                .collect();
            tags.join(",")
        };
        match style {
            TagStyle::Dogstatsd => self.write(out, "", &format!("|#{}", joined(":"))),
            TagStyle::Influxdb => self.write(out, &format!(",{}", joined("=")), ""),
            TagStyle::Librato => self.write(out, &format!("#{}", joined("=")), ""),
            TagStyle::Signalfx => self.write(out, &format!("[{}]", joined("=")), ""),
        }
    }

    /// With what follows the name, and what follows the rest.
    fn write(&self, out: &mut String, after_name: &str, end: &str) {
        let Line {
            name, value, kind, ..
        } = self;
        let (name, value) = (tag(name), tag(value));
        _ = write!(out, "{name}{after_name}:{value}|{kind}");
        match self.sample_rate {
            Some(rate) if rate != 1.0 => _ = write!(out, "|@{rate}"),
            _ => {}
        }
        out.push_str(end);
        out.push('\n');
    }
}

/// A text that cannot end a line or a field: names come from configurations.
fn tag(text: &str) -> String {
    text.replace(['\n', '\r', '|', ':'], "_")
}

/// Datagrams of these entries: a metric each, or as many as fit into so many bytes.
pub(super) fn packets(batch: &[Bytes], bytes_max: usize) -> Vec<Bytes> {
    let mut packets = Vec::new();
    let mut packet = BytesMut::new();
    for entry in batch {
        for line in entry.split(|byte| *byte == b'\n') {
            if !packet.is_empty() && packet.len() + 1 + line.len() > bytes_max {
                packets.push(packet.split().freeze());
            }
            if !packet.is_empty() {
                packet.extend_from_slice(b"\n");
            }
            packet.extend_from_slice(line);
        }
    }
    if !packet.is_empty() {
        packets.push(packet.freeze());
    }
    packets
}
