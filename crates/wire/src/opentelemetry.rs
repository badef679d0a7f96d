//! Spans and log lines as OTLP/HTTP carries them: `ExportTraceServiceRequest` and
//! `ExportLogsServiceRequest` in protobuf.
//!
//! Source: opentelemetry-proto 1.5, `trace/v1/trace.proto`, `logs/v1/logs.proto` and `common/v1/common.proto`. Only
//! written; a collector's answer is its HTTP status.

use crate::protobuf::{bytes, fixed32, fixed64, message, number, varint};

/// Name and version of what makes the spans. Source: Kong's plugin.
const SCOPE: (&str, &str) = ("kong-internal", "0.1.0");

/// One span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span<'a> {
    /// The trace.
    pub trace_id: u128,
    /// Its own id; not 0.
    pub span_id: u64,
    /// The span above it.
    pub parent_span_id: Option<u64>,
    /// What it is of.
    pub name: &'a str,
    /// Which side of a call it is.
    pub kind: SpanKind,
    /// When it began, nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Names and values.
    pub attributes: Vec<(&'a str, Attribute<'a>)>,
    /// Whether it is of something that failed.
    pub failed: bool,
}

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// None: it is inside.
    Internal = 1,
    /// The side that answers.
    Server = 2,
    /// The side that asks.
    Client = 3,
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute<'a> {
    /// Text.
    Text(std::borrow::Cow<'a, str>),
    /// A whole number.
    Integer(i64),
}

fn attribute(out: &mut Vec<u8>, field: u32, name: &str, value: &Attribute<'_>) {
    message(out, field, |out| {
        bytes(out, 1, name.as_bytes());
        message(out, 2, |out| match value {
            Attribute::Text(text) => bytes(out, 1, text.as_bytes()),
            Attribute::Integer(value) => number(out, 3, *value as u64),
        });
    });
}

impl Span<'_> {
    /// As the message `Span`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        bytes(&mut out, 1, &self.trace_id.to_be_bytes());
        bytes(&mut out, 2, &self.span_id.to_be_bytes());
        if let Some(parent) = self.parent_span_id {
            bytes(&mut out, 4, &parent.to_be_bytes());
        }
        bytes(&mut out, 5, self.name.as_bytes());
        number(&mut out, 6, self.kind as u64);
        fixed64(&mut out, 7, self.start_ns);
        fixed64(&mut out, 8, self.end_ns);
        for (name, value) in &self.attributes {
            attribute(&mut out, 9, name, value);
        }
        if self.failed {
            // STATUS_CODE_ERROR
            message(&mut out, 15, |out| number(out, 3, 2));
        }
        out
    }
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord<'a> {
    /// When it was written, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Number and name of its severity, the number as `SeverityNumber` has it.
    pub severity: (u32, &'a str),
    /// What it says.
    pub body: &'a str,
    /// Names and values.
    pub attributes: Vec<(&'a str, Attribute<'a>)>,
    /// The trace that it belongs to, and whether that is sampled.
    pub trace: Option<(u128, bool)>,
}

impl LogRecord<'_> {
    /// As the message `LogRecord`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        fixed64(&mut out, 1, self.time_ns);
        number(&mut out, 2, self.severity.0.into());
        bytes(&mut out, 3, self.severity.1.as_bytes());
        message(&mut out, 5, |out| bytes(out, 1, self.body.as_bytes()));
        for (name, value) in &self.attributes {
            attribute(&mut out, 6, name, value);
        }
        if let Some((trace_id, sampled)) = self.trace {
            fixed32(&mut out, 8, sampled.into());
            bytes(&mut out, 9, &trace_id.to_be_bytes());
        }
        fixed64(&mut out, 11, self.time_ns);
        out
    }
}

