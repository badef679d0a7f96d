//! `cors`: answers preflights of browsers and marks responses for them.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;
use sallyport_model::schema::{Field, Record, each};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exchange::{Env, Exchange, Flow, Handler, Reply, ReplyBody, ResponseHead};
use crate::fields::Fields;
use crate::{CompileError, Plugin};

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

const METHODS: [&str; 9] = [
    "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];

const TRUE: HeaderValue = HeaderValue::from_static("true");
const ANY: HeaderValue = HeaderValue::from_static("*");

const ABOUT: &str = "\
A preflight is an `OPTIONS` request with `Origin` and `Access-Control-Request-Method`. It is answered here with
200 and an empty body, before any authentication, unless `preflight_continue` sends it on untouched.

| header | when and what |
|---|---|
| `Access-Control-Allow-Origin` | `*` without `origins` or with only `*`; the one origin if there is one and it is no expression; else the client's, if it matches; else none |
| `Vary: Origin` | whenever the above is not `*` |
| `Access-Control-Allow-Credentials: true` | with `credentials`; `*` becomes the client's origin then |
| `Access-Control-Allow-Headers` | on preflights: `headers`, else what the client asks for |
| `Access-Control-Allow-Methods`, `Access-Control-Max-Age` | on preflights |
| `Access-Control-Allow-Private-Network: true` | on preflights that ask, with `private_network` |
| `Access-Control-Expose-Headers` | on other responses |

Every other response gets these headers too, whoever made it. An entry of `origins` with other characters than
letters, digits, `.`, `:`, `/` and `-` is a regular expression (Rust's, without look-around and
back-references, which are refused). It has to match the whole origin, or only its host if there is no `:` in
it. In the expression `a|b` each side has to match the whole, which Kong asks of neither.
";

/// The plugin, as the registry lists it.
pub(crate) struct Cors;

impl Plugin for Cors {
    fn name(&self) -> &'static str {
        "cors"
    }

    fn priority(&self) -> i32 {
        2000
    }

    fn summary(&self) -> &'static str {
        "answers preflights of browsers and marks responses for them"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn consumer_scope(&self) -> bool {
        false
    }

    fn schema(&self) -> Record {
        let flag = |name, default| Field::boolean(name).required().default(json!(default));
        let texts = |name| Field::array(name, each::string().check(header_text));
        Record::new([
            Field::array("origins", each::string().check(asterisk_or_regex))
                .about("Origins that may read responses; all of them when unset."),
            texts("headers").about("Headers that requests may have; those asked for when unset."),
            texts("exposed_headers").about("Headers of responses that scripts may read."),
            Field::array("methods", each::string().one_of(&METHODS))
                .default(json!(METHODS))
                .about("Methods that requests may have."),
            Field::number("max_age").about("Seconds for which browsers may keep the answer."),
            flag("credentials", false).about("Whether requests may carry cookies and the like."),
            flag("private_network", false)
                .about("Whether pages of public networks may ask a private one."),
            flag("preflight_continue", false)
                .about("Whether preflights go to the upstream instead."),
            flag("allow_origin_absent", true)
                .about("Whether responses to requests without `Origin` are marked too."),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let joined = |list: Option<Vec<String>>| match list {
            Some(list) if !list.is_empty() => HeaderValue::from_str(&list.join(","))
                .map(Some)
                .map_err(CompileError::value),
            _ => Ok(None),
        };
        let methods = config
            .methods
            .unwrap_or_else(|| METHODS.map(str::to_owned).into());
        Ok(Box::new(Active {
            origins: Origins::new(&config.origins.unwrap_or_default())?,
            headers: joined(config.headers)?,
            exposed_headers: joined(config.exposed_headers)?,
            methods: HeaderValue::from_str(&methods.join(",")).map_err(CompileError::value)?,
            max_age: config
                .max_age
                .map(|seconds| HeaderValue::from_str(&seconds.to_string()))
                .transpose()
                .map_err(CompileError::value)?,
            credentials: config.credentials,
            private_network: config.private_network,
            preflight_continue: config.preflight_continue,
            allow_origin_absent: config.allow_origin_absent,
        }))
    }
}

fn asterisk_or_regex(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    match text == "*" || Origin::new(text).is_ok() {
        true => Ok(()),
        false => Err(format!("'{text}' is not a valid regex")),
    }
}

fn header_text(value: &Value) -> Result<(), String> {
    match HeaderValue::from_str(value.as_str().unwrap_or_default()) {
        Ok(_) => Ok(()),
        Err(_) => Err("expected text that a header can hold".to_owned()),
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    origins: Option<Vec<String>>,
    #[serde(default)]
    headers: Option<Vec<String>>,
    #[serde(default)]
    exposed_headers: Option<Vec<String>>,
    #[serde(default)]
    methods: Option<Vec<String>>,
    #[serde(default)]
    max_age: Option<serde_json::Number>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
}

struct Active {
    origins: Origins,
    headers: Option<HeaderValue>,
    exposed_headers: Option<HeaderValue>,
    methods: HeaderValue,
    max_age: Option<HeaderValue>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
}

/// The request was a preflight: its response is complete, or not ours.
#[derive(Clone)]
struct Done;

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, _env: &Env<'_>) -> Flow {
        let headers = &exchange.request.headers;
        let is_preflight = exchange.request.method == Method::OPTIONS
            && headers.contains(&ORIGIN)
            && headers.contains(&ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return Flow::Continue;
        }
        let mut reply = Fields::new();
        if !self.preflight_continue {
            self.mark(headers.get(&ORIGIN), &mut reply);
            let asked = || copied(headers, &ACCESS_CONTROL_REQUEST_HEADERS);
            if let Some(allowed) = self.headers.clone().or_else(asked) {
                reply.set(&ACCESS_CONTROL_ALLOW_HEADERS, &allowed);
            }
            reply.set(&ACCESS_CONTROL_ALLOW_METHODS, &self.methods);
            if let Some(seconds) = &self.max_age {
                reply.set(&ACCESS_CONTROL_MAX_AGE, seconds);
            }
            if self.private_network && headers.get(&REQUEST_PRIVATE_NETWORK) == Some(b"true") {
                reply.set(&ALLOW_PRIVATE_NETWORK, &TRUE);
            }
        }
        exchange.state.insert(Done);
        if self.preflight_continue {
            return Flow::Continue;
        }
        exchange.response_headers.set_all(&reply);
        Flow::Respond(Reply {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: ReplyBody::Empty,
        })
    }

    fn filters_headers(&self) -> bool {
        true
    }

    fn header_filter(&self, exchange: &mut Exchange, response: &mut ResponseHead<'_>) {
        if exchange.state.get::<Done>().is_some() {
            return;
        }
        let origin = exchange.request.headers.get(&ORIGIN);
        if origin.is_none() && !self.allow_origin_absent {
            return;
        }
        self.mark(origin, response.headers);
        if let Some(exposed) = &self.exposed_headers {
            response
                .headers
                .set(&ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

impl Active {
    /// What all responses get.
    fn mark(&self, origin: Option<&[u8]>, headers: &mut Fields) {
        let by_origin = |headers: &mut Fields| {
            headers.append(&VARY, &HeaderValue::from_static("Origin"));
        };
        let origin = origin.and_then(|origin| std::str::from_utf8(origin).ok());
        let any = match self.origins.allowed(origin) {
            Allowed::Any { varies } => {
                if varies {
                    by_origin(headers);
                }
                headers.set(&ACCESS_CONTROL_ALLOW_ORIGIN, &ANY);
                true
            }
            Allowed::One(origin) => {
                by_origin(headers);
                headers.set(&ACCESS_CONTROL_ALLOW_ORIGIN, &origin);
                false
            }
            Allowed::None => {
                by_origin(headers);
                headers.remove(&ACCESS_CONTROL_ALLOW_ORIGIN);
                false
            }
        };
        if !self.credentials {
            return;
        }
        if any {
            // browsers refuse `*` beside credentials
            let Some(origin) = origin.and_then(|origin| HeaderValue::from_str(origin).ok()) else {
                return;
            };
            by_origin(headers);
            headers.set(&ACCESS_CONTROL_ALLOW_ORIGIN, &origin);
        }
        headers.set(&ACCESS_CONTROL_ALLOW_CREDENTIALS, &TRUE);
    }
}

fn copied(headers: &Fields, name: &HeaderName) -> Option<HeaderValue> {
    HeaderValue::from_bytes(headers.get(name)?).ok()
}

/// What of the origins is allowed for one request.
enum Allowed {
    /// Any; whether that depends on the request.
    Any {
        varies: bool,
    },
    One(HeaderValue),
    None,
}

/// Which origins may read responses.
enum Origins {
    All,
    /// This one, whoever asks.
    Always(HeaderValue),
    /// Those that match; all of them if one is `*`.
    List {
        all: bool,
        list: Vec<Origin>,
    },
}

impl Origins {
    fn new(texts: &[String]) -> Result<Origins, CompileError> {
        match texts {
            [] => Ok(Origins::All),
            [one] if one == "*" => Ok(Origins::All),
            [one] if is_literal(one) => Ok(Origins::Always(
                HeaderValue::from_str(one).map_err(CompileError::value)?,
            )),
            texts => {
                let list = texts.iter().filter(|text| *text != "*");
                let list = list.map(|text| Origin::new(text).map_err(CompileError::value));
                Ok(Origins::List {
                    all: texts.iter().any(|text| text == "*"),
                    list: list.collect::<Result<_, _>>()?,
                })
            }
        }
    }

    fn allowed(&self, origin: Option<&str>) -> Allowed {
        match (self, origin) {
            (Origins::All, _) => Allowed::Any { varies: false },
            (Origins::Always(one), _) => Allowed::One(one.clone()),
            (Origins::List { .. }, None) => Allowed::None,
            (Origins::List { all: true, .. }, Some(_)) => Allowed::Any { varies: true },
            (Origins::List { list, .. }, Some(origin)) => {
                let origin = Normal::new(origin);
                match list.iter().any(|entry| entry.matches(&origin)) {
                    true => {
                        HeaderValue::from_str(&origin.whole).map_or(Allowed::None, Allowed::One)
                    }
                    false => Allowed::None,
                }
            }
        }
    }
}

/// One entry of `origins`.
enum Origin {
    Literal(String),
    Regex { regex: Regex, host_only: bool },
}

/// Whether an entry is an origin, not an expression.
fn is_literal(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".:/-".contains(&byte))
}

impl Origin {
    fn new(text: &str) -> Result<Origin, regex::Error> {
        if is_literal(text) {
            return Ok(Origin::Literal(Normal::new(text).whole));
        }
        let inner = text.strip_prefix('^').unwrap_or(text);
        let inner = inner.strip_suffix('$').unwrap_or(inner);
        Ok(Origin::Regex {
            regex: Regex::new(&format!("^(?:{inner})$"))?,
            host_only: !text.contains(':'),
        })
    }

    fn matches(&self, origin: &Normal) -> bool {
        match self {
            Origin::Literal(text) => *text == origin.whole,
            Origin::Regex { regex, host_only } => regex.is_match(match host_only {
                true => &origin.host,
                false => &origin.whole,
            }),
        }
    }
}

/// An origin without the port that its scheme implies.
struct Normal {
    whole: String,
    host: String,
}

impl Normal {
    fn new(origin: &str) -> Normal {
        let as_it_is = || Normal {
            whole: origin.to_owned(),
            host: origin.to_owned(),
        };
        let Some((scheme, rest)) = origin.split_once("://") else {
            return as_it_is();
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (host, Some(port))
            }
            _ => (authority, None),
        };
        if host.is_empty() {
            return as_it_is();
        }
        let port = port.filter(|port| {
            !port.is_empty() && !matches!((scheme, *port), ("http", "80") | ("https", "443"))
        });
        let whole = match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        Normal {
            whole,
            host: host.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
