//! `rate-limiting`: refuses requests over a number per calendar window.

mod counters;
mod window;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use sallyport_model::schema::{EntityCheck, Field, FieldError, Match, Path, Record};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use counters::Counters;
use counters::{Identity, Key, Limit, Taken};
use window::Period;

use crate::exchange::{Env, Exchange, Flow, Handler, Reply};
use crate::{CompileError, Plugin};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The fields of the limits, shortest window first.
const LIMITS: &[&str] = &["second", "minute", "hour", "day", "month", "year"];

/// `X-RateLimit-Limit-<Period>` and `X-RateLimit-Remaining-<Period>`, in the order of periods.
const PERIOD_HEADERS: [(HeaderName, HeaderName); Period::ALL.len()] = [
    (
        HeaderName::from_static("x-ratelimit-limit-second"),
        HeaderName::from_static("x-ratelimit-remaining-second"),
    ),
    (
        HeaderName::from_static("x-ratelimit-limit-minute"),
        HeaderName::from_static("x-ratelimit-remaining-minute"),
    ),
    (
        HeaderName::from_static("x-ratelimit-limit-hour"),
        HeaderName::from_static("x-ratelimit-remaining-hour"),
    ),
    (
        HeaderName::from_static("x-ratelimit-limit-day"),
        HeaderName::from_static("x-ratelimit-remaining-day"),
    ),
    (
        HeaderName::from_static("x-ratelimit-limit-month"),
        HeaderName::from_static("x-ratelimit-remaining-month"),
    ),
    (
        HeaderName::from_static("x-ratelimit-limit-year"),
        HeaderName::from_static("x-ratelimit-remaining-year"),
    ),
];

const ABOUT: &str = "\
The policy is `local`: each node counts for itself, over all its cores. `redis` and `cluster` are refused.

Windows are calendar seconds, minutes, hours, days, months and years in UTC. A refused request is not
counted in any of them. Deciding and counting are one step, so a burst cannot exceed a limit (Kong counts
afterwards, and can). Headers: `X-RateLimit-Limit-*`, `X-RateLimit-Remaining-*` for each window,
`RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset` for the one with least left, and `Retry-After`
on a refusal (429 unless `error_code` says otherwise). Counts are lost when the process ends.
";

/// The plugin, as the registry lists it.
pub(crate) struct RateLimiting;

impl Plugin for RateLimiting {
    fn name(&self) -> &'static str {
        "rate-limiting"
    }

    fn priority(&self) -> i32 {
        910
    }

    fn summary(&self) -> &'static str {
        "refuses requests over a number per calendar window"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn schema(&self) -> Record {
        let limit = |period: Period| Field::number(period.field()).above(0);
        let mut fields: Vec<Field> = Period::ALL.into_iter().map(limit).collect();
        fields.extend([
            Field::string("limit_by")
                .one_of(&["consumer", "credential", "ip", "service", "header", "path"])
                .default(json!("consumer")),
            Field::string("header_name"),
            Field::string("path").check(starts_with_slash),
            Field::string("policy")
                .one_of(&["local", "cluster", "redis"])
                .default(json!("local"))
                .check(only_local),
            Field::boolean("fault_tolerant")
                .required()
                .default(json!(true)),
            Field::record("redis", redis()).required(),
            Field::boolean("hide_client_headers")
                .required()
                .default(json!(false)),
            Field::number("error_code").above(0).default(json!(429)),
            Field::string("error_message").default(json!("API rate limit exceeded")),
            Field::number("sync_rate").required().default(json!(-1)),
        ]);
        let required_with = |limit_by: &'static [&'static str], then_field| {
            let if_match = Match::OneOf(limit_by);
            EntityCheck::Conditional {
                if_field: "limit_by",
                if_match,
                then_field,
                then_match: Match::Set,
            }
        };
        Record::new(fields)
            .check(EntityCheck::AtLeastOneOf(LIMITS))
            .check(required_with(&["header"], "header_name"))
            .check(required_with(&["path"], "path"))
            .check(EntityCheck::Custom {
                fields: LIMITS,
                run: limits_ascend,
            })
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let limits = Period::ALL
            .into_iter()
            .zip([
                config.second,
                config.minute,
                config.hour,
                config.day,
                config.month,
                config.year,
            ])
            .filter_map(|(period, limit)| {
                let limit = limit? as u64;
                Some((period, limit, HeaderValue::from(limit)))
            })
            .collect();
        Ok(Box::new(Active {
            limits,
            limit_by: match config.limit_by {
                RawLimitBy::Consumer => LimitBy::Consumer,
                RawLimitBy::Credential => LimitBy::Credential,
                RawLimitBy::Ip => LimitBy::Ip,
                RawLimitBy::Service => LimitBy::Service,
                RawLimitBy::Header => {
                    let name = config.header_name.unwrap_or_default();
                    LimitBy::Header(name.parse().map_err(CompileError::value)?)
                }
                RawLimitBy::Path => LimitBy::Path(config.path.unwrap_or_default().into()),
            },
            hide_client_headers: config.hide_client_headers,
            error_code: StatusCode::from_u16(config.error_code as u16)
                .map_err(CompileError::value)?,
            error_message: config.error_message,
        }))
    }
}

