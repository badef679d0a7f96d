//! Lines of access logs.
//!
//! Source: nginx's `combined` format and escaping (`ngx_http_log_module`), Kong's
//! `kong_log_format`.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, REFERER, USER_AGENT};
use sallyport_plugins::{Fields, decimal};

use super::sink::Sink;

/// An access log.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) sink: Sink,
    pub(crate) format: AccessFormat,
}

/// The form of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessFormat {
    /// nginx's own.
    Combined,
    /// The same and the request id.
    Kong,
}

impl AccessFormat {
    /// Names that a setting may use.
    pub(crate) const NAMES: [&'static str; 2] = ["combined", "kong_log_format"];

    /// The format of this name.
    pub(crate) fn named(name: &str) -> Option<AccessFormat> {
        match name {
            "combined" => Some(AccessFormat::Combined),
            "kong_log_format" => Some(AccessFormat::Kong),
            _ => None,
        }
    }
}

/// One answered request.
pub(crate) struct Line<'a> {
    pub(crate) client: IpAddr,
    /// As [`LocalTime`] gives it.
    pub(crate) time: &'a str,
    /// Method, target and version, or what came instead; empty if that is unknown.
    pub(crate) request: Cow<'a, [u8]>,
    pub(crate) headers: &'a Fields,
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    pub(crate) request_id: &'a str,
}

impl Line<'_> {
    /// Appends the line with its line feed.
    pub(crate) fn write(&self, out: &mut Vec<u8>, format: AccessFormat) {
        let mut digits = [0; 20];
        _ = write!(out, "{} - ", self.client);
        escaped(out, &user(self.headers));
        out.extend_from_slice(b" [");
        out.extend_from_slice(self.time.as_bytes());
        out.extend_from_slice(b"] \"");
        escaped(out, &self.request);
        out.extend_from_slice(b"\" ");
        out.extend_from_slice(decimal(self.status.into(), &mut digits));
        out.push(b' ');
        out.extend_from_slice(decimal(self.body_bytes, &mut digits));
        for name in [REFERER, USER_AGENT] {
            out.extend_from_slice(b" \"");
            escaped(out, self.headers.get(&name).unwrap_or_default());
            out.push(b'"');
        }
        if format == AccessFormat::Kong {
            out.extend_from_slice(b" kong_request_id: \"");
            escaped(out, self.request_id.as_bytes());
            out.push(b'"');
        }
        out.push(b'\n');
    }
}

/// One session of a stream that is over.
pub(crate) struct StreamLine {
    pub(crate) client: IpAddr,
    pub(crate) protocol: &'static str,
    /// In the meaning of nginx's stream module.
    pub(crate) status: u16,
    /// Bytes to the client.
    pub(crate) sent: u64,
    /// Bytes from the client.
    pub(crate) received: u64,
    pub(crate) took_ms: u64,
}

impl StreamLine {
    /// Appends the line with its line feed, in Kong's format `basic`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, time: &str) {
        let StreamLine {
            client,
            protocol,
            status,
            sent,
            received,
            took_ms,
        } = self;
        let (seconds, millis) = (took_ms / 1000, took_ms % 1000);
        _ = writeln!(
            out,
            "{client} [{time}] {protocol} {status} {sent} {received} {seconds}.{millis:03}"
        );
    }
}

/// A value as nginx writes it: `-` for nothing, `\xNN` for what could break a line.
fn escaped(out: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        return out.push(b'-');
    }
    let plain = |byte: &u8| (32..127).contains(byte) && !matches!(byte, b'"' | b'\\');
    if value.iter().all(plain) {
        return out.extend_from_slice(value);
    }
    for byte in value {
        match plain(byte) {
            true => out.push(*byte),
            false => _ = write!(out, "\\x{byte:02X}"),
        }
    }
}

/// The user of a Basic authorization.
fn user(headers: &Fields) -> Vec<u8> {
    let encoded = headers
        .get(&AUTHORIZATION)
        .and_then(|value| value.split_at_checked(6))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"basic "));
    let decoded = encoded.and_then(|(_, encoded)| STANDARD.decode(encoded.trim_ascii()).ok());
    let mut user = decoded.unwrap_or_default();
    match user.iter().position(|byte| *byte == b':') {
        Some(at) => user.truncate(at),
        None => user.clear(),
    }
    user
}

/// `$time_local` of nginx, in UTC; made once a second.
#[derive(Default)]
pub(crate) struct LocalTime {
    second: u64,
    text: String,
}

impl LocalTime {
    /// Such as `22/Nov/2026:13:48:04 +0000`.
    pub(crate) fn at(&mut self, unix_ms: u64) -> &str {
        let second = unix_ms / 1000;
        if self.text.is_empty() || self.second != second {
            let time = i64::try_from(second).ok();
            let time = time.and_then(|second| jiff::Timestamp::from_second(second).ok());
            let time = time.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            self.text = time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
            self.second = second;
        }
        &self.text
    }
}
