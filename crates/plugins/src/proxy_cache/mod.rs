//! `proxy-cache`: answers from stored responses, so that upstreams are asked less.

mod directives;
mod key;
mod media_type;
mod memory;
mod replies;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use sallyport_model::schema::{Field, PROTOCOLS, Record, each};
use serde::Deserialize;
use serde_json::{Value, json};

use directives::{Directives, age_s, lifetime_s, varied};
use key::Keyed;
use media_type::MediaType;
pub use memory::Cache;
use memory::{Key, Stored};
use replies::{Shown, hit, not_modified, storable};

use crate::checks::header_name;
use crate::exchange::{BodyUse, Env, Exchange, Flow, Handler, Reply, Request, ResponseHead};
use crate::node::Node;
use crate::{CompileError, Plugin};

/// The largest body that is stored, bytes.
const BODY_BYTES_MAX: u64 = 8 << 20;

const ABOUT: &str = "\
Responses are kept in the memory of each gateway, shared by its cores and bounded by `mem_cache_size`; what was
not asked for the longest goes first. `X-Cache-Status` says what happened:

| value | meaning |
|---|---|
| `Miss` | nothing was stored; the response of the upstream is stored now |
| `Hit` | answered from a stored response; later plugins of the access phase do not run |
| `Refresh` | what is stored is too old; the upstream is asked and its response takes the place |
| `Bypass` | request or response may not be stored |

`X-Cache-Key` is the SHA-256 of consumer and route, method, the request line up to the query, arguments and
`vary_headers`, byte for byte as Kong's. A response is stored if its status, its method and its type of content
(with exactly the same parameters) are listed, and its body has no more than 8 MiB. `Vary` is honoured: each
variant is stored for itself, up to 16 of them, and `Vary: *` is not stored. Partial responses (206) are never
stored.

With `cache_control: true`, RFC 9111 decides in the place of `cache_ttl`: requests with `no-store`, `no-cache` or
`Authorization` and responses with `private`, `no-store`, `no-cache` or no time of freshness are not stored;
`s-maxage`, `max-age`, `Expires`, `Age` and `Date` say how long a response is fresh; `max-age`, `max-stale`,
`min-fresh` and `only-if-cached` (504) of requests are obeyed; a stale response is only used for a request with
`max-stale`, and never if it says `must-revalidate`; `If-None-Match` and `If-Modified-Since` are answered 304 from
what is stored; and a successful `POST`, `PUT`, `PATCH` or `DELETE` makes the gateway forget what it stored for the
same URL and for those in `Location` and `Content-Location`. Responses are not revalidated with the upstream but asked for anew.

Stored responses are lost when the process ends, and are not shared between gateways.
";

/// The plugin, as the registry lists it.
pub(crate) struct ProxyCache;

