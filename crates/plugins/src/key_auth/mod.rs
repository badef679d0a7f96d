//! `key-auth`: recognises a consumer by a key in a header, in the query or in the body.

mod body;

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use sallyport_model::schema::{Field, Record, each};

use crate::arguments::{has_argument, header_name, query_values, remove_argument};
use crate::auth::{Gate, admit, anonymous, challenge, realm, unauthorized};
use crate::exchange::{Env, Exchange, Flow, Handler, RequestBody};
use crate::{CompileError, Plugin};
use body::Body;

const ABOUT: &str = "\
For each of `key_names`, first the header, then the query argument, then the body is looked at; the first one that is
there counts. A body is read if it is JSON (a member of the object), a form or a multipart form, and has at most 1 MiB; a larger
one has no key. With `hide_credentials` header, argument and member of the name that held the key are all removed
before the request goes upstream. Credentials are `keyauth_credentials` of consumers; one with a `ttl` is good for so many seconds after it was
written, or after a document that does not say when was loaded.

| case | answer |
|---|---|
| no key | 401 `No API key found in request` |
| the same header, argument or member of the body twice | 401 `Duplicate API key found` |
| a key that nobody has, or whose time is over | 401 `Unauthorized` |

Each with `WWW-Authenticate: Key`, or `Key realm=\"<realm>\"`.
";

/// The plugin, as the registry lists it.
pub(crate) struct KeyAuth;

impl Plugin for KeyAuth {
    fn name(&self) -> &'static str {
        "key-auth"
    }

    fn priority(&self) -> i32 {
        1250
    }

    fn summary(&self) -> &'static str {
        "recognises a consumer by a key in a header, in the query or in the body"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn consumer_scope(&self) -> bool {
        false
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::array("key_names", each::string().check(header_name))
                .required()
                .len(1, 64)
                .default(json!(["apikey"]))
                .about("Names of the header, of the query argument and of the member of the body that may hold the key."),
            Field::boolean("hide_credentials")
                .required()
                .default(json!(false))
                .about("Whether the key is removed before the request goes upstream."),
            anonymous(),
            Field::boolean("key_in_header")
                .required()
                .default(json!(true))
                .about("Whether headers are looked at."),
            Field::boolean("key_in_query")
                .required()
                .default(json!(true))
                .about("Whether query arguments are looked at."),
            Field::boolean("key_in_body")
                .required()
                .default(json!(false))
                .about("Whether bodies are looked at: JSON, forms and multipart forms."),
            Field::boolean("run_on_preflight")
                .required()
                .default(json!(true))
                .about("Whether `OPTIONS` requests need a key too."),
            realm(),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let key_names = config
            .key_names
            .iter()
            .map(|name| {
                let header =
                    HeaderName::from_bytes(name.as_bytes()).map_err(CompileError::value)?;
                Ok((name.clone(), header))
            })
            .collect::<Result<_, CompileError>>()?;
        Ok(Box::new(Active(Arc::new(Inner {
            key_names,
            challenge: challenge("Key", config.realm.as_deref())?,
            gate: Gate::new(config.anonymous.clone()),
            config,
        }))))
    }
}

#[derive(Deserialize)]
struct Config {
    key_names: Vec<String>,
    hide_credentials: bool,
    anonymous: Option<String>,
    key_in_header: bool,
    key_in_query: bool,
    #[serde(default)]
    key_in_body: bool,
    run_on_preflight: bool,
    realm: Option<String>,
}

/// Largest body that is read for a key, bytes.
const BODY_BYTES_MAX: u64 = 1 << 20;

struct Active(Arc<Inner>);

struct Inner {
    key_names: Vec<(String, HeaderName)>,
    challenge: HeaderValue,
    gate: Gate,
    config: Config,
}

