//! `jwt`: recognises a consumer by a signed token.

#[cfg(test)]
mod tests;
mod token;

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use sallyport_model::schema::{EntityCheck, Field, FieldError, Path, Record, each};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub(crate) use token::Token;

use crate::arguments::{cookies, header_name, query_values};
use crate::auth::{Gate, admit, after_scheme, anonymous, challenge, realm};
use crate::exchange::{Env, Exchange, Flow, Handler, Reply, ReplyBody};
use crate::identities::{Failure, Owner};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
Query arguments, cookies and headers (`Bearer <token>`) are looked at; all of them together must hold exactly
one token. The claim `key_claim_name`, or the header member of that name, says whose token it is: the `key`
of one of the `jwt_secrets` of consumers. That credential alone says which algorithm and which key verify it.

| algorithm of the credential | verified with |
|---|---|
| `HS256` `HS384` `HS512` | `secret` |
| `RS256` `RS384` `RS512` `PS256` `PS384` `PS512` | `rsa_public_key`, 2048 to 8192 bits |
| `ES256` `ES384` `ES512` | `rsa_public_key`, on P-256, P-384 or P-521 |
| `EdDSA` | `rsa_public_key`, Ed25519 |

Every failure is a 401 with JSON and without a request id, such as `{\"message\":\"Unauthorized\"}`, and
`WWW-Authenticate: Bearer` (with `realm` if there is one, and `error=\"invalid_token\"` if there was a token).

| case | `message` |
|---|---|
| no token | `Unauthorized` |
| several | `Multiple tokens provided` |
| no token in form | `Bad token; invalid JSON`, `… invalid alg` (`none` too), `… invalid claims`, `… invalid signature` |
| claim missing, empty, or of nobody | `No mandatory '<claim>' in claims`, `Invalid '<claim>' in claims`, `No credentials found for given '<claim>'` |
| another algorithm than the credential's | `Invalid algorithm` |
| the credential has nothing to verify with | `Invalid key/secret` |
| not signed with it | `Invalid signature` |

Claims of `claims_to_verify` are told as `{\"exp\":\"token expired\"}`, `{\"nbf\":\"token not valid yet\"}` or
`must be a number`; `maximum_expiration` as `{\"exp\":\"exceeds maximum allowed expiration\"}`. The clock of the
gateway decides, without tolerance. `X-Credential-Identifier` is the credential's `key`.
";

/// The plugin, as the registry lists it.
pub(crate) struct Jwt;

impl Plugin for Jwt {
    fn name(&self) -> &'static str {
        "jwt"
    }

    fn priority(&self) -> i32 {
        1450
    }

    fn summary(&self) -> &'static str {
        "recognises a consumer by a signed token"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn consumer_scope(&self) -> bool {
        false
    }

    fn schema(&self) -> Record {
        let names = |name, about| Field::set(name, each::string()).about(about);
        Record::new([
            names(
                "uri_param_names",
                "Query arguments that may hold the token.",
            )
            .default(json!(["jwt"])),
            names("cookie_names", "Cookies that may hold the token.").default(json!([])),
            Field::string("key_claim_name")
                .default(json!("iss"))
                .about("The claim that names the credential."),
            Field::boolean("secret_is_base64")
                .required()
                .default(json!(false))
                .about("Whether the `secret` of credentials is base64 of the bytes that sign."),
            Field::set("claims_to_verify", each::string().one_of(&["exp", "nbf"]))
                .about("Claims that must be there and hold now."),
            anonymous(),
            Field::boolean("run_on_preflight")
                .required()
                .default(json!(true))
                .about("Whether `OPTIONS` requests need a token too."),
            Field::number("maximum_expiration")
                .between(0, 31_536_000)
                .default(json!(0))
                .about("Seconds from now that `exp` may lie ahead; 0 for any."),
            Field::set("header_names", each::string().check(header_name))
                .default(json!(["authorization"]))
                .about("Headers that may hold `Bearer <token>`."),
            realm(),
        ])
        .check(EntityCheck::Custom {
            fields: &["maximum_expiration", "claims_to_verify"],
            run: a_maximum_needs_exp,
        })
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let without = challenge("Bearer", config.realm.as_deref())?;
        let text = without.to_str().map_err(CompileError::value)?;
        let comma = if config.realm.is_some() { "," } else { "" };
        let with = format!("{text}{comma} error=\"invalid_token\"");
        let header_names = config
            .header_names
            .iter()
            .map(|name| HeaderName::from_bytes(name.as_bytes()).map_err(CompileError::value));
        Ok(Box::new(Active {
            header_names: header_names.collect::<Result<_, _>>()?,
            without_token: without,
            with_token: HeaderValue::from_str(&with).map_err(CompileError::value)?,
            gate: Gate::new(config.anonymous.clone()),
            config,
        }))
    }
}

/// Without the claim, nothing would be limited.
fn a_maximum_needs_exp(config: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let maximum = config.get("maximum_expiration").and_then(Value::as_f64);
    let claims = config.get("claims_to_verify").and_then(Value::as_array);
    let verified = claims.is_some_and(|claims| claims.iter().any(|claim| claim == "exp"));
    if maximum.is_some_and(|maximum| maximum > 0.0) && !verified {
        let field = path.key("maximum_expiration");
        let message = format!("failed conditional validation given value of field '{field}'");
        errors.push(FieldError::entity(path.clone(), message));
        let message = "expected to contain: exp";
        errors.push(FieldError::field(path.key("claims_to_verify"), message));
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    uri_param_names: Vec<String>,
    #[serde(default)]
    cookie_names: Vec<String>,
    key_claim_name: String,
    secret_is_base64: bool,
    #[serde(default)]
    claims_to_verify: Option<Vec<Claim>>,
    #[serde(default)]
    anonymous: Option<String>,
    run_on_preflight: bool,
    maximum_expiration: f64,
    #[serde(default)]
    header_names: Vec<String>,
    #[serde(default)]
    realm: Option<String>,
}

/// A claim that can be verified. Source: RFC 7519 section 4.1.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Claim {
    Exp,
    Nbf,
}