impl Plugin for ProxyCache {
    fn name(&self) -> &'static str {
        "proxy-cache"
    }

    fn priority(&self) -> i32 {
        100
    }

    fn summary(&self) -> &'static str {
        "answers from stored responses, so that upstreams are asked less"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        PROTOCOLS
    }

    fn schema(&self) -> Record {
        let shown = |name, about| Field::boolean(name).default(json!(true)).about(about);
        Record::new([
            Field::array("response_code", each::integer().between(100, 900))
                .required()
                .len(1, 64)
                .default(json!([200, 301, 404]))
                .about("Statuses of responses that are stored."),
            Field::array(
                "request_method",
                each::string().one_of(&["HEAD", "GET", "POST", "PATCH", "PUT"]),
            )
            .required()
            .default(json!(["GET", "HEAD"]))
            .about("Methods of requests whose responses are stored."),
            Field::array("content_type", each::string())
                .required()
                .default(json!(["text/plain", "application/json"]))
                .about("Types of responses that are stored; `*` stands for any type or subtype."),
            Field::integer("cache_ttl")
                .above(0)
                .default(json!(300))
                .about("How long a stored response is used, seconds."),
            Field::string("strategy")
                .one_of(&["memory"])
                .required()
                .about("Where responses are stored."),
            Field::boolean("cache_control")
                .required()
                .default(json!(false))
                .about("Whether the headers of requests and responses decide (RFC 9111)."),
            Field::boolean("ignore_uri_case")
                .default(json!(false))
                .about("Whether the case of a path makes no difference."),
            Field::integer("storage_ttl")
                .check(not_negative)
                .about("How long a response is kept, seconds; as long as it is used if unset."),
            Field::record(
                "memory",
                Record::new([Field::string("dictionary_name")
                    .required()
                    .default(json!("kong_db_cache"))
                    .about("Any name; there is one store.")]),
            )
            .required(),
            Field::array("vary_query_params", each::string())
                .about("Arguments that tell requests apart; all of them if unset."),
            Field::array("vary_headers", each::string().check(header_name))
                .about("Headers that tell requests apart."),
            Field::record(
                "response_headers",
                Record::new([
                    shown("age", "Whether clients get `Age`."),
                    shown("X-Cache-Status", "Whether clients get it."),
                    shown("X-Cache-Key", "Whether clients get it."),
                ]),
            )
            .required()
            .about("With the request header `Kong-Debug` clients get all of them."),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let method = |name: &String| name.parse().map_err(CompileError::value);
        let header = |name: String| {
            let header = name.parse().map_err(CompileError::value)?;
            Ok::<_, CompileError>((name, header))
        };
        let types = config.content_type.iter();
        let vary_headers = config.vary_headers.unwrap_or_default();
        Ok(Box::new(Active {
            response_code: config.response_code,
            request_method: config
                .request_method
                .iter()
                .map(method)
                .collect::<Result<_, _>>()?,
            content_type: types.filter_map(|text| MediaType::parse(text)).collect(),
            cache_ttl: config.cache_ttl.unwrap_or(300),
            cache_control: config.cache_control,
            ignore_uri_case: config.ignore_uri_case.unwrap_or(false),
            storage_ttl: config.storage_ttl,
            vary_query_params: config.vary_query_params.unwrap_or_default(),
            vary_headers: vary_headers
                .into_iter()
                .map(header)
                .collect::<Result<_, _>>()?,
            shown: config.response_headers,
        }))
    }
}

fn not_negative(seconds: &Value) -> Result<(), String> {
    match seconds.as_i64() {
        Some(seconds) if seconds < 0 => Err("value must not be negative".to_owned()),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Config {
    response_code: Vec<u16>,
    request_method: Vec<String>,
    content_type: Vec<String>,
    cache_ttl: Option<u64>,
    cache_control: bool,
    ignore_uri_case: Option<bool>,
    storage_ttl: Option<u64>,
    vary_query_params: Option<Vec<String>>,
    vary_headers: Option<Vec<String>>,
    response_headers: Shown,
}

struct Active {
    response_code: Vec<u16>,
    request_method: Vec<Method>,
    content_type: Vec<MediaType>,
    cache_ttl: u64,
    cache_control: bool,
    ignore_uri_case: bool,
    storage_ttl: Option<u64>,
    vary_query_params: Vec<String>,
    vary_headers: Vec<(String, HeaderName)>,
    shown: Shown,
}

/// What is to do once the response is there.
#[derive(Clone)]
enum Pending {
    /// It may be stored.
    Store(Arc<Node>, Key),
    /// It is a stored one, which had these values of `Date` and `Server`.
    Hit(Vec<(HeaderName, HeaderValue)>),
    /// If it is a success, what was stored is no longer true.
    Forget(Arc<Node>),
    /// It is stored once its body is there.
    Body(Arc<Node>, Key, Arc<Stored>),
}

impl Active {
    fn key(&self, exchange: &Exchange, uri: &Uri, method: &Method, version: Version) -> Key {
        let headers = &exchange.request.headers;
        Keyed {
            consumer: exchange.consumer.as_ref().map(|consumer| consumer.id),
            route: exchange.route,
            method: method.as_str(),
            version,
            uri,
            headers,
            ignore_case: self.ignore_uri_case,
            vary_query_params: &self.vary_query_params,
            vary_headers: &self.vary_headers,
        }
        .key()
    }

    fn takes_request(&self, request: &Request, asked: &Directives) -> bool {
        let authorized = || request.headers.contains(&http::header::AUTHORIZATION);
        self.request_method.contains(&request.method)
            && !(self.cache_control && (asked.no_store || asked.no_cache || authorized()))
    }

    /// Forgets what a change of this makes untrue.
    fn forget(&self, exchange: &Exchange, uri: &Uri, cache: &Cache) {
        for method in [Method::GET, Method::HEAD] {
            for version in [Version::HTTP_11, Version::HTTP_2, Version::HTTP_10] {
                cache.remove(&self.key(exchange, uri, &method, version));
            }
        }
    }

    /// Whether a stored response will do.
    fn will_do(&self, stored: &Stored, asked: &Directives, now_ms: u64) -> bool {
        let resident_s = stored.resident_s(now_ms);
        if !self.cache_control {
            return resident_s <= self.cache_ttl;
        }
        let age_s = stored.age_s + resident_s;
        let left_s = stored.fresh_s.saturating_sub(resident_s);
        let over_s = resident_s.saturating_sub(stored.fresh_s);
        let stale_will_do =
            || stored.stale_allowed && asked.max_stale.is_some_and(|seconds| over_s <= seconds);
        asked.max_age.is_none_or(|seconds| age_s <= seconds)
            && asked.min_fresh.is_none_or(|seconds| left_s >= seconds)
            && (left_s > 0 || stale_will_do())
    }

    /// What to store of a response, without its body; `None` if it may not be stored.
    fn takes_response(&self, exchange: &Exchange, response: &ResponseHead<'_>) -> Option<Stored> {
        let status = *response.status;
        let headers = &*response.headers;
        if !self.response_code.contains(&status.as_u16())
            || matches!(
                status,
                StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
            )
        {
            return None;
        }
        let content_type = MediaType::parse(headers.get_str(&CONTENT_TYPE)?)?;
        if !self
            .content_type
            .iter()
            .any(|known| known.means(&content_type))
        {
            return None;
        }
        let said = Directives::of(headers);
        let (age_s, fresh_s) = match self.cache_control {
            false => (0, self.cache_ttl),
            true if said.private || said.no_cache => return None,
            // RFC 9111 section 5.2.2.3
            true if said.must_understand && status.canonical_reason().is_none() => return None,
            true if said.no_store && !said.must_understand => return None,
            true => {
                let age_s = age_s(headers, exchange.now_ms);
                let lifetime_s = lifetime_s(headers, &said, exchange.now_ms)?;
                (
                    age_s,
                    lifetime_s.checked_sub(age_s).filter(|left| *left > 0)?,
                )
            }
        };
        Some(Stored {
            status,
            vary: varied(headers, &exchange.request.headers)?,
            headers: storable(headers, &exchange.response_headers),
            body: Bytes::new(),
            stored_ms: exchange.now_ms,
            age_s,
            fresh_s,
            kept_s: self.storage_ttl.unwrap_or(fresh_s),
            stale_allowed: !said.must_revalidate,
        })
    }

    fn shown(&self, request: &Request) -> Shown {
        match request.headers.contains(&replies::DEBUG) {
            true => Shown::ALL,
            false => self.shown,
        }
    }

    fn tell(&self, exchange: &mut Exchange, status: &'static str) {
        if self.shown(&exchange.request).status {
            let value = HeaderValue::from_static(status);
            exchange.response_headers.set(&replies::STATUS, &value);
        }
    }
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let asked = match self.cache_control {
            true => Directives::of(&exchange.request.headers),
            false => Directives::default(),
        };
        if !self.takes_request(&exchange.request, &asked) {
            if self.cache_control && !exchange.request.method.is_safe() {
                exchange.state.insert(Pending::Forget(env.node.clone()));
            }
            self.tell(exchange, "Bypass");
            return Flow::Continue;
        }
        let request = &exchange.request;
        let key = self.key(exchange, &request.uri, &request.method, request.version);
        let found = env.node.cache.get(&key, &request.headers, exchange.now_ms);
        let shown = self.shown(request);
        let status = match found {
            Some(stored) if self.will_do(&stored, &asked, exchange.now_ms) => {
                let kept = replies::kept_headers(&stored);
                let age_s = stored.age_s + stored.resident_s(exchange.now_ms);
                let unchanged = self.cache_control && not_modified(&stored, request);
                exchange.state.insert(Pending::Hit(kept));
                return Flow::Respond(hit(&stored, unchanged, age_s, &key, shown));
            }
            Some(_) => "Refresh",
            None if asked.only_if_cached => {
                return Flow::Respond(Reply::empty(StatusCode::GATEWAY_TIMEOUT));
            }
            None => "Miss",
        };
        if shown.key {
            let value = HeaderValue::try_from(key::hex(&key)).expect("hex is a header value");
            exchange.response_headers.set(&replies::KEY, &value);
        }
        self.tell(exchange, status);
        exchange.state.insert(Pending::Store(env.node.clone(), key));
        Flow::Continue
    }

    fn filters_headers(&self) -> bool {
        true
    }

    fn header_filter(&self, exchange: &mut Exchange, response: &mut ResponseHead<'_>) {
        match exchange.state.remove::<Pending>() {
            Some(Pending::Store(node, key)) => match self.takes_response(exchange, response) {
                Some(stored) => {
                    let body = Pending::Body(node, key, Arc::new(stored));
                    exchange.state.insert(body);
                }
                None if self.shown(&exchange.request).status => {
                    let bypass = HeaderValue::from_static("Bypass");
                    response.headers.set(&replies::STATUS, &bypass);
                }
                None => {}
            },
            Some(Pending::Hit(kept)) => {
                for (name, value) in &kept {
                    response.headers.set(name, value);
                }
            }
            Some(Pending::Forget(node)) => {
                if response.status.is_success() || response.status.is_redirection() {
                    let uri = &exchange.request.uri;
                    self.forget(exchange, uri, &node.cache);
                    for named in replies::named(response.headers, &exchange.request) {
                        self.forget(exchange, &named, &node.cache);
                    }
                }
            }
            Some(Pending::Body(..)) | None => {}
        }
    }

    fn filters_bodies(&self) -> bool {
        true
    }

    fn body_use(&self, exchange: &Exchange, _: &ResponseHead<'_>) -> BodyUse {
        match exchange.state.get::<Pending>() {
            Some(Pending::Body(..)) => BodyUse::Copy(BODY_BYTES_MAX),
            _ => BodyUse::Pass,
        }
    }

    fn body_copied(&self, exchange: &mut Exchange, body: Bytes) {
        if let Some(Pending::Body(node, key, stored)) = exchange.state.remove::<Pending>()
            && let Some(stored) = Arc::into_inner(stored)
        {
            node.cache.put(key, Stored { body, ..stored });
        }
    }
}

#[cfg(test)]
mod tests;
