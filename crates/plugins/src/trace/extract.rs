//! Reading the trace of a request from its headers. What is not well formed is as if it were not
//! there.

use http::HeaderName;
use percent_encoding::percent_decode_str;

use super::{Context, Format};
use crate::fields::Fields;

/// Values of baggage that are taken along.
const BAGGAGE_MAX: usize = 64;

/// The trace as one format tells it; `None` if it says nothing.
pub(super) fn extract(format: Format, headers: &Fields) -> Option<Context> {
    let context = match format {
        Format::W3c => w3c(header(headers, "traceparent")?)?,
        Format::B3 | Format::B3Single => b3(headers)?,
        Format::Jaeger => Context {
            baggage: baggage(headers, "uberctx-"),
            ..jaeger(header(headers, "uber-trace-id")?)?
        },
        Format::Ot => ot(headers)?,
        Format::Datadog => datadog(headers)?,
        Format::Aws => aws(header(headers, "x-amzn-trace-id")?)?,
        Format::Gcp => gcp(header(headers, "x-cloud-trace-context")?)?,
        Format::Instana => instana(headers)?,
    };
    Some(context)
}

fn header<'a>(headers: &'a Fields, name: &'static str) -> Option<&'a str> {
    headers.get_str(&HeaderName::from_static(name))
}

/// An id of exactly so many hex digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    (text.len() == digits).then(|| any_hex(text, digits))?
}

/// An id of at most so many hex digits.
fn any_hex(text: &str, digits_max: usize) -> Option<u128> {
    let good =
        (1..=digits_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| u128::from_str_radix(text, 16).ok())?
}

/// An id of 8 or 16 bytes, and how many.
fn trace(text: &str) -> Option<(u128, usize)> {
    let bytes = text.len() / 2;
    matches!(text.len(), 16 | 32).then(|| Some((hex(text, text.len())?, bytes)))?
}

fn span(text: &str) -> Option<u64> {
    hex(text, 16).map(|id| id as u64)
}

fn w3c(text: &str) -> Option<Context> {
    let mut parts = text.split('-');
    let mut part = || parts.next();
    let (version, trace_id, parent, flags) = (part()?, part()?, part()?, part()?);
    if part().is_some() || version != "00" {
        return None;
    }
    let trace_id = hex(trace_id, 32).filter(|id| *id != 0)?;
    let span_id = span(parent).filter(|id| *id != 0)?;
    let flags = hex(flags, 2)?;
    Some(Context {
        trace_id: Some(trace_id),
        trace_id_bytes: Some(16),
        span_id: Some(span_id),
        sampled: Some(flags & 1 == 1),
        ..Context::default()
    })
}

fn b3(headers: &Fields) -> Option<Context> {
    let single = match header(headers, "b3") {
        Some(text) => Some(text),
        None => headers
            .get_all(&HeaderName::from_static("tracestate"))
            .find_map(|line| std::str::from_utf8(line).ok()?.strip_prefix("b3=")),
    };
    let mut context = single.and_then(b3_single).unwrap_or_default();
    let multi = b3_multi(headers);
    if context.trace_id.is_none() {
        let Context {
            trace_id,
            trace_id_bytes,
            span_id,
            parent_id,
            ..
        } = multi;
        (context.trace_id, context.trace_id_bytes) = (trace_id, trace_id_bytes);
        (context.span_id, context.parent_id) = (span_id, parent_id);
    }
    context.sampled = context.sampled.or(multi.sampled);
    context.debug |= multi.debug;
    context.shared_span = true;
    (context.trace_id.is_some() || context.sampled.is_some()).then_some(context)
}

fn b3_single(text: &str) -> Option<Context> {
    let decision = |text: &str| match text {
        "1" => Some((true, false)),
        "d" => Some((true, true)),
        "0" => Some((false, false)),
        _ => None,
    };
    let mut context = Context {
        single: true,
        ..Context::default()
    };
    if let Some((sampled, debug)) = decision(text) {
        (context.sampled, context.debug) = (Some(sampled), debug);
        return Some(context);
    }
    let mut parts = text.split('-');
    let (trace_id, bytes) = trace(parts.next()?)?;
    let span_id = span(parts.next()?)?;
    let mut rest: Vec<&str> = parts.collect();
    if let Some((sampled, debug)) = rest.first().and_then(|text| decision(text)) {
        (context.sampled, context.debug) = (Some(sampled), debug);
        rest.remove(0);
    }
    match rest[..] {
        [] => {}
        [parent] => context.parent_id = Some(span(parent)?),
        _ => return None,
    }
    (context.trace_id, context.trace_id_bytes) = (Some(trace_id), Some(bytes));
    context.span_id = Some(span_id);
    Some(context)
}

fn b3_multi(headers: &Fields) -> Context {
    let mut context = Context {
        sampled: match header(headers, "x-b3-sampled") {
            Some("1" | "true") => Some(true),
            Some("0" | "false") => Some(false),
            _ => None,
        },
        ..Context::default()
    };
    if header(headers, "x-b3-flags") == Some("1") {
        (context.sampled, context.debug) = (Some(true), true);
    }
    // one id that is broken takes the others with it
    let ids = || {
        let trace_id = header(headers, "x-b3-traceid").map(trace);
        let span_id = header(headers, "x-b3-spanid").map(span);
        let parent_id = header(headers, "x-b3-parentspanid").map(span);
        let whole = trace_id != Some(None) && span_id != Some(None) && parent_id != Some(None);
        whole.then_some((trace_id??, span_id.flatten(), parent_id.flatten()))
    };
    if let Some(((trace_id, bytes), span_id, parent_id)) = ids() {
        (context.trace_id, context.trace_id_bytes) = (Some(trace_id), Some(bytes));
        (context.span_id, context.parent_id) = (span_id, parent_id);
    }
    context
}

