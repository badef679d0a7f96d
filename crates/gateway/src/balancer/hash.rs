//! What of a request consistent hashing hashes.
//!
//! Source: data-plane reference 5.1; values as nginx and Kong see them, so that a request hashes
//! alike here and there.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use sallyport_model::balancing::HashOn;
use sallyport_model::entities::Upstream;
use sallyport_plugins::{Exchange, Fields};
use uuid::Uuid;

use super::xxh32::xxh32;
use crate::router;

/// Query arguments that are looked at. Source: `lua_max_uri_args`.
const ARGUMENTS_MAX: usize = 100;

/// What is hashed, and what if that is not there.
#[derive(Debug, PartialEq)]
pub(crate) struct HashBy {
    inputs: Vec<Input>,
}

#[derive(Debug, PartialEq)]
enum Input {
    Consumer,
    Ip,
    Header(HeaderName),
    Cookie { name: Box<str>, path: Box<str> },
    Path,
    QueryArg(Box<str>),
    UriCapture(Box<str>),
}

/// A request as it is hashed.
#[derive(Clone, Copy)]
pub(crate) struct Hashable<'a> {
    pub(crate) exchange: &'a Exchange,
    /// The path as the client sent it.
    pub(crate) raw_path: &'a str,
}

/// The hash of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hashed {
    pub(crate) hash: u32,
    /// `Set-Cookie` that makes the client hash alike the next time.
    pub(crate) cookie: Option<HeaderValue>,
}

impl HashBy {
    /// What an upstream hashes.
    ///
    /// # Errors
    /// A text that names the field that cannot be used.
    pub(crate) fn new(upstream: &Upstream) -> Result<HashBy, String> {
        let first = Input::new(
            upstream,
            upstream.hash_on,
            "hash_on",
            [
                &upstream.hash_on_header,
                &upstream.hash_on_query_arg,
                &upstream.hash_on_uri_capture,
            ],
        )?;
        // without a first input nothing is hashed, whatever the second
        let second = match first {
            None => None,
            Some(_) => Input::new(
                upstream,
                upstream.hash_fallback,
                "hash_fallback",
                [
                    &upstream.hash_fallback_header,
                    &upstream.hash_fallback_query_arg,
                    &upstream.hash_fallback_uri_capture,
                ],
            )?,
        };
        Ok(HashBy {
            inputs: first.into_iter().chain(second).collect(),
        })
    }

    /// Whether what the route captures is needed.
    pub(crate) fn needs_captures(&self) -> bool {
        self.inputs
            .iter()
            .any(|input| matches!(input, Input::UriCapture(_)))
    }

    /// The hash of a request; without any input it is that of nothing, the same for all.
    pub(crate) fn hash(&self, request: Hashable<'_>, random: impl Fn() -> u64) -> Hashed {
        for input in &self.inputs {
            if let Some(value) = input.value(request) {
                return Hashed {
                    hash: xxh32(&value),
                    cookie: None,
                };
            }
            if let Input::Cookie { name, path } = input {
                let id = Uuid::from_u64_pair(random(), random());
                let id = uuid::Builder::from_u128(id.as_u128())
                    .with_variant(uuid::Variant::RFC4122)
                    .with_version(uuid::Version::Random)
                    .into_uuid()
                    .to_string();
                // the odd attribute name is Kong's
                let cookie = format!("{name}={id}; Path={path}; Same-Site=Lax; HttpOnly");
                return Hashed {
                    hash: xxh32(id.as_bytes()),
                    cookie: HeaderValue::try_from(cookie).ok(),
                };
            }
        }
        Hashed {
            hash: xxh32(b""),
            cookie: None,
        }
    }
}

