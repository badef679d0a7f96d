//! `session`: knows a caller again by a cookie.

mod cookie;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::header::{CONTENT_TYPE, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use sallyport_model::schema;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use cookie::{Record, Seal, random};
use settings::{Config, Told};

use crate::arguments::{cookies, has_argument};
use crate::auth::admit;
use crate::exchange::{
    Credential, Env, Exchange, Flow, Handler, Reply, ReplyBody, RequestBody, ResponseHead,
};
use crate::fields::Fields;
use crate::identities::{Consumer, Owner, uuid_value};
use crate::{CompileError, Plugin};

/// A session that was used this many seconds ago is marked as used. Source: lua-resty-session,
/// `touch_threshold`.
const TOUCH_AFTER_S: u64 = 60;

/// Larger bodies are not looked into for the end of a session.
const LOGOUT_BODY_BYTES_MAX: u64 = 64 << 10;

const ABOUT: &str = "\
Runs before the authentication plugins. A request with a good cookie is its consumer's, so that authentication
plugins with `anonymous` let it pass; a request that one of them recognised gets a cookie with its response. The
session is in the cookie, sealed with AES-256-GCM: nothing is stored at gateways or elsewhere. Kong's cookies are
sealed otherwise: a gateway of either kind does not read the other's.

A session is renewed after three quarters of `rolling_timeout` and marked as used after a minute, each with a new
cookie. It ends at the first of the three timeouts, when its consumer is gone, or by a request of
`logout_methods` with `logout_query_arg` in the query (or with `logout_post_arg` in a form or in JSON of at most
64 KiB, if `read_body_for_logout`), which is answered with 200, an empty body and an expired cookie. The end is
the browser's: whoever copied a cookie before can use it until its timeouts.

With `remember` the browser gets a second cookie, which it keeps when it is closed: a request with it and without a
session begins a new one. It is renewed with each new session cookie, and taken away with the session.

Without `secret`, a control plane generates one when the plugin is written, and keeps it when it is written again
without one. A gateway on a declarative file makes one of its own at each start: sessions end with the process,
and are not shared between gateways.
";

/// The plugin, as the registry lists it.
pub(crate) struct Session;

impl Plugin for Session {
    fn name(&self) -> &'static str {
        "session"
    }

    fn priority(&self) -> i32 {
        1900
    }

    fn summary(&self) -> &'static str {
        "knows a caller again by a cookie"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn consumer_scope(&self) -> bool {
        false
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        schema::PROTOCOLS
    }

    fn schema(&self) -> schema::Record {
        settings::schema()
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let secret = match &config.secret {
            Some(secret) => secret.as_bytes(),
            None => own_secret()
                .ok_or_else(|| CompileError::value("the system gives no random bytes"))?,
        };
        let seal = Seal::new(secret, &config.audience, &config.cookie_name);
        let mut attributes = format!("; Path={}", config.cookie_path);
        if let Some(domain) = &config.cookie_domain {
            attributes.push_str(&format!("; Domain={domain}"));
        }
        if config.cookie_same_site != "Default" {
            attributes.push_str(&format!("; SameSite={}", config.cookie_same_site));
        }
        if config.cookie_secure {
            attributes.push_str("; Secure");
        }
        if config.cookie_http_only {
            attributes.push_str("; HttpOnly");
        }
        let expired = |name: &str| {
            let text =
                format!("{name}=; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0{attributes}");
            HeaderValue::from_str(&text).map_err(CompileError::value)
        };
        let remember = match config.remember {
            true => Some(Remember {
                seal: Seal::new(secret, &config.audience, &config.remember_cookie_name),
                expired: expired(&config.remember_cookie_name)?,
            }),
            false => None,
        };
        Ok(Box::new(Active(Arc::new(Inner {
            seal,
            expired: expired(&config.cookie_name)?,
            remember,
            attributes,
            config,
        }))))
    }
}

/// The secret of configurations that have none; the same for all of this process.
fn own_secret() -> Option<&'static [u8]> {
    static SECRET: OnceLock<Option<[u8; 32]>> = OnceLock::new();
    SECRET
        .get_or_init(random)
        .as_ref()
        .map(|secret| &secret[..])
}

/// Shared with requests that wait for their body.
struct Active(Arc<Inner>);

struct Inner {
    seal: Seal,
    /// What stands behind the value of a cookie.
    attributes: String,
    /// The cookie that takes a session away.
    expired: HeaderValue,
    remember: Option<Remember>,
    config: Config,
}

/// The cookie that outlives sessions.
struct Remember {
    seal: Seal,
    /// The cookie that takes it away.
    expired: HeaderValue,
}

/// Who a request's second cookie is about, and since when, in Unix seconds.
#[derive(Clone, Copy)]
struct Remembered {
    consumer: Uuid,
    begun: u64,
}

/// A request's session.
struct Found {
    record: Record,
    /// Whether it begins with this request.
    is_new: bool,
}

/// Browsers keep no cookie for longer than 400 days, in seconds. Source: RFC 6265bis.
const KEPT_S_MAX: u64 = 400 * 86_400;