#[derive(Debug)]
enum Found {
    Key(Vec<u8>),
    Nothing,
    Twice,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let Active(inner) = self;
        if exchange.request.method == Method::OPTIONS && !inner.config.run_on_preflight {
            return Flow::Continue;
        }
        if inner.gate.is_open(exchange) {
            return Flow::Continue;
        }
        // of one name the body comes last, so it is read only if it must be
        let config = &inner.config;
        if !config.key_in_body || (inner.key_names.len() == 1 && !config.hide_credentials) {
            let found = inner.find(exchange, None);
            if !(inner.config.key_in_body && matches!(found, Found::Nothing)) {
                return inner.decide(exchange, env, found);
            }
        }
        let inner = Arc::clone(inner);
        let resume = move |exchange: &mut Exchange, env: &Env<'_>| {
            let content_type = exchange.request.headers.get_str(&CONTENT_TYPE);
            let body = match &exchange.body {
                RequestBody::Here(bytes) => Body::read(content_type.unwrap_or_default(), bytes),
                _ => None,
            };
            let found = inner.find(exchange, body);
            inner.decide(exchange, env, found)
        };
        Flow::ReadBody(BODY_BYTES_MAX, Box::new(resume))
    }
}

impl Inner {
    fn decide(&self, exchange: &mut Exchange, env: &Env<'_>, found: Found) -> Flow {
        let refusal = match found {
            Found::Nothing => "No API key found in request",
            Found::Twice => "Duplicate API key found",
            Found::Key(key) => match env.identities.key(&key, exchange.now_ms) {
                None => "Unauthorized",
                Some(owner) => return admit(exchange, owner),
            },
        };
        let reply = unauthorized(refusal, &self.challenge);
        self.gate.refuse(exchange, env, reply)
    }

    /// The first key that is there, searched name by name: header, then query, then body.
    fn find(&self, exchange: &mut Exchange, body: Option<Body>) -> Found {
        for (name, header) in &self.key_names {
            let mut found = Found::Nothing;
            if self.config.key_in_header {
                found = only(exchange.request.headers.get_all(header).map(<[u8]>::to_vec));
            }
            if self.config.key_in_query && matches!(found, Found::Nothing) {
                found = only(query_values(exchange.request.uri.query(), name));
            }
            if let (Found::Nothing, Some(body)) = (&found, &body) {
                found = body.find(name);
            }
            match found {
                Found::Nothing => {}
                Found::Twice => return Found::Twice,
                Found::Key(key) => {
                    if self.config.hide_credentials {
                        self.hide(exchange, (name, header), body);
                    }
                    return Found::Key(key);
                }
            }
        }
        Found::Nothing
    }

    /// Wherever else a key stands under the name, it does not go upstream either.
    fn hide(
        &self,
        exchange: &mut Exchange,
        (name, header): (&str, &HeaderName),
        body: Option<Body>,
    ) {
        exchange.request.headers.remove(header);
        if has_argument(exchange.request.uri.query(), name) {
            remove_argument(&mut exchange.request.uri, name);
        }
        if let Some(body) = body.filter(|body| !matches!(body.find(name), Found::Nothing)) {
            exchange.body = RequestBody::Here(body.without(name));
        }
    }
}

