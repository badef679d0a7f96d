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
        let expired = format!(
            "{}=; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0{attributes}",
            config.cookie_name
        );
        Ok(Box::new(Active(Arc::new(Inner {
            seal,
            attributes,
            expired: HeaderValue::from_str(&expired).map_err(CompileError::value)?,
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
    config: Config,
}

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
        let Some(record) = inner.record(exchange) else {
            return Flow::Continue;
        };
        let methods = inner.config.logout_methods.iter().flatten();
        if !methods
            .into_iter()
            .any(|method| *method == exchange.request.method.as_str())
        {
            return inner.resume(exchange, env, record);
        }
        let in_query = inner.config.logout_query_arg.as_deref();
        if in_query.is_some_and(|name| has_argument(exchange.request.uri.query(), name)) {
            return Inner::log_out(exchange);
        }
        let reads = inner.config.read_body_for_logout
            && inner.config.logout_post_arg.is_some()
            && exchange.request.method != Method::GET;
        if !reads {
            return inner.resume(exchange, env, record);
        }
        let inner = Arc::clone(inner);
        Flow::ReadBody(
            LOGOUT_BODY_BYTES_MAX,
            Box::new(
                move |exchange, env| match inner.body_says_logout(exchange) {
                    true => Inner::log_out(exchange),
                    false => inner.resume(exchange, env, record),
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
    /// The session of the request, if it has one that is not over.
    fn record(&self, exchange: &Exchange) -> Option<Record> {
        let name = &self.config.cookie_name;
        let mut values = cookies(&exchange.request.headers, name);
        let record = values.find_map(|value| self.seal.open(value))?;
        let now = exchange.now_ms / 1000;
        let over =
            |timeout: f64, since: u64| timeout > 0.0 && now.saturating_sub(since) as f64 >= timeout;
        let is_over = over(self.config.idling_timeout, record.touched)
            || over(self.config.rolling_timeout, record.rolled)
            || over(self.config.absolute_timeout, record.begun);
        (!is_over).then_some(record)
    }

    /// Goes on as the consumer of the session.
    fn resume(&self, exchange: &mut Exchange, env: &Env<'_>, mut record: Record) -> Flow {
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
        let mut renew = false;
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