/// A request with these spans or log lines, each as its `encode` made it, of a resource with these
/// attributes. Both kinds of request have the same form.
pub fn export<S: AsRef<[u8]>>(resource: &[(String, String)], items: &[S]) -> Vec<u8> {
    let total: usize = items.iter().map(|item| item.as_ref().len() + 4).sum();
    let mut scope = Vec::with_capacity(total + 64);
    message(&mut scope, 1, |out| {
        bytes(out, 1, SCOPE.0.as_bytes());
        bytes(out, 2, SCOPE.1.as_bytes());
    });
    for item in items {
        bytes(&mut scope, 2, item.as_ref());
    }
    let mut head = Vec::new();
    message(&mut head, 1, |out| {
        for (name, value) in resource {
            attribute(out, 1, name, &Attribute::Text(value.into()));
        }
    });
    let mut tag = Vec::new();
    varint(&mut tag, 2 << 3 | 2);
    varint(&mut tag, scope.len() as u64);
    let mut out = Vec::with_capacity(head.len() + tag.len() + scope.len() + 8);
    varint(&mut out, 1 << 3 | 2);
    varint(&mut out, (head.len() + tag.len() + scope.len()) as u64);
    out.extend_from_slice(&head);
    out.extend_from_slice(&tag);
    out.extend_from_slice(&scope);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes made by hand from the .proto files; a foreign decoder reads larger ones in the
    /// gateway's tests.
    #[test]
    fn a_small_request_has_these_bytes() {
        let span = Span {
            trace_id: 1,
            span_id: 2,
            parent_span_id: None,
            name: "a",
            kind: SpanKind::Server,
            start_ns: 3,
            end_ns: 4,
            attributes: vec![("n", Attribute::Integer(5))],
            failed: true,
        };
        let encoded = span.encode();
        let mut expected = vec![0x0a, 16];
        expected.extend_from_slice(&1_u128.to_be_bytes());
        expected.extend_from_slice(&[0x12, 8]);
        expected.extend_from_slice(&2_u64.to_be_bytes());
        expected.extend_from_slice(&[0x2a, 1, b'a', 0x30, 2, 0x39]);
        expected.extend_from_slice(&3_u64.to_le_bytes());
        expected.push(0x41);
        expected.extend_from_slice(&4_u64.to_le_bytes());
        expected.extend_from_slice(&[0x4a, 7, 0x0a, 1, b'n', 0x12, 2, 0x18, 5]);
        expected.extend_from_slice(&[0x7a, 2, 0x18, 2]);
        assert_eq!(encoded, expected);
        let request = export(&[("k".to_owned(), "v".to_owned())], &[&encoded]);
        assert_eq!(usize::from(request[1]), request.len() - 2);
        assert_eq!(
            request[2..14],
            [0x0a, 10, 0x0a, 8, 0x0a, 1, b'k', 0x12, 3, 0x0a, 1, b'v']
        );
        assert!(request.ends_with(&encoded));
    }

    #[test]
    fn a_small_line_has_these_bytes() {
        let line = LogRecord {
            time_ns: 3,
            severity: (13, "WARN"),
            body: "b",
            attributes: vec![("n", Attribute::Text("v".into()))],
            trace: Some((1, true)),
        };
        let mut expected = vec![0x09];
        expected.extend_from_slice(&3_u64.to_le_bytes());
        expected.extend_from_slice(&[0x10, 13, 0x1a, 4]);
        expected.extend_from_slice(b"WARN");
        expected.extend_from_slice(&[0x2a, 3, 0x0a, 1, b'b']);
        expected.extend_from_slice(&[0x32, 8, 0x0a, 1, b'n', 0x12, 3, 0x0a, 1, b'v']);
        expected.extend_from_slice(&[0x45, 1, 0, 0, 0, 0x4a, 16]);
        expected.extend_from_slice(&1_u128.to_be_bytes());
        expected.push(0x59);
        expected.extend_from_slice(&3_u64.to_le_bytes());
        assert_eq!(line.encode(), expected);
    }
}
