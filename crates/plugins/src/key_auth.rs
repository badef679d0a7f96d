//! `key-auth`: recognises a consumer by a key in a header or in the query.

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use sallyport_model::schema::{Field, Record, each};

use crate::arguments::{header_name, query_values, remove_argument};
use crate::auth::{Gate, admit, anonymous, challenge, realm, unauthorized};
use crate::exchange::{Env, Exchange, Flow, Handler};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
For each of `key_names`, first the header, then the query argument is looked at; the first one that is
there counts. Credentials are `keyauth_credentials` of consumers. Not in this build, and refused:
`key_in_body`, and keys with a `ttl`.

| case | answer |
|---|---|
| no key | 401 `No API key found in request` |
| the same header or argument twice | 401 `Duplicate API key found` |
| a key that nobody has | 401 `Unauthorized` |

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
        "recognises a consumer by a key in a header or in the query"
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
                .about("Names of the header and of the query argument that may hold the key."),
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
                .check(not_in_body)
                .about("Must stay `false` in this build."),
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
        Ok(Box::new(Active {
            key_names,
            challenge: challenge("Key", config.realm.as_deref())?,
            gate: Gate::new(config.anonymous.clone()),
            config,
        }))
    }
}

fn not_in_body(value: &Value) -> Result<(), String> {
    match value {
        Value::Bool(true) => Err("keys in bodies are not supported by this build; \
                                  send the key in a header or in the query"
            .to_owned()),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Config {
    key_names: Vec<String>,
    hide_credentials: bool,
    anonymous: Option<String>,
    key_in_header: bool,
    key_in_query: bool,
    run_on_preflight: bool,
    realm: Option<String>,
}

struct Active {
    key_names: Vec<(String, HeaderName)>,
    challenge: HeaderValue,
    gate: Gate,
    config: Config,
}

enum Found {
    Key(Vec<u8>),
    Nothing,
    Twice,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        if exchange.request.method == Method::OPTIONS && !self.config.run_on_preflight {
            return Flow::Continue;
        }
        if self.gate.is_open(exchange) {
            return Flow::Continue;
        }
        let refusal = match self.find(exchange) {
            Found::Nothing => "No API key found in request",
            Found::Twice => "Duplicate API key found",
            Found::Key(key) => match env.identities.key(&key) {
                None => "Unauthorized",
                Some(owner) => return admit(exchange, owner),
            },
        };
        let reply = unauthorized(refusal, &self.challenge);
        self.gate.refuse(exchange, env, reply)
    }
}

impl Active {
    /// The first key that is there, searched name by name: header, then query.
    fn find(&self, exchange: &mut Exchange) -> Found {
        for (name, header) in &self.key_names {
            if self.config.key_in_header {
                let mut values = exchange.request.headers.get_all(header);
                match (values.next(), values.next()) {
                    (Some(_), Some(_)) => return Found::Twice,
                    (Some(key), None) if !key.is_empty() => {
                        let key = key.to_vec();
                        drop(values);
                        if self.config.hide_credentials {
                            exchange.request.headers.remove(header);
                        }
                        return Found::Key(key);
                    }
                    _ => {}
                }
            }
            if self.config.key_in_query {
                let mut values = query_values(exchange.request.uri.query(), name);
                match (values.next(), values.next()) {
                    (Some(_), Some(_)) => return Found::Twice,
                    (Some(key), None) if !key.is_empty() => {
                        drop(values);
                        if self.config.hide_credentials {
                            remove_argument(&mut exchange.request.uri, name);
                        }
                        return Found::Key(key);
                    }
                    _ => {}
                }
            }
        }
        Found::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Outcome, access, exchange, header, identities};

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
}