struct Active {
    header_names: Vec<HeaderName>,
    /// The challenge when there was no token, and when there was one.
    without_token: HeaderValue,
    with_token: HeaderValue,
    gate: Gate,
    config: Config,
}

/// What the client is told, as JSON.
struct Refusal {
    body: Value,
    had_token: bool,
}

impl Refusal {
    fn of(message: impl Into<String>) -> Refusal {
        let message: String = message.into();
        Refusal {
            body: json!({ "message": message }),
            had_token: true,
        }
    }
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        if exchange.request.method == Method::OPTIONS && !self.config.run_on_preflight {
            return Flow::Continue;
        }
        if self.gate.is_open(exchange) {
            return Flow::Continue;
        }
        match self.owner(exchange, env) {
            Ok(owner) => admit(exchange, owner),
            Err(refusal) => {
                let reply = self.reply(&refusal);
                self.gate.refuse(exchange, env, reply)
            }
        }
    }
}

impl Active {
    fn owner<'a>(&self, exchange: &Exchange, env: &Env<'a>) -> Result<&'a Owner, Refusal> {
        let text = self.find(exchange)?;
        let token = std::str::from_utf8(&text)
            .map_err(|_| "invalid JSON")
            .and_then(Token::parse)
            .map_err(|problem| Refusal::of(format!("Bad token; {problem}")))?;
        let claim = &self.config.key_claim_name;
        let named = [&token.claims, &token.header]
            .into_iter()
            .find_map(|part| part.get(claim).filter(|value| !value.is_null()));
        let key = match named {
            None => return Err(Refusal::of(format!("No mandatory '{claim}' in claims"))),
            Some(Value::String(key)) if !key.is_empty() => key,
            Some(_) => return Err(Refusal::of(format!("Invalid '{claim}' in claims"))),
        };
        let Some(credential) = env.identities.token_key(key) else {
            let message = format!("No credentials found for given '{claim}'");
            return Err(Refusal::of(message));
        };
        credential
            .verify(&token.signed(), self.config.secret_is_base64)
            .map_err(|failure| match failure {
                Failure::Algorithm => Refusal::of("Invalid algorithm"),
                Failure::Key => Refusal::of("Invalid key/secret"),
                Failure::Signature => Refusal::of("Invalid signature"),
            })?;
        self.claims_hold(&token, exchange.now_ms / 1000)?;
        Ok(&credential.owner)
    }

    /// The one token of the request.
    fn find(&self, exchange: &Exchange) -> Result<Vec<u8>, Refusal> {
        let request = &exchange.request;
        let in_query = self
            .config
            .uri_param_names
            .iter()
            .flat_map(|name| query_values(request.uri.query(), name));
        let in_cookies = self.config.cookie_names.iter().filter_map(|name| {
            let first = cookies(&request.headers, name).next()?;
            Some(first.to_vec())
        });
        let in_headers = self.header_names.iter().filter_map(|name| {
            let token = after_scheme(request.headers.get(name)?, "bearer")?;
            Some(token.trim_ascii_end().to_vec())
        });
        let mut found: Option<Vec<u8>> = None;
        for token in in_query.chain(in_cookies).chain(in_headers) {
            match &found {
                _ if token.is_empty() => {}
                None => found = Some(token),
                Some(first) if *first == token => {}
                Some(_) => return Err(Refusal::of("Multiple tokens provided")),
            }
        }
        found.ok_or_else(|| Refusal {
            had_token: false,
            ..Refusal::of("Unauthorized")
        })
    }

    fn claims_hold(&self, token: &Token<'_>, now: u64) -> Result<(), Refusal> {
        let now = now as f64;
        let mut broken = Map::new();
        for claim in self.config.claims_to_verify.iter().flatten() {
            let name = match claim {
                Claim::Exp => "exp",
                Claim::Nbf => "nbf",
            };
            let problem = match (claim, token.claims.get(name).and_then(Value::as_f64)) {
                (_, None) => "must be a number",
                (Claim::Exp, Some(exp)) if exp <= now => "token expired",
                (Claim::Nbf, Some(nbf)) if nbf > now => "token not valid yet",
                _ => continue,
            };
            broken.insert(name.to_owned(), Value::from(problem));
        }
        let maximum = self.config.maximum_expiration;
        if broken.is_empty() && maximum > 0.0 {
            let exp = token.claims.get("exp").and_then(Value::as_f64);
            if exp.is_none_or(|exp| exp - now > maximum) {
                let problem = "exceeds maximum allowed expiration";
                broken.insert("exp".to_owned(), Value::from(problem));
            }
        }
        match broken.is_empty() {
            true => Ok(()),
            false => Err(Refusal {
                body: Value::Object(broken),
                had_token: true,
            }),
        }
    }

    fn reply(&self, refusal: &Refusal) -> Reply {
        let challenge = match refusal.had_token {
            true => &self.with_token,
            false => &self.without_token,
        };
        let reply = Reply {
            status: StatusCode::UNAUTHORIZED,
            headers: Vec::new(),
            body: ReplyBody::Exact {
                content_type: HeaderValue::from_static("application/json; charset=utf-8"),
                bytes: Bytes::from(refusal.body.to_string()),
            },
        };
        reply.with(WWW_AUTHENTICATE, challenge.clone())
    }
}
