//! Traces: how requests say which trace they belong to, and which ids new spans get.
//!
//! Source: data-plane reference 7.21 and `kong/observability/tracing` of Kong.

mod extract;
mod ids;
mod inject;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use ids::{span_id, trace_id};
pub(crate) use settings::{
    Propagation, TraceHeaders, default_header_type, header_type, propagation_field,
};

use crate::exchange::Exchange;

/// What headers say about the trace of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Context {
    /// The trace; ids of 8 bytes have zeros above.
    pub(crate) trace_id: Option<u128>,
    /// How many bytes the headers had for it: 8 or 16.
    pub(crate) trace_id_bytes: Option<usize>,
    /// The caller's span, or the one that caller and gateway share.
    pub(crate) span_id: Option<u64>,
    /// The span above it, for those that share.
    pub(crate) parent_id: Option<u64>,
    /// Whether `span_id` is shared with the caller.
    pub(crate) shared_span: bool,
    /// Whether the caller wants the trace kept.
    pub(crate) sampled: Option<bool>,
    /// Whether it wants it kept in any case (B3's debug flag).
    pub(crate) debug: bool,
    /// Whether it came as the single B3 header.
    pub(crate) single: bool,
    /// Values that travel along with a trace.
    pub(crate) baggage: Vec<(String, String)>,
}

/// How a trace is told in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    W3c,
    B3,
    B3Single,
    Jaeger,
    Ot,
    Datadog,
    Aws,
    Gcp,
    Instana,
}

impl Format {
    /// All of them, in the order in which Kong looks for them; B3 in either form is one.
    pub(crate) const EXTRACTED: [Format; 8] = [
        Format::B3,
        Format::W3c,
        Format::Jaeger,
        Format::Ot,
        Format::Datadog,
        Format::Aws,
        Format::Gcp,
        Format::Instana,
    ];
    pub(crate) const NAMES: [&'static str; 9] = [
        "w3c",
        "b3",
        "b3-single",
        "jaeger",
        "ot",
        "datadog",
        "aws",
        "gcp",
        "instana",
    ];

    pub(crate) fn named(name: &str) -> Option<Format> {
        Some(match name {
            "w3c" => Format::W3c,
            "b3" => Format::B3,
            "b3-single" => Format::B3Single,
            "jaeger" => Format::Jaeger,
            "ot" => Format::Ot,
            "datadog" => Format::Datadog,
            "aws" => Format::Aws,
            "gcp" => Format::Gcp,
            "instana" => Format::Instana,
            _ => return None,
        })
    }
}

/// Trace ids as plugins told them upstream, by format: what log entries say about the trace.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceIds(pub(crate) BTreeMap<&'static str, String>);

/// Reads the trace of a request, lets `make` say what goes upstream, and writes that. What `make`
/// gets is empty where the request says nothing.
pub(crate) fn propagate(
    propagation: &Propagation,
    exchange: &mut Exchange,
    make: impl FnOnce(&Context) -> Context,
) {
    let headers = &exchange.request.headers;
    let found = propagation
        .extract
        .iter()
        .find_map(|format| Some((*format, extract::extract(*format, headers)?)));
    let (from, extracted) = match found {
        Some((format, context)) => (Some(format), context),
        None => (None, Context::default()),
    };
    let made = make(&extracted);
    for name in &propagation.clear {
        exchange.request.headers.remove(name);
    }
    let mut ids = TraceIds::default();
    for format in &propagation.inject {
        let format = match (format, from) {
            (Some(format), _) => *format,
            (None, Some(Format::B3)) if extracted.single => Format::B3Single,
            (None, from) => from.unwrap_or(propagation.default_format),
        };
        if let Some((name, id)) = inject::inject(format, &made, &mut exchange.request.headers) {
            ids.0.insert(name, id);
        }
    }
    if !ids.0.is_empty() {
        let known = exchange.state.get_or_insert_default::<TraceIds>();
        known.0.append(&mut ids.0);
    }
}

/// An id as hex digits, two for each byte.
pub(crate) fn hex(id: u128, bytes: usize) -> String {
    format!("{:0width$x}", id & mask(bytes), width = bytes * 2)
}

fn mask(bytes: usize) -> u128 {
    match bytes {
        16.. => u128::MAX,
        bytes => (1 << (bytes * 8)) - 1,
    }
}

/// What goes upstream in five formats for a request with these lines.
#[cfg(feature = "fuzzing")]
pub(crate) fn passed_on(lines: &[u8]) -> Vec<String> {
    let mut headers = crate::fields::Fields::new();
    for line in lines.split(|byte| *byte == b'\n').take(32) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        let name = http::HeaderName::from_bytes(name);
        let value = http::HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(&name, &value);
        }
    }
    let found = Format::EXTRACTED
        .iter()
        .find_map(|format| extract::extract(*format, &headers));
    let found = found.unwrap_or_default();
    let context = Context {
        trace_id: found.trace_id.or(Some(1)),
        span_id: Some(2),
        ..found
    };
    let mut sent = crate::fields::Fields::new();
    for format in [
        Format::W3c,
        Format::B3,
        Format::Jaeger,
        Format::Ot,
        Format::Datadog,
    ] {
        inject::inject(format, &context, &mut sent);
    }
    let mut lines: Vec<String> = sent
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
        .collect();
    lines.sort();
    lines
}
