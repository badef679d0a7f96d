//! Conditions on values that several tables share, in Kong's wording.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::expression::REGEX_BYTES_MAX;

/// A name of a service or route: ASCII letters, digits and `.-_~`, or any letter beyond ASCII.
pub(super) fn name(value: &Value) -> Result<(), String> {
    let text = text(value);
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_~".contains(c) || !c.is_ascii();
    match text.chars().all(good) {
        true => Ok(()),
        false => Err(format!(
            "invalid value '{text}': the only accepted ascii characters are alphanumerics or ., \
             -, _, and ~"
        )),
    }
}

/// A tag: no `,` and no `/` (they mean "and" and "or" in queries), nothing that cannot be
/// printed.
pub(super) fn tag(value: &Value) -> Result<(), String> {
    let text = text(value);
    match text.chars().any(|c| c == ',' || c == '/' || c.is_control()) {
        false => Ok(()),
        true => Err(format!(
            "invalid tag '{text}': expected printable ascii (except `,` and `/`) or valid utf-8 \
             sequences"
        )),
    }
}

/// A path that is used literally.
pub(super) fn path(value: &Value) -> Result<(), String> {
    let text = text(value);
    if !text.starts_with('/') {
        return Err("should start with: /".to_owned());
    }
    if text.contains("//") {
        return Err("must not have empty segments".to_owned());
    }
    // RFC 3986: unreserved, reserved and percent-encoded, without what ends a path.
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/[]@!$&'()*+,;=%".contains(&b);
    if !text.bytes().all(good) {
        return Err(format!(
            "invalid path: '{text}' (characters outside of the reserved list of RFC 3986 found)"
        ));
    }
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let digits = bytes.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            let sequence: String = text[at..].chars().take(3).collect();
            return Err(format!("invalid url-encoded value: '{sequence}'"));
        }
    }
    Ok(())
}

/// A path of a route: literal, or a regular expression after `~`.
pub(super) fn route_path(value: &Value) -> Result<(), String> {
    let text = text(value);
    match text.strip_prefix('~') {
        None if text.starts_with('/') => path(value),
        Some(pattern) if pattern.starts_with('/') => regex(pattern),
        _ => Err("should start with: / (fixed path) or ~/ (regex path)".to_owned()),
    }
}

/// A value of a header of a route: literal, or a regular expression after `~*`.
pub(super) fn route_header_value(value: &Value) -> Result<(), String> {
    text(value).strip_prefix("~*").map_or(Ok(()), regex)
}

/// A regular expression within the bound that gateways have.
fn regex(pattern: &str) -> Result<(), String> {
    let built = regex::RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .build();
    built.map(drop).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or("").trim();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        format!("invalid regex: '{pattern}' ({reason})")
    })
}

/// A host name or an address, without a port.
pub(super) fn host(value: &Value) -> Result<(), String> {
    let text = text(value);
    if is_address(text) || is_hostname(text) {
        return Ok(());
    }
    match split_port(text) {
        Some((name, Ok(_))) if is_address(name) || is_hostname(name) => {
            Err("must not have a port".to_owned())
        }
        _ => Err(format!("invalid value: {text}")),
    }
}

/// A URL of a server. The message does not show it: it may hold a password.
pub(super) fn url(value: &Value) -> Result<(), String> {
    let Some((scheme, rest)) = text(value).split_once("://") else {
        return Err("missing scheme in url".to_owned());
    };
    if !matches!(scheme, "http" | "https") {
        return Err("the scheme of the url must be http or https".to_owned());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    if host.is_empty() || host.starts_with(':') {
        return Err("missing host in url".to_owned());
    }
    match host_with_optional_port(&Value::from(host)) {
        Ok(()) => Ok(()),
        Err(_) => Err("invalid host in url".to_owned()),
    }
}

/// A host name or an address, with a port or without.
pub(super) fn host_with_optional_port(value: &Value) -> Result<(), String> {
    let text = text(value);
    let host = match split_port(text) {
        Some((name, Ok(_))) => name,
        Some((_, Err(()))) => return Err(format!("invalid value: {text}")),
        None => text,
    };
    match is_address(host) || is_hostname(host) {
        true => Ok(()),
        false => Err(format!("invalid value: {text}")),
    }
}

/// A host name with `*` as its first or last label, with a port or without.
pub(super) fn wildcard_host_port(value: &Value) -> Result<(), String> {
    let host = text(value);
    if !host.contains('*') {
        return host_with_optional_port(value);
    }
    match split_port(host) {
        Some((name, Ok(_))) => wildcard(name),
        Some((_, Err(()))) => Err(format!("invalid value: {host}")),
        None => wildcard(host),
    }
}

/// A name that TLS clients ask for, with `*` as its first or last label or without.
pub(super) fn sni(value: &Value) -> Result<(), String> {
    let name = text(value);
    match name.contains('*') {
        true => wildcard(name),
        false if is_hostname(name) => Ok(()),
        false => Err(format!("invalid value: {name}")),
    }
}

fn wildcard(host: &str) -> Result<(), String> {
    if host.matches('*').count() > 1 {
        return Err("only one wildcard must be specified".to_owned());
    }
    let rest = host.strip_prefix("*.").or_else(|| host.strip_suffix(".*"));
    match rest {
        Some(rest) if is_hostname(rest) => Ok(()),
        Some(_) => Err(format!("invalid value: {host}")),
        None => Err("wildcard must be leftmost or rightmost character".to_owned()),
    }
}

/// The name of an upstream: a host name, not an address.
pub(super) fn upstream_name(value: &Value) -> Result<(), String> {
    let text = text(value);
    if is_address(text) {
        return Err(format!("Invalid name ('{text}'); no ip addresses allowed"));
    }
    match split_port(text) {
        Some(_) => Err(format!("Invalid name ('{text}'); no port allowed")),
        None if is_hostname(text) => Ok(()),
        None => Err(format!("Invalid name ('{text}'); must be a valid hostname")),
    }
}

/// An HTTP method in upper case.
pub(super) fn method(value: &Value) -> Result<(), String> {
    let text = text(value);
    match text.bytes().all(|b| b.is_ascii_uppercase()) {
        true => Ok(()),
        false => Err(format!("invalid value: {text}")),
    }
}

/// A header name (RFC 9110 token).
pub(super) fn header_name(value: &Value) -> Result<(), String> {
    let text = text(value);
    let good = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    match text.bytes().all(good) {
        true => Ok(()),
        false => Err(format!(
            "bad header name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
        )),
    }
}

/// An address or a network in CIDR form.
pub(super) fn ip_or_cidr(value: &Value) -> Result<(), String> {
    let text = text(value);
    let good = text.parse::<IpAddr>().is_ok() || text.parse::<ipnet::IpNet>().is_ok();
    match good {
        true => Ok(()),
        false => Err(format!("invalid ip or cidr range: '{text}'")),
    }
}

/// `host[:port]` as `host:port`, port 8000 when there is none; `None` if it is not one.
pub(super) fn target(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(format!("[{address}]:8000"));
    }
    let (host, port) = match split_port(text) {
        Some((host, Ok(port))) => (host, port),
        Some((_, Err(()))) => return None,
        None => (text, 8000),
    };
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Some(inner) = inner {
        let address: Ipv6Addr = inner.parse().ok()?;
        return Some(format!("[{address}]:{port}"));
    }
    // All digits and dots but no address: a typing error, not a name.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (is_address(host) || (is_hostname(host) && !numeric)).then(|| format!("{host}:{port}"))
}

