//! Connections through a forward proxy, by CONNECT (RFC 9110 section 9.3.6).

mod no_proxy;
mod open;

use std::fmt;
use std::str::FromStr;

pub use no_proxy::NoProxy;
pub use open::{ProxyError, Way, dial_through};

/// Port of a proxy whose URL has none. Source: data-plane reference 1.12.
const DEFAULT_PORT: u16 = 443;

/// A forward proxy, `http[s]://[user:password@]host[:port]`.
#[derive(Clone, PartialEq, Eq)]
pub struct ForwardProxy {
    /// Whether the proxy itself is spoken to over TLS.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `user:password` as they are sent; never printed.
    pub credentials: Option<String>,
}

/// Text that is no forward proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be http[s]://[user:password@]host[:port], without path or query")]
pub struct ForwardProxyError;

impl FromStr for ForwardProxy {
    type Err = ForwardProxyError;

    fn from_str(text: &str) -> Result<ForwardProxy, ForwardProxyError> {
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(ForwardProxyError),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(decoded(credentials)?), place),
            None => (None, rest),
        };
        let bracketed = place.strip_prefix('[').and_then(|it| it.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(ForwardProxyError)?)),
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| ForwardProxyError)?,
            None => DEFAULT_PORT,
        };
        let fits = |c: char| match bracketed {
            Some(_) => c.is_ascii_hexdigit() || ":.".contains(c),
            None => c.is_ascii_alphanumeric() || "-._".contains(c),
        };
        if host.is_empty() || !host.chars().all(fits) || port == 0 {
            return Err(ForwardProxyError);
        }
        Ok(ForwardProxy {
            tls,
            host: host.to_owned(),
            port,
            credentials,
        })
    }
}

/// Percent escapes stand for bytes that a URL could not have there.
fn decoded(text: &str) -> Result<String, ForwardProxyError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|it| char::from(it.unwrap_or_default()));
        let value = digits.map(|digit| digit.to_digit(16));
        let [Some(high), Some(low)] = value else {
            return Err(ForwardProxyError);
        };
        bytes.push((high * 16 + low) as u8);
    }
    let text = String::from_utf8(bytes).map_err(|_| ForwardProxyError)?;
    match text.contains(char::is_control) {
        true => Err(ForwardProxyError),
        false => Ok(text),
    }
}

impl fmt::Display for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, shown: &str, credentials: Option<&str>) {
        let proxy: ForwardProxy = text.parse().unwrap();
        assert_eq!(format!("{proxy} {proxy:?}"), format!("{shown} {shown}"));
        assert_eq!(proxy.credentials.as_deref(), credentials);
    }

    #[test]
    fn reads_the_url_of_a_proxy() {
        check(
            "http://proxy.example:3128",
            "http://proxy.example:3128",
            None,
        );
        check("http://10.0.0.1", "http://10.0.0.1:443", None);
        check("https://p.example:8443/", "https://p.example:8443", None);
        check("http://u:p@h:1", "http://h:1", Some("u:p"));
        check("http://u:p%40w%C3%A4@h:1", "http://h:1", Some("u:p@wä"));
        check(
            "http://[2001:db8::1]:3128",
            "http://[2001:db8::1]:3128",
            None,
        );
        for bad in [
            "",
            "proxy.example:3128",
            "socks5://h:1",
            "http://",
            "http://:3128",
            "http://h:0",
            "http://h:70000",
            "http://h:1/path",
            "http://h:1?query",
            "http://a b:1",
            "http://u%0a:p@h:1",
            "http://u%4:p@h:1",
            "http://[::1:3128",
            "http://[::1]x:3128",
        ] {
            assert_eq!(bad.parse::<ForwardProxy>(), Err(ForwardProxyError), "{bad}");
        }
    }
}