/// What the response has to say about the session.
#[derive(Clone)]
enum Next {
    /// The cookie is good for a while yet.
    Keep(Record),
    /// The browser needs a new cookie for the same session.
    Renew(Record),
    /// The session is over.
    Expire,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let inner = &self.0;
        // what the client claims about a session is not passed on
        for told in inner.config.request_headers.iter().flatten() {
            exchange.request.headers.remove(&told.header());
        }
        let Some(found) = inner.found(exchange) else {
            return Flow::Continue;
        };
        let methods = inner.config.logout_methods.iter().flatten();
        if !methods
            .into_iter()
            .any(|method| *method == exchange.request.method.as_str())
        {
            return inner.resume(exchange, env, found);
        }
        let in_query = inner.config.logout_query_arg.as_deref();
        if in_query.is_some_and(|name| has_argument(exchange.request.uri.query(), name)) {
            return Inner::log_out(exchange);
        }
        let reads = inner.config.read_body_for_logout
            && inner.config.logout_post_arg.is_some()
            && exchange.request.method != Method::GET;
        if !reads {
            return inner.resume(exchange, env, found);
        }
        let inner = Arc::clone(inner);
        Flow::ReadBody(
            LOGOUT_BODY_BYTES_MAX,
            Box::new(
                move |exchange, env| match inner.body_says_logout(exchange) {
                    true => Inner::log_out(exchange),
                    false => inner.resume(exchange, env, found),
                },
            ),
        )
    }

    fn filters_headers(&self) -> bool {
        true
    }

    fn header_filter(&self, exchange: &mut Exchange, response: &mut ResponseHead<'_>) {
        let inner = &self.0;
        let known = match (&exchange.consumer, &exchange.credential) {
            (Some(consumer), Some(credential)) => Some((consumer, credential.id)),
            _ => None,
        };
        let next = exchange.state.get::<Next>();
        let (record, is_new) = match (next, known) {
            (Some(Next::Keep(record)), Some((consumer, credential)))
                if (record.consumer, record.credential) == (consumer.id, credential) =>
            {
                (record.clone(), false)
            }
            (Some(Next::Renew(record)), Some((consumer, credential)))
                if (record.consumer, record.credential) == (consumer.id, credential) =>
            {
                (record.clone(), true)
            }
            // not a session for whoever is anonymous
            (Some(Next::Expire), None) => {
                response.headers.append(&SET_COOKIE, &inner.expired);
                if let Some(remember) = &inner.remember {
                    response.headers.append(&SET_COOKIE, &remember.expired);
                }
                return;
            }
            (_, None) => return,
            (_, Some((consumer, credential))) => {
                let now = exchange.now_ms / 1000;
                let Some(id) = random() else { return };
                let record = Record {
                    id,
                    consumer: consumer.id,
                    credential,
                    begun: now,
                    rolled: now,
                    touched: now,
                };
                (record, true)
            }
        };
        if is_new {
            let Some(value) = inner.seal.close(&record) else {
                return;
            };
            let name = &inner.config.cookie_name;
            let cookie = format!("{name}={value}{}", inner.attributes);
            let cookie = HeaderValue::from_str(&cookie).expect("the parts were checked");
            response.headers.append(&SET_COOKIE, &cookie);
            if let Some(cookie) = inner.remembering(exchange, &record) {
                response.headers.append(&SET_COOKIE, &cookie);
            }
        }
        if let Some((consumer, _)) = known {
            let told = inner.config.response_headers.as_deref();
            inner.tell(
                told,
                &record,
                consumer,
                exchange.now_ms / 1000,
                response.headers,
            );
        }
    }
}

impl Inner {
    /// The session of the request: one that is not over, or one that begins because the caller is
    /// remembered.
    fn found(&self, exchange: &mut Exchange) -> Option<Found> {
        let now = exchange.now_ms / 1000;
        let over =
            |timeout: f64, since: u64| timeout > 0.0 && now.saturating_sub(since) as f64 >= timeout;
        let config = &self.config;
        let mut values = cookies(&exchange.request.headers, &config.cookie_name);
        let record = values.find_map(|value| self.seal.open(value));
        drop(values);
        let record = record.filter(|record| {
            let is_over = over(config.idling_timeout, record.touched)
                || over(config.rolling_timeout, record.rolled)
                || over(config.absolute_timeout, record.begun);
            !is_over
        });
        let remembered = self.remember.as_ref().and_then(|remember| {
            let name = &config.remember_cookie_name;
            let mut values = cookies(&exchange.request.headers, name);
            let record = values.find_map(|value| remember.seal.open(value))?;
            let is_over = over(config.remember_rolling_timeout, record.rolled)
                || over(config.remember_absolute_timeout, record.begun);
            (!is_over).then_some(record)
        });
        if let Some(remembered) = &remembered {
            exchange.state.insert(Remembered {
                consumer: remembered.consumer,
                begun: remembered.begun,
            });
        }
        let found = |record, is_new| Found { record, is_new };
        record.map(|record| found(record, false)).or_else(|| {
            let times = Record {
                id: random()?,
                begun: now,
                rolled: now,
                touched: now,
                ..remembered?
            };
            Some(found(times, true))
        })
    }

