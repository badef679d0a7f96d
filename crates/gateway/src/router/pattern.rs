//! The patterns of a route: hosts, regex paths, header values.

use http::HeaderName;
use regex::{Regex, RegexBuilder};
use sallyport_plugins::Fields;

/// Bytes of compiled program that one regex may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub(crate) enum PatternError {
    #[error("paths: invalid regex '~{pattern}': {reason}")]
    Path { pattern: String, reason: String },
    #[error("hosts: invalid host '{host}'")]
    Host { host: String },
    #[error("methods: invalid method '{method}'")]
    Method { method: String },
    #[error("headers: invalid name '{name}'")]
    HeaderName { name: String },
    #[error("headers.{name}: invalid regex '{pattern}': {reason}")]
    HeaderValue {
        name: String,
        pattern: String,
        reason: String,
    },
}

/// A host of a route, lower case, with the port it demands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HostPattern {
    Exact(String, Option<u16>),
    /// `*.example.com` as `.example.com`.
    Suffix(String, Option<u16>),
    /// `example.*` as `example.`.
    Prefix(String, Option<u16>),
}

impl HostPattern {
    pub(super) fn parse(text: &str) -> Result<HostPattern, PatternError> {
        let bad = || PatternError::Host {
            host: text.to_owned(),
        };
        let (host, port) = split_port(text).ok_or_else(bad)?;
        let host = host.to_ascii_lowercase();
        match (host.strip_prefix('*'), host.strip_suffix('*')) {
            (None, None) if !host.is_empty() && !host.contains('*') => {
                Ok(HostPattern::Exact(host, port))
            }
            (Some(suffix), None) if suffix.len() > 1 && suffix.starts_with('.') => {
                Ok(HostPattern::Suffix(suffix.to_owned(), port))
            }
            (None, Some(prefix)) if prefix.len() > 1 && prefix.ends_with('.') => {
                Ok(HostPattern::Prefix(prefix.to_owned(), port))
            }
            _ => Err(bad()),
        }
    }

    pub(super) fn port(&self) -> Option<u16> {
        let (HostPattern::Exact(_, port)
        | HostPattern::Suffix(_, port)
        | HostPattern::Prefix(_, port)) = self;
        *port
    }
}

/// Splits `host[:port]`, where the host may be an IPv6 address in brackets.
pub(crate) fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    match text[end..].strip_prefix(':') {
        None if end == text.len() => Some((text, None)),
        None => None,
        Some(port) => Some((&text[..end], Some(port.parse().ok()?))),
    }
}

/// A regex path, anchored at the start of the request path and open at its end.
#[derive(Debug)]
pub(super) struct PathRegex(Regex);

impl PathRegex {
    pub(super) fn new(pattern: &str) -> Result<PathRegex, PatternError> {
        build(&format!("^(?:{pattern})"), false)
            .map(PathRegex)
            .map_err(|reason| PatternError::Path {
                pattern: pattern.to_owned(),
                reason,
            })
    }

    /// Bytes of `path` that match, if it does.
    pub(super) fn matches(&self, path: &str) -> Option<usize> {
        self.0.find(path).map(|found| found.end())
    }
}

fn build(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| {
            error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .trim()
                .to_owned()
        })
}

/// A header that must have one of some values.
#[derive(Debug)]
pub(super) struct HeaderRule {
    name: HeaderName,
    values: Vec<ValueRule>,
}

#[derive(Debug)]
enum ValueRule {
    /// Lower case.
    Exact(String),
    Regex(Regex),
}

impl HeaderRule {
    pub(super) fn new(name: &str, values: &[String]) -> Result<HeaderRule, PatternError> {
        let value = |value: &String| match value.strip_prefix("~*") {
            None => Ok(ValueRule::Exact(value.to_lowercase())),
            Some(pattern) => build(pattern, true)
                .map(ValueRule::Regex)
                .map_err(|reason| PatternError::HeaderValue {
                    name: name.to_owned(),
                    pattern: value.clone(),
                    reason,
                }),
        };
        Ok(HeaderRule {
            name: HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                PatternError::HeaderName {
                    name: name.to_owned(),
                }
            })?,
            values: values.iter().map(value).collect::<Result<_, _>>()?,
        })
    }

    /// Whether any line of the header has any of the values.
    pub(super) fn matches(&self, headers: &Fields) -> bool {
        headers.get_all(&self.name).any(|line| {
            let line = String::from_utf8_lossy(line).to_lowercase();
            self.values.iter().any(|value| match value {
                ValueRule::Exact(want) => *want == line,
                ValueRule::Regex(regex) => regex.is_match(&line),
            })
        })
    }
}