impl Input {
    fn new(
        upstream: &Upstream,
        on: HashOn,
        field: &str,
        [header, argument, capture]: [&Option<String>; 3],
    ) -> Result<Option<Input>, String> {
        let given = |value: &Option<String>, suffix: &str| -> Result<Box<str>, String> {
            let value = value
                .as_deref()
                .ok_or(format!("{field}{suffix} is not set"))?;
            Ok(value.into())
        };
        Ok(Some(match on {
            HashOn::None => return Ok(None),
            HashOn::Consumer => Input::Consumer,
            HashOn::Ip => Input::Ip,
            HashOn::Path => Input::Path,
            HashOn::Header => {
                let name = given(header, "_header")?;
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| format!("{field}_header '{name}' is not the name of a header"))?;
                Input::Header(name)
            }
            HashOn::Cookie => {
                let name = upstream
                    .hash_on_cookie
                    .as_deref()
                    .ok_or("hash_on_cookie is not set")?;
                let path = match upstream.hash_on_cookie_path.as_str() {
                    "" => "/",
                    path => path,
                };
                Input::Cookie {
                    name: name.into(),
                    path: path.into(),
                }
            }
            HashOn::QueryArg => Input::QueryArg(given(argument, "_query_arg")?),
            HashOn::UriCapture => Input::UriCapture(given(capture, "_uri_capture")?),
        }))
    }

    fn value<'a>(&self, request: Hashable<'a>) -> Option<Cow<'a, [u8]>> {
        let head = &request.exchange.request;
        match self {
            Input::Consumer => {
                let consumer = request
                    .exchange
                    .consumer
                    .as_ref()
                    .map(|consumer| consumer.id);
                let credential = request.exchange.credential.as_ref().map(|it| it.id);
                Some(consumer.or(credential)?.to_string().into_bytes().into())
            }
            Input::Ip => Some(request.exchange.client_ip.to_string().into_bytes().into()),
            Input::Header(name) => joined(&head.headers, name),
            Input::Cookie { name, .. } => cookie(&head.headers, name),
            Input::Path => Some(bytes(router::normalise(request.raw_path))),
            Input::QueryArg(name) => argument(head.uri.query()?, name),
            Input::UriCapture(name) => {
                let text = request.exchange.uri_captures.named(name)?;
                Some(text.as_bytes().into())
            }
        }
    }
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}

/// The values of a header, joined as nginx does.
fn joined<'a>(headers: &'a Fields, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name);
    let mut all = Cow::Borrowed(values.next()?);
    for value in values {
        let all = all.to_mut();
        all.extend_from_slice(b", ");
        all.extend_from_slice(value);
    }
    Some(all)
}

/// The first cookie of this name.
fn cookie<'a>(headers: &'a Fields, name: &str) -> Option<Cow<'a, [u8]>> {
    headers
        .get_all(&COOKIE)
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .find_map(|pair| {
            let pair = pair.trim_ascii();
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (found, value) = pair.split_at(at);
            found
                .trim_ascii_end()
                .eq_ignore_ascii_case(name.as_bytes())
                .then_some(value[1..].trim_ascii_start())
        })
        .map(Cow::Borrowed)
}

/// The values of a query argument, sorted and joined; one without `=` is `true`.
fn argument<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let decoded = |text: &str| -> Vec<u8> { percent_decode_str(&text.replace('+', " ")).collect() };
    let mut values: Vec<Vec<u8>> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .take(ARGUMENTS_MAX)
        .filter_map(|pair| match pair.split_once('=') {
            Some((found, value)) => (decoded(found) == name.as_bytes()).then(|| decoded(value)),
            None => (decoded(pair) == name.as_bytes()).then(|| b"true".to_vec()),
        })
        .collect();
    if values.is_empty() {
        return None;
    }
    values.sort();
    Some(values.join(&b","[..]).into())
}

#[cfg(test)]
mod tests {
    use sallyport_model::entities::{self, ConfigTable};
    use sallyport_plugins::{Captures, Credential, Identities, Request, RequestBody};
    use serde_json::{Value, json};

    use super::*;
    use crate::balancer::tests::upstream;

    /// What a route `~/users/(?<id>[^/]+)` captures.
    fn captures(uri: &str) -> Captures {
        let id = uri
            .strip_prefix("/users/")
            .and_then(|rest| rest.split('/').next());
        Captures {
            indexed: Vec::new(),
            named: id
                .map(|id| ("id".to_owned(), id.to_owned()))
                .into_iter()
                .collect(),
        }
    }

