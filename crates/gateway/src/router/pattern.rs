//! The patterns of a route: hosts, names of TLS, regex paths, addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use regex_syntax::hir::Look;
use regex_syntax::hir::literal::{ExtractKind, Extractor};
use sallyport_model::entities::Peer;
use sallyport_model::expression::{ExpressionError, REGEX_BYTES_MAX};

/// What of a route cannot be used, beginning with the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum PatternError {
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
    #[error("{field}: invalid address or network '{ip}'")]
    Peer { field: &'static str, ip: String },
    #[error("expression: {0}")]
    Expression(#[from] ExpressionError),
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

/// A name of the TLS handshake that a route wants; lower case, without the dot of the root.
#[derive(Debug)]
pub(super) enum SniPattern {
    Exact(String),
    /// `*.example.com` as `.example.com`.
    Suffix(String),
    /// `example.*` as `example.`.
    Prefix(String),
}

impl SniPattern {
    pub(super) fn new(text: &str) -> SniPattern {
        let lower = text.to_ascii_lowercase();
        if let Some(prefix) = lower.strip_suffix('*').filter(|_| !lower.starts_with('*')) {
            return SniPattern::Prefix(prefix.to_owned());
        }
        let name = lower.strip_suffix('.').filter(|name| !name.is_empty());
        let name = name.unwrap_or(&lower);
        match name.strip_prefix('*') {
            Some(suffix) => SniPattern::Suffix(suffix.to_owned()),
            None => SniPattern::Exact(name.to_owned()),
        }
    }

    pub(super) fn matches(&self, sni: &str) -> bool {
        match self {
            SniPattern::Exact(name) => sni == name,
            SniPattern::Suffix(suffix) => sni.ends_with(&**suffix),
            SniPattern::Prefix(prefix) => sni.starts_with(&**prefix),
        }
    }
}

/// An entry of `sources` or `destinations`: what is set must match.
#[derive(Debug)]
pub(super) struct PeerPattern {
    net: Option<IpNet>,
    port: Option<u16>,
}

impl PeerPattern {
    pub(super) fn new(field: &'static str, peer: &Peer) -> Result<PeerPattern, PatternError> {
        let net = |ip: &String| {
            let host = ip.parse::<IpAddr>().map(IpNet::from);
            let net = host.or_else(|_| ip.parse::<IpNet>().map(|net| net.trunc()));
            net.map_err(|_| PatternError::Peer {
                field,
                ip: ip.clone(),
            })
        };
        Ok(PeerPattern {
            net: peer.ip.as_ref().map(net).transpose()?,
            port: peer.port,
        })
    }

    pub(super) fn matches(&self, ip: Option<IpAddr>, port: Option<u16>) -> bool {
        (self.net).is_none_or(|net| ip.is_some_and(|ip| net.contains(&ip)))
            && self.port.is_none_or(|want| port == Some(want))
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

    pub(super) fn regex(&self) -> &Regex {
        &self.0
    }
}

/// What every text that the regex matches starts with; `None` if it may match later in a text.
pub(super) fn literal_prefix(regex: &Regex) -> Option<String> {
    let hir = regex_syntax::parse(regex.as_str()).ok()?;
    if !hir.properties().look_set_prefix().contains(Look::Start) {
        return None;
    }
    let literals = Extractor::new().kind(ExtractKind::Prefix).extract(&hir);
    let common = literals.longest_common_prefix().unwrap_or_default();
    let chunk = common.utf8_chunks().next();
    Some(chunk.map_or("", |chunk| chunk.valid()).to_owned())
}

/// A regex within our bound on its size.
///
/// # Errors
/// What is wrong with it, as text.
pub(super) fn build(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| {
            let shown = error.to_string();
            let last = shown.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, expected: Option<&str>) {
        let found = literal_prefix(&Regex::new(pattern).unwrap());
        assert_eq!(found.as_deref(), expected, "{pattern}");
    }

    #[test]
    fn the_literal_prefix_of_a_regex() {
        check("^(?:/users/\\d+)", Some("/users/"));
        check("^(?:/a|/ab)", Some("/a"));
        check("^(?:/a|b)", Some(""));
        check("^(?:/a(?:x|y)/z)", Some("/a"));
        check("^(?:(?i)/Ab)", Some("/"));
        check("^(?:/ü[ab])", Some("/ü"));
        check("^(?:/(?P<id>[0-9]{2})/x)", Some("/"));
        check("^(?:)", Some(""));
        check("^(?:/a*)", Some("/"));
        check("/a", None);
        check("^/a|/b", None);
        check("(?m)^/a", None);
        check("^/a|^/ab", Some("/a"));
    }

    #[test]
    fn names_of_tls() {
        let matches = |pattern: &str, sni: &str| SniPattern::new(pattern).matches(sni);
        assert!(matches("A.example.", "a.example"));
        assert!(!matches("a.example", "b.a.example"));
        assert!(matches("*.example.", "a.example"));
        assert!(matches("*.example", "b.a.example"));
        assert!(!matches("*.example", "example"));
        assert!(matches("a.*", "a.example"));
        assert!(!matches("a.*", "b.a.example"));
    }
}
