//! URLs of servers that plugins send to.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::{Map, Value};

use crate::CompileError;

/// Where an HTTP server is, and what to ask it for.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Path and query.
    pub target: String,
    /// Value of `Host`.
    pub authority: String,
    /// Value of `Authorization`, from the user information of the URL.
    pub authorization: Option<String>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Endpoint {
    /// Reads `http://[user:password@]host[:port][/path][?query]`, or `https://…`.
    ///
    /// # Errors
    /// It is no such URL. The text does not show it: it may be a secret.
    pub fn parse(url: &str) -> Result<Endpoint, CompileError> {
        let bad = |what: &str| CompileError::value(format!("the URL {what}"));
        let uri: Uri = url.parse().map_err(|_| bad("cannot be read"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(bad("must begin with http:// or https://")),
        };
        let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad("names no host"));
        }
        let port = match uri.port() {
            Some(port) => port.as_u16(),
            None if authority.trim_end_matches(':').len()
                == uri.host().unwrap_or_default().len() =>
            {
                if tls {
                    443
                } else {
                    80
                }
            }
            None => return Err(bad("has no number for its port")),
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Endpoint {
            tls,
            host: host.to_owned(),
            port,
            target: target.to_owned(),
            authority: authority.to_owned(),
            authorization: user.map(|user| format!("Basic {}", STANDARD.encode(user))),
        })
    }
}

/// Headers of a configuration. Their values may be secrets.
pub(crate) fn headers(map: &Map<String, Value>) -> Result<HeaderMap, CompileError> {
    let mut headers = HeaderMap::new();
    for (name, value) in map {
        let bad = || CompileError::value(format!("headers.{name}: no value of a header"));
        let parsed: HeaderName = name.parse().map_err(CompileError::value)?;
        let value = value.as_str().ok_or_else(bad)?;
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(url: &str, expected: (bool, &str, u16, &str)) {
        let Endpoint {
            tls,
            host,
            port,
            target,
            ..
        } = Endpoint::parse(url).unwrap();
        assert_eq!((tls, &host[..], port, &target[..]), expected);
    }

    #[test]
    fn urls_of_every_shape() {
        check("http://logs", (false, "logs", 80, "/"));
        check("https://logs/a?b=c", (true, "logs", 443, "/a?b=c"));
        check("http://[::1]:9000/a", (false, "::1", 9000, "/a"));
        let with_user = Endpoint::parse("https://me:s3cret@logs:8443/x").unwrap();
        assert_eq!(with_user.authority, "logs:8443");
        assert_eq!(
            with_user.authorization.as_deref(),
            Some("Basic bWU6czNjcmV0")
        );
        assert!(!format!("{with_user:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_no_url_is_refused_without_showing_it() {
        for url in [
            "",
            "logs",
            "/a",
            "ftp://logs/",
            "http://",
            "http://a b/",
            "http://s3cret:x/",
        ] {
            let error = Endpoint::parse(url).unwrap_err().to_string();
            assert!(
                error.starts_with("the URL ") && !error.contains("s3cret"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_url_breaks_it(url in "\\PC{0,30}", rest in "\\PC{0,30}") {
            _ = Endpoint::parse(&url);
            _ = Endpoint::parse(&format!("http://{rest}"));
        }
    }
}