    fn exchange(uri: &str, headers: &[(&str, &str)]) -> Exchange {
        let mut fields = Fields::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            fields.append(&name, &HeaderValue::from_str(value).unwrap());
        }
        Exchange {
            request: Request {
                method: http::Method::GET,
                uri: uri.parse().unwrap(),
                version: http::Version::HTTP_11,
                headers: fields,
            },
            body: RequestBody::Coming(Some(0)),
            client_ip: "10.1.2.3".parse().unwrap(),
            now_ms: 0,
            route: None,
            service: None,
            consumer: None,
            credential: None,
            uri_captures: captures(uri),
            upstream_path: None,
            upstream_host: None,
            state: http::Extensions::default(),
            response_headers: Fields::new(),
        }
    }

    fn hash(fields: Value, exchange: &Exchange) -> Hashed {
        let by = HashBy::new(&upstream(fields)).unwrap();
        let raw_path = exchange.request.uri.path();
        let request = Hashable { exchange, raw_path };
        by.hash(request, || 7)
    }

    /// The request hashes as this value does.
    #[track_caller]
    fn check(fields: Value, uri: &str, headers: &[(&str, &str)], value: &str) {
        let hashed = hash(fields, &exchange(uri, headers));
        assert_eq!(hashed.hash, xxh32(value.as_bytes()), "expected {value:?}");
        assert_eq!(hashed.cookie, None);
    }

    #[test]
    fn every_input() {
        let none = json!({"algorithm": "consistent-hashing"});
        check(none, "/a", &[], "");
        check(json!({"hash_on": "ip"}), "/a", &[], "10.1.2.3");
        check(json!({"hash_on": "path"}), "/a/%7Eb?x", &[], "/a/~b");
        let header = json!({"hash_on": "header", "hash_on_header": "X-Tenant"});
        check(header.clone(), "/", &[("x-tenant", "a")], "a");
        let twice = [("x-tenant", "a"), ("X-Tenant", "b")];
        check(header, "/", &twice, "a, b");
        let cookie = json!({"hash_on": "cookie", "hash_on_cookie": "sid"});
        let lines = [("cookie", "xsid=1; a=b"), ("cookie", "SID=42; sid=2")];
        check(cookie, "/", &lines, "42");
        let argument = json!({"hash_on": "query_arg", "hash_on_query_arg": "k y"});
        check(argument.clone(), "/?a=1&k+y=v%20w", &[], "v w");
        check(argument.clone(), "/?k%20y=b&k+y=a&k+y", &[], "a,b,true");
        check(argument, "/?k=1", &[], "");
        let capture = json!({"hash_on": "uri_capture", "hash_on_uri_capture": "id"});
        check(capture.clone(), "/users/42/x", &[], "42");
        check(capture, "/nobody", &[], "");
    }

    #[test]
    fn consumers_hash_by_id_and_strangers_by_their_credential() {
        let by = || json!({"hash_on": "consumer"});
        let mut known = exchange("/", &[]);
        let credential = Credential {
            id: Uuid::from_u128(2),
            identifier: HeaderValue::from_static("x"),
        };
        known.credential = Some(credential);
        let text = Uuid::from_u128(2).to_string();
        assert_eq!(hash(by(), &known).hash, xxh32(text.as_bytes()));
        let table = ConfigTable {
            consumers: vec![entities::Consumer {
                id: Uuid::from_u128(1),
                username: Some("a".to_owned()),
                custom_id: None,
            }],
            ..ConfigTable::default()
        };
        known.consumer = Identities::new(&table, 0).consumer("a").cloned();
        let text = Uuid::from_u128(1).to_string();
        assert_eq!(hash(by(), &known).hash, xxh32(text.as_bytes()));
        assert_eq!(hash(by(), &exchange("/", &[])).hash, xxh32(b""));
    }

    #[test]
    fn a_fallback_counts_if_the_first_is_missing() {
        let by = json!({
            "hash_on": "header", "hash_on_header": "a",
            "hash_fallback": "query_arg", "hash_fallback_query_arg": "q",
        });
        check(by.clone(), "/?q=2", &[("a", "1")], "1");
        check(by.clone(), "/?q=2", &[], "2");
        check(by.clone(), "/", &[], "");
        check(by, "/?q=2", &[("a", "")], "");
        let by = json!({"hash_on": "consumer", "hash_fallback": "ip"});
        check(by, "/", &[], "10.1.2.3");
    }

    #[test]
    fn a_missing_cookie_is_made() {
        let by = json!({
            "hash_on": "header", "hash_on_header": "a",
            "hash_fallback": "cookie", "hash_on_cookie": "sid", "hash_on_cookie_path": "/p",
        });
        let made = hash(by.clone(), &exchange("/", &[]));
        let cookie = made.cookie.unwrap();
        let cookie = cookie.to_str().unwrap();
        let (pair, rest) = cookie.split_once(';').unwrap();
        assert_eq!(rest, " Path=/p; Same-Site=Lax; HttpOnly");
        let id: Uuid = pair.strip_prefix("sid=").unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 4);
        check(by, "/", &[("cookie", pair)], &id.to_string());
        let again = hash(
            json!({"hash_on": "cookie", "hash_on_cookie": "sid"}),
            &exchange("/", &[("cookie", pair)]),
        );
        assert_eq!(again.hash, made.hash);
    }

    proptest::proptest! {
        #[test]
        fn any_request_hashes(query in "[!-~]{0,60}", cookies: Vec<Vec<u8>>) {
            let _ = argument(&query, "a");
            let mut fields = Fields::new();
            for line in cookies {
                if let Ok(value) = HeaderValue::from_bytes(&line) {
                    fields.append(&COOKIE, &value);
                }
            }
            let _ = (cookie(&fields, "a"), joined(&fields, &COOKIE));
        }
    }
}