fn redis() -> Record {
    Record::new([
        Field::string("host"),
        Field::integer("port")
            .between(0, 65_535)
            .default(json!(6379)),
        Field::integer("timeout")
            .between(0, 2_147_483_646)
            .default(json!(2000)),
        Field::string("username").referenceable(),
        Field::string("password").referenceable().encrypted(),
        Field::integer("database").default(json!(0)),
        Field::boolean("ssl").default(json!(false)),
        Field::boolean("ssl_verify").default(json!(false)),
        Field::string("server_name"),
    ])
}

fn only_local(policy: &Value) -> Result<(), String> {
    match policy.as_str() {
        Some("local") | None => Ok(()),
        Some(other) => Err(format!(
            "policy '{other}' is not supported by this build; use 'local'"
        )),
    }
}

fn starts_with_slash(path: &Value) -> Result<(), String> {
    match path.as_str() {
        Some(path) if !path.starts_with('/') => Err("should start with: /".to_owned()),
        _ => Ok(()),
    }
}

/// A longer window may not allow less than a shorter one.
fn limits_ascend(config: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let mut shorter: Option<(&str, f64)> = None;
    for &name in LIMITS {
        let Some(limit) = config.get(name).and_then(Value::as_f64) else {
            continue;
        };
        if let Some((before, lower)) = shorter
            && limit < lower
        {
            let message = format!(
                "The limit for {name}({limit:.1}) cannot be lower than the limit for \
                 {before}({lower:.1})"
            );
            errors.push(FieldError::entity(path.clone(), message));
        }
        shorter = Some((name, limit));
    }
}

#[derive(Deserialize)]
struct Config {
    second: Option<f64>,
    minute: Option<f64>,
    hour: Option<f64>,
    day: Option<f64>,
    month: Option<f64>,
    year: Option<f64>,
    limit_by: RawLimitBy,
    header_name: Option<String>,
    path: Option<String>,
    hide_client_headers: bool,
    error_code: f64,
    error_message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawLimitBy {
    Consumer,
    Credential,
    Ip,
    Service,
    Header,
    Path,
}

enum LimitBy {
    Consumer,
    Credential,
    Ip,
    Service,
    Header(HeaderName),
    Path(Box<str>),
}

struct Active {
    /// Each period with its limit, as a number and as a header.
    limits: Vec<(Period, u64, HeaderValue)>,
    limit_by: LimitBy,
    hide_client_headers: bool,
    error_code: StatusCode,
    error_message: String,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let now_ms = exchange.now_ms;
        let mut buffer = [Limit {
            period: Period::Second,
            limit: 0,
            window: Period::Second.window(0),
        }; Period::ALL.len()];
        for (slot, &(period, limit, _)) in buffer.iter_mut().zip(&self.limits) {
            *slot = Limit {
                period,
                limit,
                window: period.window(now_ms),
            };
        }
        let limits = &buffer[..self.limits.len()];
        let key = Key {
            route: exchange.route,
            service: exchange.service,
            identity: self.identity(exchange),
        };
        let taken = env.counters.take(key, limits, now_ms);
        let reset_s = self.tell_client(exchange, limits, taken);
        if taken.refused_by.is_none() {
            return Flow::Continue;
        }
        let mut reply = Reply::error(self.error_code, self.error_message.clone());
        if !self.hide_client_headers {
            reply = reply.with(RETRY_AFTER, HeaderValue::from(reset_s));
        }
        Flow::Respond(reply)
    }
}

impl Active {
    fn identity(&self, exchange: &Exchange) -> Identity {
        let consumer = || {
            exchange
                .consumer
                .as_ref()
                .map(|consumer| Identity::Consumer(consumer.id))
        };
        let credential = || {
            exchange
                .credential
                .as_ref()
                .map(|credential| Identity::Credential(credential.id))
        };
        let found = match &self.limit_by {
            LimitBy::Consumer => consumer().or_else(credential),
            LimitBy::Credential => credential(),
            LimitBy::Ip => None,
            LimitBy::Service => exchange.service.map(Identity::Service),
            LimitBy::Header(name) => exchange
                .request
                .headers
                .get(name)
                .map(|value| Identity::Header(value.into())),
            LimitBy::Path(path) => {
                (exchange.request.uri.path() == &**path).then(|| Identity::Path(path.clone()))
            }
        };
        found.unwrap_or(Identity::Ip(exchange.client_ip))
    }

    /// Sets the client's headers; the answer is the seconds until the tightest window ends.
    fn tell_client(&self, exchange: &mut Exchange, limits: &[Limit], taken: Taken) -> u64 {
        let mut tightest: Option<(u64, usize)> = None;
        for (index, limit) in limits.iter().enumerate() {
            let this_one = u64::from(taken.refused_by.is_none_or(|by| by == index));
            let remaining = limit.limit.saturating_sub(taken.used[index] + this_one);
            if !self.hide_client_headers {
                let (limit_name, remaining_name) = &PERIOD_HEADERS[limit.period as usize];
                let headers = &mut exchange.response_headers;
                headers.set(limit_name, &self.limits[index].2);
                headers.set_number(remaining_name, remaining);
            }
            if tightest
                .as_ref()
                .is_none_or(|(least, _)| remaining <= *least)
            {
                tightest = Some((remaining, index));
            }
        }
        let Some((remaining, index)) = tightest else {
            return 1;
        };
        let reset_s = limits[index].window.reset_s(exchange.now_ms);
        if !self.hide_client_headers {
            let headers = &mut exchange.response_headers;
            headers.set(&LIMIT, &self.limits[index].2);
            headers.set_number(&REMAINING, remaining);
            headers.set_number(&RESET, reset_s);
        }
        reset_s
    }
}

#[cfg(test)]
mod tests;
