//! `hmac-auth`: recognises a consumer by a signature over parts of the request.

mod parse;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{AUTHORIZATION, DATE, HOST, PROXY_AUTHORIZATION};
use http::{HeaderName, HeaderValue, StatusCode, Version};
use ring::{digest, hmac};
use sallyport_model::schema::{Field, Record, each};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) use parse::Parameters;

use crate::auth::{Gate, admit, anonymous, challenge, realm, unauthorized};
use crate::exchange::{Env, Exchange, Flow, Handler, Reply, Request, RequestBody};
use crate::identities::Owner;
use crate::{CompileError, Plugin};

const X_DATE: HeaderName = HeaderName::from_static("x-date");
const DIGEST: HeaderName = HeaderName::from_static("digest");

const ALGORITHMS: [&str; 4] = ["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"];

/// Larger bodies are not checked against their digest, and so refused.
const BODY_BYTES_MAX: u64 = 8 << 20;

const NO_DATE: &str = "HMAC signature cannot be verified, a valid date or x-date header is \
                       required for HMAC Authentication";
const NOT_VALID: &str = "HMAC signature cannot be verified";
const NOT_SAME: &str = "HMAC signature does not match";

const ABOUT: &str = "\
`Proxy-Authorization` is looked at first, then `Authorization`:

```
hmac username=\"alice\", algorithm=\"hmac-sha256\", headers=\"date @request-target\", signature=\"<base64>\"
```

The signature is over one line for each of `headers`, with a line feed between each two:

| name | line |
|---|---|
| a header | `name: value`, or `name:` where the request has none |
| `@request-target` | `@request-target: <method in lower case> <path?query>` |
| `request-line` | `<METHOD> <path?query> HTTP/<version>` |

Credentials are `hmacauth_credentials` of consumers. With `validate_request_body` the header `Digest` must be
`SHA-256=<base64 of the body's hash>`, or be absent with the body. Bodies are held in memory for that, at most
8 MiB; a larger one is refused with 413.

| case | answer |
|---|---|
| no credentials | 401 `Unauthorized` |
| neither `Date` nor `X-Date` is within `clock_skew` | 401 `HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication` |
| malformed, algorithm not allowed, header of `enforce_headers` not signed, unknown user | 401 `HMAC signature cannot be verified` |
| another signature, another digest | 401 `HMAC signature does not match` |

Each with `WWW-Authenticate: hmac`, or `hmac realm=\"<realm>\"`. A signature is valid for as long as its date is:
within `clock_skew` a request can be sent again. `X-Credential-Identifier` is the user name.
";

/// The plugin, as the registry lists it.
pub(crate) struct HmacAuth;

impl Plugin for HmacAuth {
    fn name(&self) -> &'static str {
        "hmac-auth"
    }

    fn priority(&self) -> i32 {
        1030
    }

    fn summary(&self) -> &'static str {
        "recognises a consumer by a signature over parts of the request"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn consumer_scope(&self) -> bool {
        false
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::boolean("hide_credentials")
                .required()
                .default(json!(false))
                .about("Whether the header is removed before the request goes upstream."),
            Field::number("clock_skew")
                .above(0)
                .default(json!(300))
                .about("Seconds by which the request's date may differ from the gateway's clock."),
            anonymous(),
            Field::boolean("validate_request_body")
                .required()
                .default(json!(false))
                .about("Whether the body is checked against the header `Digest`."),
            Field::array("enforce_headers", each::string())
                .default(json!([]))
                .about("Names that the client has to sign at least, as it writes them."),
            Field::array("algorithms", each::string().one_of(&ALGORITHMS))
                .default(json!(ALGORITHMS))
                .about("Algorithms that the client may use."),
            realm(),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let challenge = challenge("hmac", config.realm.as_deref())?;
        Ok(Box::new(Active(Arc::new(Inner {
            gate: Gate::new(config.anonymous.clone()),
            challenge,
            config,
        }))))
    }
}

#[derive(Deserialize)]
struct Config {
    hide_credentials: bool,
    clock_skew: f64,
    #[serde(default)]
    anonymous: Option<String>,
    validate_request_body: bool,
    enforce_headers: Vec<String>,
    algorithms: Vec<String>,
    #[serde(default)]
    realm: Option<String>,
}

/// Shared with requests that wait for their body.
struct Active(Arc<Inner>);

struct Inner {
    gate: Gate,
    challenge: HeaderValue,
    config: Config,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let inner = &self.0;
        if inner.gate.is_open(exchange) {
            return Flow::Continue;
        }
        let owner = match inner.owner(exchange, env) {
            Ok(owner) => owner,
            Err(message) => return inner.refuse(exchange, env, message),
        };
        if !inner.config.validate_request_body {
            return admit(exchange, owner);
        }
        let (inner, owner) = (Arc::clone(inner), owner.clone());
        Flow::ReadBody(
            BODY_BYTES_MAX,
            Box::new(move |exchange, env| inner.check_body(exchange, env, &owner)),
        )
    }
}

impl Inner {
    fn refuse(&self, exchange: &mut Exchange, env: &Env<'_>, message: &'static str) -> Flow {
        let reply = unauthorized(message, &self.challenge);
        self.gate.refuse(exchange, env, reply)
    }

