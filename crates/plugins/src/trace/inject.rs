//! Writing the trace of a request into its headers.

use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Context, Format, hex};
use crate::fields::Fields;

/// What stays as it is in baggage. Source: `ngx.escape_uri`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Sizes of trace ids that a format has, the one to take for any other first.
fn sizes(format: Format) -> &'static [usize] {
    match format {
        Format::W3c | Format::Aws | Format::Gcp => &[16],
        Format::B3 | Format::B3Single | Format::Jaeger | Format::Instana => &[16, 8],
        Format::Ot => &[8, 16],
        Format::Datadog => &[8],
    }
}

/// Writes the headers of a format; gives the name and the value by which log entries tell the
/// trace. `None` if the format needs ids that are not there.
pub(super) fn inject(
    format: Format,
    context: &Context,
    headers: &mut Fields,
) -> Option<(&'static str, String)> {
    let sizes = sizes(format);
    let had = context.trace_id_bytes.filter(|had| sizes.contains(had));
    let bytes = had.unwrap_or(sizes[0]);
    let trace = context.trace_id.map(|id| hex(id, bytes));
    let span = context.span_id.map(|id| hex(id.into(), 8));
    let parent = context.parent_id.map(|id| hex(id.into(), 8));
    let sampled = context.sampled;
    let digit = |sampled: bool| if sampled { "1" } else { "0" };
    let mut set = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.set(&name, &value);
        }
    };
    let both = || Some((trace.clone()?, span.clone()?));
    match format {
        Format::W3c => {
            let (trace, span) = both()?;
            let flags = if sampled == Some(true) { "01" } else { "00" };
            set("traceparent", &format!("00-{trace}-{span}-{flags}"));
            Some(("w3c", trace))
        }
        Format::B3 => {
            if let Some((trace, span)) = both() {
                set("x-b3-traceid", &trace);
                set("x-b3-spanid", &span);
                if let Some(parent) = &parent {
                    set("x-b3-parentspanid", parent);
                }
            }
            match context.debug {
                true => set("x-b3-flags", "1"),
                false => set("x-b3-sampled", digit(sampled == Some(true))),
            }
            Some(("b3", trace.unwrap_or_default()))
        }
        Format::B3Single => {
            let decision = match (context.debug, sampled) {
                (true, _) => Some("d"),
                (false, sampled) => sampled.map(digit),
            };
            let Some((trace, span)) = both() else {
                set("b3", decision.unwrap_or("0"));
                return Some(("b3", trace.unwrap_or_default()));
            };
            let mut value = format!("{trace}-{span}");
            for part in decision.into_iter().chain(parent.as_deref()) {
                value.push('-');
                value.push_str(part);
            }
            set("b3", &value);
            Some(("b3", trace))
        }
        Format::Jaeger => {
            let (trace, span) = both()?;
            let parent = parent.as_deref().unwrap_or("0");
            let flags = if sampled == Some(true) { "01" } else { "00" };
            set("uber-trace-id", &format!("{trace}:{span}:{parent}:{flags}"));
            for (key, value) in &context.baggage {
                set(&format!("uberctx-{key}"), &escape(value));
            }
            Some(("jaeger", trace))
        }
        Format::Ot => {
            let (trace, span) = both()?;
            set("ot-tracer-traceid", &trace);
            set("ot-tracer-spanid", &span);
            if let Some(sampled) = sampled {
                set("ot-tracer-sampled", digit(sampled));
            }
            for (key, value) in &context.baggage {
                set(&format!("ot-baggage-{key}"), &escape(value));
            }
            Some(("ot", trace))
        }
        Format::Datadog => {
            let low = context.trace_id.map(|id| (id as u64).to_string());
            if let Some(trace) = &low {
                set("x-datadog-trace-id", trace);
            }
            if let Some(span) = context.span_id {
                set("x-datadog-parent-id", &span.to_string());
            }
            if let Some(sampled) = sampled {
                set("x-datadog-sampling-priority", digit(sampled));
            }
            Some(("datadog", low?))
        }
        Format::Aws => {
            let (trace, span) = both()?;
            let (time, unique) = trace.split_at(8);
            let sampled = digit(sampled == Some(true));
            let value = format!("Root=1-{time}-{unique};Parent={span};Sampled={sampled}");
            set("x-amzn-trace-id", &value);
            Some(("aws", trace))
        }
        Format::Gcp => {
            let (trace, span) = (trace?, context.span_id?);
            let sampled = digit(sampled == Some(true));
            set(
                "x-cloud-trace-context",
                &format!("{trace}/{span};o={sampled}"),
            );
            Some(("gcp", trace))
        }
        Format::Instana => {
            let (trace, span) = both()?;
            set("x-instana-t", &trace);
            set("x-instana-s", &span);
            if let Some(sampled) = sampled {
                set("x-instana-l", digit(sampled));
            }
            Some(("instana", trace))
        }
    }
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}