    /// The cookie by which the caller of a session is remembered.
    fn remembering(&self, exchange: &Exchange, session: &Record) -> Option<HeaderValue> {
        let (remember, config) = (self.remember.as_ref()?, &self.config);
        let now = exchange.now_ms / 1000;
        let before = exchange.state.get::<Remembered>();
        let before = before.filter(|before| before.consumer == session.consumer);
        let begun = before.map_or(now, |before| before.begun);
        let record = Record {
            id: random()?,
            begun,
            rolled: now,
            touched: now,
            ..session.clone()
        };
        let left = |timeout: f64, since: u64| match timeout > 0.0 {
            true => (timeout - now.saturating_sub(since) as f64).max(0.0) as u64,
            false => KEPT_S_MAX,
        };
        let kept = left(config.remember_rolling_timeout, now)
            .min(left(config.remember_absolute_timeout, begun))
            .min(KEPT_S_MAX);
        let (name, value) = (&config.remember_cookie_name, remember.seal.close(&record)?);
        let cookie = format!("{name}={value}; Max-Age={kept}{}", self.attributes);
        HeaderValue::from_str(&cookie).ok()
    }

    /// Goes on as the consumer of the session.
    fn resume(&self, exchange: &mut Exchange, env: &Env<'_>, found: Found) -> Flow {
        let Found { mut record, is_new } = found;
        let Some(consumer) = env.identities.consumer_by_id(record.consumer) else {
            exchange.state.insert(Next::Expire);
            return Flow::Continue;
        };
        let owner = Owner {
            consumer: consumer.clone(),
            credential: Credential {
                id: record.credential,
                identifier: uuid_value(record.credential),
            },
        };
        let now = exchange.now_ms / 1000;
        let rolling = self.config.rolling_timeout;
        let rolled_ago = now.saturating_sub(record.rolled);
        let touched_ago = now.saturating_sub(record.touched);
        let mut renew = is_new;
        if rolling > 0.0 && rolled_ago as f64 > (rolling * 0.75).floor() {
            record.rolled = now;
            record.touched = now;
            renew = true;
        } else if self.config.idling_timeout > 0.0 && touched_ago > TOUCH_AFTER_S {
            record.touched = now;
            renew = true;
        }
        let told = self.config.request_headers.as_deref();
        let headers = &mut exchange.request.headers;
        self.tell(told, &record, &owner.consumer, now, headers);
        exchange.state.insert(match renew {
            true => Next::Renew(record),
            false => Next::Keep(record),
        });
        admit(exchange, &owner)
    }

    fn log_out(exchange: &mut Exchange) -> Flow {
        exchange.state.insert(Next::Expire);
        Flow::Respond(Reply {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: ReplyBody::Empty,
        })
    }

    fn body_says_logout(&self, exchange: &Exchange) -> bool {
        let (RequestBody::Here(body), Some(name)) =
            (&exchange.body, self.config.logout_post_arg.as_deref())
        else {
            return false;
        };
        let content_type = exchange
            .request
            .headers
            .get_str(&CONTENT_TYPE)
            .unwrap_or_default();
        let is = |kind| content_type.to_ascii_lowercase().starts_with(kind);
        if is("application/x-www-form-urlencoded") {
            return has_argument(std::str::from_utf8(body).ok(), name);
        }
        let json = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        is("application/json")
            && json()
                .get(name)
                .is_some_and(|it| !it.is_null() && it != false)
    }

    /// Sets the headers that tell about a session.
    fn tell(
        &self,
        told: Option<&[Told]>,
        record: &Record,
        consumer: &Consumer,
        now: u64,
        headers: &mut Fields,
    ) {
        let config = &self.config;
        let left = |timeout: f64, since: u64| {
            let left = timeout - now.saturating_sub(since) as f64;
            (timeout > 0.0).then_some(left.max(0.0) as u64)
        };
        let [idling, rolling, absolute] = [
            left(config.idling_timeout, record.touched),
            left(config.rolling_timeout, record.rolled),
            left(config.absolute_timeout, record.begun),
        ];
        for &told in told.unwrap_or_default() {
            let name = told.header();
            let value = match told {
                Told::Id => {
                    let id = BASE64_URL_SAFE_NO_PAD.encode(record.id);
                    HeaderValue::from_str(&id).ok()
                }
                Told::Audience => HeaderValue::from_str(&config.audience).ok(),
                Told::Subject => Some(consumer.shown_as()),
                Told::Timeout => [idling, rolling, absolute]
                    .into_iter()
                    .flatten()
                    .min()
                    .map(HeaderValue::from),
                Told::IdlingTimeout => idling.map(HeaderValue::from),
                Told::RollingTimeout => rolling.map(HeaderValue::from),
                Told::AbsoluteTimeout => absolute.map(HeaderValue::from),
            };
            crate::identities::set(headers, &name, value.as_ref());
        }
    }
}