/// Splits `host:port` and `[v6]:port`; the inner error means a port that is no number up to
/// 65535. A bare IPv6 address has no port.
fn split_port(text: &str) -> Option<(&str, Result<u16, ()>)> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return None;
    }
    let (host, port) = text.rsplit_once(':')?;
    if host.starts_with('[') && !host.ends_with(']') {
        return None;
    }
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = if digits {
        port.parse().map_err(drop)
    } else {
        Err(())
    };
    Some((host, port))
}

fn is_address(text: &str) -> bool {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok(),
    }
}

/// Labels of letters, digits, `-` and `_`, no `-` at their ends; one trailing dot is fine.
fn is_hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty()
            && label.bytes().all(good)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.split('.').all(label)
}

/// The text of a value whose type is checked; empty for any other, which nothing accepts.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: fn(&Value) -> Result<(), String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(&Value::from(*text)), Ok(()), "{text}");
        }
        for text in bad {
            assert!(
                rule(&Value::from(*text)).is_err(),
                "{text} should be refused"
            );
        }
    }

    #[test]
    fn names_and_tags() {
        check(
            name,
            &["orders", "a.b-c_d~e", "größe"],
            &["a b", "a/b", "a,b", "a\n"],
        );
        check(tag, &["a b", "team:x", "größe"], &["a,b", "a/b", "a\u{7}"]);
    }

    #[test]
    fn paths() {
        check(
            path,
            &["/", "/a/b", "/a%20b", "/a:b@c"],
            &[
                "a", "/a//b", "/a b", "/a?b", "/a#b", "/%2", "/%zz", "/é", "/%é",
            ],
        );
        check(
            route_path,
            &["/a", "~/a/(?<id>\\d+)$", "~/a|b"],
            &["a", "~a", "~/(", "/a{1}"],
        );
    }

    #[test]
    fn hosts() {
        check(
            host,
            &["localhost", "a.example.", "10.0.0.1", "::1", "[::1]", "a_b"],
            &["a:80", "a..b", "-a", "a-", "a b", "", ".", "é", "*"],
        );
        check(
            host_with_optional_port,
            &["a", "a:80", "[::1]:80", "::1"],
            &["a:", "a:x", "a:70000"],
        );
        check(
            wildcard_host_port,
            &["*.a.b", "a.*", "*.a:80", "a.b"],
            &["*", "a.*.b", "*a", "*.*"],
        );
        check(sni, &["a.b", "*.b", "a.*"], &["a:80", "*"]);
        check(
            upstream_name,
            &["u", "u.v"],
            &["10.0.0.1", "u:80", "u v", "::1"],
        );
    }

    #[test]
    fn methods_headers_networks() {
        check(method, &["GET", "PURGE"], &["get", "G T"]);
        check(header_name, &["X-A", "x_b"], &["a b", "a:b", "é"]);
        check(
            ip_or_cidr,
            &["10.0.0.1", "10.0.0.0/8", "::1", "fe80::/10"],
            &["10", "a", "1.2.3.4/33"],
        );
    }

    #[test]
    fn targets_have_a_port() {
        for (given, expected) in [
            ("a", Some("a:8000")),
            ("a:80", Some("a:80")),
            ("10.0.0.1", Some("10.0.0.1:8000")),
            ("::1", Some("[::1]:8000")),
            ("[::1]:81", Some("[::1]:81")),
            ("[::1]", Some("[::1]:8000")),
            ("[::1", None),
            ("a:b", None),
            ("a:70000", None),
            ("", None),
            (":80", None),
            ("1.2.3", None),
            ("a b:80", None),
        ] {
            assert_eq!(target(given).as_deref(), expected, "{given}");
        }
    }
}