/// The one value that is there and not empty.
fn only(mut values: impl Iterator<Item = Vec<u8>>) -> Found {
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Found::Twice,
        (Some(key), None) if !key.is_empty() => Found::Key(key),
        _ => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, Outcome, Seen, access, exchange, header, identities};

    fn run(config: Value, request: http::request::Builder) -> (Exchange, Outcome) {
        let mut exchange = exchange(request);
        let outcome = access(&KeyAuth, config, &mut exchange, &identities());
        (exchange, outcome)
    }

    #[track_caller]
    fn check(config: Value, request: http::request::Builder, expected: Outcome) {
        assert_eq!(run(config, request).1, expected);
    }

    fn refused(status: u16, message: &str) -> Outcome {
        Outcome::Refused(status, message.to_owned())
    }

    fn get(uri: &str) -> http::request::Builder {
        http::Request::get(uri)
    }

    #[test]
    fn a_key_is_taken_from_header_or_query() {
        let none = "No API key found in request";
        check(
            json!({}),
            get("/").header("apikey", "alice-key"),
            Outcome::Continued,
        );
        check(json!({}), get("/?apikey=alice-key"), Outcome::Continued);
        check(
            json!({}),
            get("/?a=1&%61pikey=alice%2Dkey"),
            Outcome::Continued,
        );
        check(json!({}), get("/"), refused(401, none));
        check(json!({}), get("/").header("apikey", ""), refused(401, none));
        check(json!({}), get("/?apikey="), refused(401, none));
        check(
            json!({}),
            get("/").header("apikey", "nobody"),
            refused(401, "Unauthorized"),
        );
        check(
            json!({"key_in_header": false}),
            get("/").header("apikey", "alice-key"),
            refused(401, none),
        );
        check(
            json!({"key_in_query": false}),
            get("/?apikey=alice-key"),
            refused(401, none),
        );
        check(
            json!({"key_names": ["x-key", "apikey"]}),
            get("/?apikey=alice-key"),
            Outcome::Continued,
        );
    }

    #[test]
    fn a_repeated_key_is_refused() {
        let twice = refused(401, "Duplicate API key found");
        check(
            json!({}),
            get("/").header("apikey", "a").header("apikey", "b"),
            twice.clone(),
        );
        check(json!({}), get("/?apikey=a&apikey=b"), twice);
    }

    #[test]
    fn the_upstream_learns_the_consumer_and_not_what_the_client_claimed() {
        let request = get("/")
            .header("apikey", "alice-key")
            .header("x-consumer-username", "mallory")
            .header("x-consumer-custom-id", "7")
            .header("x-anonymous-consumer", "true");
        let (exchange, _) = run(json!({}), request);
        assert_eq!(header(&exchange, "x-consumer-username"), Some("alice"));
        assert_eq!(header(&exchange, "x-consumer-custom-id"), None);
        assert_eq!(header(&exchange, "x-anonymous-consumer"), None);
        assert!(header(&exchange, "x-credential-identifier").is_some());
        assert!(exchange.consumer.is_some() && exchange.credential.is_some());
    }

    #[test]
    fn credentials_are_hidden_where_they_were_found() {
        let config = json!({"hide_credentials": true});
        let (exchange, _) = run(config.clone(), get("/").header("apikey", "alice-key"));
        assert_eq!(header(&exchange, "apikey"), None);
        let (exchange, _) = run(config.clone(), get("/p?a=1&apikey=alice-key&b=2"));
        assert_eq!(exchange.request.uri, "/p?a=1&b=2");
        let (exchange, _) = run(config, get("/p?apikey=alice-key"));
        assert_eq!(exchange.request.uri, "/p");
    }

    #[test]
    fn a_failure_with_anonymous_goes_on_as_that_consumer() {
        let (exchange, outcome) = run(json!({"anonymous": "guest"}), get("/"));
        assert_eq!(outcome, Outcome::Continued);
        assert_eq!(header(&exchange, "x-anonymous-consumer"), Some("true"));
        assert_eq!(header(&exchange, "x-consumer-username"), Some("guest"));
        assert!(exchange.credential.is_none());
        check(
            json!({"anonymous": "ghost"}),
            get("/"),
            refused(
                500,
                "anonymous consumer ghost is configured but doesn't exist",
            ),
        );
    }

    #[test]
    fn preflights_can_pass() {
        let options = || http::Request::options("/");
        check(
            json!({"run_on_preflight": false}),
            options(),
            Outcome::Continued,
        );
        check(
            json!({}),
            options(),
            refused(401, "No API key found in request"),
        );
    }

    /// What a POST with this body comes to, and the body that goes upstream.
    fn posted(config: Value, content_type: &str, body: &str) -> (Seen, String) {
        let request = http::Request::post("/").header("content-type", content_type);
        let mut exchange = exchange(request);
        let bench = Bench::new(&KeyAuth, config).with_body(body.as_bytes());
        let seen = bench.seen(&mut exchange);
        let body = match &exchange.body {
            RequestBody::Here(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => format!("{other:?}"),
        };
        (seen, body)
    }

    #[test]
    fn a_key_is_taken_from_a_body() {
        let (json, form) = ("application/json", "application/x-www-form-urlencoded");
        let config = json!({"key_in_body": true});
        let hides = json!({"key_in_body": true, "hide_credentials": true});
        let parts = "multipart/form-data; boundary=x";
        let part = |name, content| {
            format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
        };
        let one = part("a", "1");
        let multipart = format!("{}{one}--x--\r\n", part("apikey", "alice-key"));
        let two = json!({"key_in_body": true, "key_names": ["x-key", "apikey"]});
        for (config, content_type, body, upstream) in [
            (
                &config,
                json,
                r#"{"apikey":"alice-key","a":1}"#,
                r#"{"apikey":"alice-key","a":1}"#,
            ),
            (
                &hides,
                json,
                r#"{"apikey":"alice-key","a":1}"#,
                r#"{"a":1}"#,
            ),
            (&two, form, "b=1&apikey=alice-key", "b=1&apikey=alice-key"),
            (&hides, form, "b=1&apikey=alice-key&c=2", "b=1&c=2"),
            (&config, parts, &*multipart, &*multipart),
            (&hides, parts, &*multipart, &format!("{one}--x--\r\n")),
        ] {
            let (seen, body) = posted(config.clone(), content_type, body);
            assert_eq!((seen, body.as_str()), (Seen::Continued, upstream));
        }
        let large = format!(
            "{{\"apikey\": \"alice-key\", \"a\": \"{}\"}}",
            "x".repeat(1 << 20)
        );
        for (content_type, body, message) in [
            (json, r#"{"apikey": ["a", "b"]}"#, "Duplicate API key found"),
            (form, "apikey=nobody", "Unauthorized"),
            (
                "text/plain",
                "apikey=alice-key",
                "No API key found in request",
            ),
            (json, "{", "No API key found in request"),
            (json, large.as_str(), "No API key found in request"),
        ] {
            let (seen, _) = posted(config.clone(), content_type, body);
            let Seen::Answered { status, body, .. } = seen else {
                panic!("{content_type}: {message}")
            };
            assert_eq!((status, body.as_str()), (401, message));
        }
        let (seen, _) = posted(json!({}), json, r#"{"apikey": "alice-key"}"#);
        assert_ne!(seen, Seen::Continued);
    }

    #[test]
    fn what_is_hidden_is_hidden_everywhere() {
        let json = "application/json";
        let config = json!({"hide_credentials": true, "key_in_body": true});
        let request = http::Request::post("/?apikey=alice-key&b=1")
            .header("content-type", json)
            .header("apikey", "alice-key");
        let mut exchange = exchange(request);
        let bench = Bench::new(&KeyAuth, config).with_body(br#"{"apikey":"alice-key","a":1}"#);
        assert_eq!(bench.seen(&mut exchange), Seen::Continued);
        assert_eq!(header(&exchange, "apikey"), None);
        assert_eq!(exchange.request.uri, "/?b=1");
        let RequestBody::Here(body) = &exchange.body else {
            panic!("the body was read")
        };
        assert_eq!(&body[..], br#"{"a":1}"#);
    }

    #[test]
    fn a_key_is_good_for_its_time() {
        for (now_ms, good) in [(100_000, true), (159_999, true), (160_000, false)] {
            let mut exchange = exchange(get("/").header("apikey", "brief-key"));
            exchange.now_ms = now_ms;
            let outcome = access(&KeyAuth, json!({}), &mut exchange, &identities());
            let expected = match good {
                true => Outcome::Continued,
                false => refused(401, "Unauthorized"),
            };
            assert_eq!(outcome, expected, "{now_ms}");
        }
    }
}