fn jaeger(text: &str) -> Option<Context> {
    let parts: Vec<&str> = text.split(':').collect();
    let [trace_id, span_id, parent_id, flags] = parts[..] else {
        return None;
    };
    let bytes = if trace_id.len() > 16 { 16 } else { 8 };
    let trace_id = any_hex(trace_id, 32).filter(|id| *id != 0)?;
    let span_id = any_hex(span_id, 16).filter(|id| *id != 0)? as u64;
    let parent_id = any_hex(parent_id, 16).filter(|id| *id != 0);
    let flags = any_hex(flags, 2)?;
    Some(Context {
        trace_id: Some(trace_id),
        trace_id_bytes: Some(bytes),
        span_id: Some(span_id),
        parent_id: parent_id.map(|id| id as u64),
        shared_span: true,
        sampled: Some(flags & 1 == 1),
        ..Context::default()
    })
}

fn ot(headers: &Fields) -> Option<Context> {
    let sampled = match header(headers, "ot-tracer-sampled") {
        Some("1" | "true") => Some(true),
        Some("0" | "false") => Some(false),
        _ => None,
    };
    let trace_id = header(headers, "ot-tracer-traceid").and_then(trace);
    let span_id = header(headers, "ot-tracer-spanid").and_then(span);
    let known = trace_id.is_some() || sampled.is_some();
    known.then(|| Context {
        trace_id: trace_id.map(|(id, _)| id),
        trace_id_bytes: trace_id.map(|(_, bytes)| bytes),
        span_id: span_id.filter(|_| trace_id.is_some()),
        sampled,
        baggage: baggage(headers, "ot-baggage-"),
        ..Context::default()
    })
}

fn datadog(headers: &Fields) -> Option<Context> {
    let sampled = match header(headers, "x-datadog-sampling-priority") {
        Some("1" | "2") => Some(true),
        Some("0" | "-1") => Some(false),
        Some(_) => return None,
        None => None,
    };
    let number = |name| -> Option<u64> {
        let text = header(headers, name)?.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok())?
    };
    let trace_id = number("x-datadog-trace-id");
    let known = trace_id.is_some() || sampled.is_some();
    known.then(|| Context {
        trace_id: trace_id.map(u128::from),
        trace_id_bytes: trace_id.map(|_| 8),
        span_id: trace_id.and_then(|_| number("x-datadog-parent-id")),
        sampled,
        ..Context::default()
    })
}

fn aws(text: &str) -> Option<Context> {
    let mut context = Context::default();
    for part in text.split(';') {
        let Some((key, value)) = part.split_once('=') else {
            continue;
        };
        match (key.trim(), value.trim()) {
            ("Root", value) => {
                let (time, unique) = value.strip_prefix("1-")?.split_once('-')?;
                let id = hex(time, 8)? << 96 | hex(unique, 24)?;
                (context.trace_id, context.trace_id_bytes) = (Some(id), Some(16));
            }
            ("Parent", value) => context.span_id = Some(span(value)?),
            ("Sampled", "1") => context.sampled = Some(true),
            ("Sampled", "0") => context.sampled = Some(false),
            ("Sampled", _) => return None,
            _ => {}
        }
    }
    (context != Context::default()).then_some(context)
}

fn gcp(text: &str) -> Option<Context> {
    let (trace_id, rest) = text.split_once('/')?;
    let (span_id, flags) = match rest.split_once(";o=") {
        Some((span_id, flags)) => (span_id, Some(flags)),
        None => (rest, None),
    };
    let digits = (1..=20).contains(&span_id.len()) && span_id.bytes().all(|b| b.is_ascii_digit());
    let single = |text: &str| text.len() == 1 && text.as_bytes()[0].is_ascii_digit();
    if !digits || flags.is_some_and(|flags| !single(flags)) {
        return None;
    }
    Some(Context {
        trace_id: Some(hex(trace_id, 32)?),
        trace_id_bytes: Some(16),
        span_id: Some(span_id.parse().ok()?),
        sampled: Some(flags == Some("1")),
        ..Context::default()
    })
}

fn instana(headers: &Fields) -> Option<Context> {
    let (trace_id, bytes) = trace(header(headers, "x-instana-t")?)?;
    let level = header(headers, "x-instana-l");
    Some(Context {
        trace_id: Some(trace_id),
        trace_id_bytes: Some(bytes),
        span_id: Some(span(header(headers, "x-instana-s")?)?),
        sampled: Some(level.is_some_and(|level| level.starts_with('1'))),
        ..Context::default()
    })
}

fn baggage(headers: &Fields, prefix: &str) -> Vec<(String, String)> {
    let one = |(name, value): (&str, &[u8])| {
        let name = name.to_ascii_lowercase();
        let key = name.strip_prefix(prefix).filter(|key| !key.is_empty())?;
        let value = std::str::from_utf8(value).ok()?;
        let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
        Some((key.to_owned(), value))
    };
    headers.iter().filter_map(one).take(BAGGAGE_MAX).collect()
}