    /// Who signed the request; else what the client is told.
    fn owner<'a>(&self, exchange: &mut Exchange, env: &Env<'a>) -> Result<&'a Owner, &'static str> {
        let headers = &exchange.request.headers;
        if !headers.contains(&AUTHORIZATION) && !headers.contains(&PROXY_AUTHORIZATION) {
            return Err("Unauthorized");
        }
        if ![X_DATE, DATE]
            .iter()
            .any(|name| self.is_in_time(exchange, name))
        {
            return Err(NO_DATE);
        }
        let value = |name: &HeaderName| headers.get(name).unwrap_or_default().to_vec();
        let mut from = PROXY_AUTHORIZATION;
        let mut given = value(&PROXY_AUTHORIZATION);
        if Parameters::parse(&given).is_none() {
            from = AUTHORIZATION;
            given = value(&AUTHORIZATION);
        }
        let owner = self.verified(&given, exchange, env);
        if self.config.hide_credentials {
            exchange.request.headers.remove(&from);
        }
        owner
    }

    fn is_in_time(&self, exchange: &Exchange, name: &HeaderName) -> bool {
        let date = exchange.request.headers.get_str(name);
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()) else {
            return false;
        };
        let seconds = date
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let now = exchange.now_ms / 1000;
        now.abs_diff(seconds) as f64 <= self.config.clock_skew
    }

    fn verified<'a>(
        &self,
        value: &[u8],
        exchange: &Exchange,
        env: &Env<'a>,
    ) -> Result<&'a Owner, &'static str> {
        let given = Parameters::parse(value).ok_or(NOT_VALID)?;
        let signs = |name: &String| given.headers.split(' ').any(|signed| signed == name);
        if !self.config.enforce_headers.iter().all(signs) {
            return Err(NOT_VALID);
        }
        let mut allowed = self.config.algorithms.iter();
        if !allowed.any(|name| name == given.algorithm) {
            return Err(NOT_VALID);
        }
        let algorithm = match given.algorithm {
            "hmac-sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            "hmac-sha256" => hmac::HMAC_SHA256,
            "hmac-sha384" => hmac::HMAC_SHA384,
            "hmac-sha512" => hmac::HMAC_SHA512,
            _ => return Err(NOT_VALID),
        };
        let signer = env
            .identities
            .signer(given.username.as_bytes())
            .ok_or(NOT_VALID)?;
        let message = signing_string(given.headers, &exchange.request);
        let signature = given.signature().ok_or(NOT_SAME)?;
        // compares in constant time
        hmac::verify(
            &hmac::Key::new(algorithm, &signer.secret),
            &message,
            &signature,
        )
        .map_err(|_| NOT_SAME)?;
        Ok(&signer.owner)
    }

    /// The rest of the access phase, with the body at hand.
    fn check_body(&self, exchange: &mut Exchange, env: &Env<'_>, owner: &Owner) -> Flow {
        let RequestBody::Here(body) = &exchange.body else {
            let message = "Request body is larger than can be validated";
            let reply = Reply::error(StatusCode::PAYLOAD_TOO_LARGE, message);
            return self.gate.refuse(exchange, env, reply);
        };
        let is_same = match exchange.request.headers.get(&DIGEST) {
            None => body.is_empty(),
            Some(given) => {
                let hash = digest::digest(&digest::SHA256, body);
                let encoded = BASE64_STANDARD.encode(hash);
                given.strip_prefix(b"SHA-256=") == Some(encoded.as_bytes())
            }
        };
        match is_same {
            true => admit(exchange, owner),
            false => self.refuse(exchange, env, NOT_SAME),
        }
    }
}

/// What the client has signed, if it is honest.
fn signing_string(names: &str, request: &Request) -> Vec<u8> {
    let target = || {
        let target = request.uri.path_and_query();
        target.map_or("/", |target| target.as_str())
    };
    let mut text = Vec::with_capacity(names.len() + 256);
    for (at, name) in names.split(' ').enumerate() {
        if at > 0 {
            text.push(b'\n');
        }
        let header = HeaderName::from_bytes(name.as_bytes()).ok();
        let value = header.as_ref().and_then(|header| {
            let found = request.headers.get(header);
            // HTTP/2 has it in the target
            let authority = || request.uri.authority().filter(|_| *header == HOST);
            found.or_else(|| Some(authority()?.as_str().as_bytes()))
        });
        match (name, value) {
            (name, Some(value)) => {
                text.extend_from_slice(name.as_bytes());
                text.extend_from_slice(b": ");
                text.extend_from_slice(value);
            }
            ("@request-target", None) => {
                let method = request.method.as_str().to_ascii_lowercase();
                text.extend_from_slice(b"@request-target: ");
                text.extend_from_slice(method.as_bytes());
                text.push(b' ');
                text.extend_from_slice(target().as_bytes());
            }
            ("request-line", None) => {
                let version = match request.version {
                    Version::HTTP_10 => "1.0",
                    Version::HTTP_2 => "2.0",
                    _ => "1.1",
                };
                let line = format!("{} {} HTTP/{version}", request.method, target());
                text.extend_from_slice(line.as_bytes());
            }
            (name, None) => {
                text.extend_from_slice(name.as_bytes());
                text.push(b':');
            }
        }
    }
    text
}
