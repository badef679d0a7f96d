//! `rate-limiting`: refuses requests over a number per calendar window.

mod behind;
mod cluster;
mod counters;
mod ledger;
mod limits;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use sallyport_model::schema::{EntityCheck, Field, FieldError, Match, Path, Record};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use behind::{Behind, Told};
pub(crate) use cluster::NoNodes;
pub use cluster::{CountAnswer, CountError, CountNodes};
pub use counters::Counters;
use counters::Taken;
pub(crate) use counters::{Identity, Key, Limit};
pub(crate) use limits::{Limits, RawLimits, Windows, checks, fields};
use sallyport_wire::rate_limit::Period;
pub(crate) use shared::{add, counts, read};

use crate::exchange::{Env, Exchange, Flow, Handler, Reply, Resume};
use crate::redis::{self, RedisError, RedisServer, RedisValue};
use crate::{CompileError, Plugin};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

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
Windows are calendar seconds, minutes, hours, days, months and years in UTC. A refused request is not
counted in any of them. Deciding and counting are one step, so a burst cannot exceed a limit (Kong counts
afterwards, and can). Headers: `X-RateLimit-Limit-*`, `X-RateLimit-Remaining-*` for each window,
`RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset` for the one with least left, and `Retry-After`
on a refusal (429 unless `error_code` says otherwise).

| policy | where is counted |
|---|---|
| `local` | in each gateway for itself, over all its cores; lost when the process ends |
| `redis` | in one Redis (or Valkey) server for all gateways, under Kong's keys, so gateways of Kong count with them |
| `cluster` | on the nodes of the appliance, for all gateways that ask them |

With `redis`, one script a request decides and counts, over one pipelined connection for each core. While
the server is gone, requests pass without being counted and without headers (`fault_tolerant: true`) or get
500; a server that cannot be reached is tried again after a second. With `ssl_verify`, its certificate must
chain to `lua_ssl_trusted_certificate`.

With `sync_rate` in seconds instead of -1, a gateway asks Redis only for a caller that it has not seen of late,
decides by its own count, and tells Redis what it counted every `sync_rate`. Between that, gateways do not know
of each other's requests: together they may let pass what they count in that time beyond the limit. What could not
be told is told the next time; what a gateway did not tell yet when its process ends is lost.

With `cluster`, the nodes that `sallyport_rate_limit` in `kong.conf` names (`host:port`, several separated by
commas; port 9001) count, each key on one of them, in windows of their own clocks, and decide in the same step.
One pipelined connection goes to the first of them that can be reached, over TLS with
`sallyport_rate_limit_ssl = on` (the certificate must chain to `lua_ssl_trusted_certificate`). While no node
answers within `sallyport_rate_limit_timeout` (500 ms), each gateway counts for itself with the same limits
(`fault_tolerant: true`) or answers 500; the log says so once, and `sallyport_rate_limit_without_nodes_total`
counts those requests. A node that dies takes the counts of its keys along.
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
        let mut fields: Vec<Field> = fields("Requests in one such window.").collect();
        fields.extend([
            Field::string("limit_by")
                .one_of(&["consumer", "credential", "ip", "service", "header", "path"])
                .default(json!("consumer"))
                .about("Whose requests are counted together; the client's address where that is unknown."),
            Field::string("header_name").about("The header, for `limit_by: header`."),
            Field::string("path")
                .check(starts_with_slash)
                .about("The path, for `limit_by: path`."),
            Field::string("policy")
                .one_of(&["local", "cluster", "redis"])
                .default(json!("local"))
                .about(
                    "Where is counted: in each gateway, on the appliance's nodes or in Redis for all.",
                ),
            Field::boolean("fault_tolerant")
                .required()
                .default(json!(true))
                .about(
                    "Whether requests pass while who counts is gone: uncounted without Redis, counted by \
                     each gateway without nodes; 500 otherwise.",
                ),
            Field::record("redis", redis::record())
                .required()
                .about("The server, for `policy: redis`."),
            Field::boolean("hide_client_headers")
                .required()
                .default(json!(false))
                .about("Whether clients are told nothing about their limits."),
            Field::number("error_code")
                .above(0)
                .default(json!(429))
                .about("Status of a refusal."),
            Field::string("error_message")
                .default(json!("API rate limit exceeded"))
                .about("What a refusal says."),
            Field::number("sync_rate")
                .required()
                .default(json!(-1))
                .about("Seconds between tellings of Redis, from 0.02; -1 asks it for every request."),
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
        let record = checks()
            .into_iter()
            .fold(Record::new(fields), Record::check);
        redis::with_redis(record)
            .check(EntityCheck::Custom {
                fields: &["policy", "sync_rate"],
                run: sync_rate,
            })
            .check(required_with(&["header"], "header_name"))
            .check(required_with(&["path"], "path"))
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let redis = redis::server(config)?;
        let limits = Limits::from(RawLimits::deserialize(config)?);
        let config = Config::deserialize(config)?;
        let rules = Rules {
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
            fault_tolerant: config.fault_tolerant,
            error_code: StatusCode::from_u16(config.error_code as u16)
                .map_err(CompileError::value)?,
            error_message: config.error_message,
        };
        let every = (config.sync_rate != IN_STEP)
            .then(|| Duration::try_from_secs_f64(config.sync_rate))
            .transpose()
            .map_err(CompileError::value)?;
        Ok(match redis {
            None if config.policy == "cluster" => Box::new(cluster::Cluster(Arc::new(rules))),
            None => Box::new(Local(rules)),
            Some(server) => match every {
                Some(every) => Box::new(Behind {
                    rules: Arc::new(rules),
                    told: Told::new(server, every),
                }),
                None => Box::new(Shared {
                    rules: Arc::new(rules),
                    server,
                }),
            },
        })
    }
}

fn starts_with_slash(path: &Value) -> Result<(), String> {
    match path.as_str() {
        Some(path) if !path.starts_with('/') => Err("should start with: /".to_owned()),
        _ => Ok(()),
    }
}

/// Source: the custom validator of Kong's schema.
fn sync_rate(config: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let rate = config.get("sync_rate").and_then(Value::as_f64);
    let Some(rate) = rate.filter(|rate| *rate != IN_STEP) else {
        return;
    };
    let message = match config.get("policy").and_then(Value::as_str) {
        Some("redis") if rate < 0.02 => "sync_rate must be greater than 0.02, or -1 to disable",
        Some("redis") if rate <= SYNC_RATE_MAX => return,
        Some("redis") => "sync_rate must not be more than 86400 seconds",
        _ => "sync_rate can only be used with the redis policy",
    };
    errors.push(FieldError::entity(path.clone(), message));
}

/// The `sync_rate` with which Redis is asked for every request.
const IN_STEP: f64 = -1.0;
/// A day, in seconds.
const SYNC_RATE_MAX: f64 = 86_400.0;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    policy: String,
    limit_by: RawLimitBy,
    header_name: Option<String>,
    path: Option<String>,
    #[serde(default = "yes")]
    fault_tolerant: bool,
    hide_client_headers: bool,
    error_code: f64,
    error_message: String,
    #[serde(default = "in_step")]
    sync_rate: f64,
}

fn in_step() -> f64 {
    IN_STEP
}

fn yes() -> bool {
    true
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

struct Rules {
    limits: Limits,
    limit_by: LimitBy,
    hide_client_headers: bool,
    fault_tolerant: bool,
    error_code: StatusCode,
    error_message: String,
}

/// Counts in this gateway.
struct Local(Rules);

impl Handler for Local {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let Local(rules) = self;
        let limits = rules.limits.at(exchange.now_ms);
        let key = rules.key(exchange);
        let taken = env.node.counters.take(key, &limits, exchange.now_ms);
        rules.decide(exchange, &limits, taken)
    }
}

/// Counts in Redis.
struct Shared {
    rules: Arc<Rules>,
    server: Arc<RedisServer>,
}

impl Handler for Shared {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let limits = self.rules.limits.at(exchange.now_ms);
        let key = self.rules.key(exchange);
        let command = shared::take(&key, &limits, exchange.now_ms);
        let asked = env.node.redis.ask(&self.server, command);
        let rules = self.rules.clone();
        Flow::Wait(Box::pin(async move {
            let answer = asked.await;
            let resume: Resume =
                Box::new(move |exchange, _| rules.answered(exchange, &limits, answer));
            resume
        }))
    }
}

impl Rules {
    fn key(&self, exchange: &Exchange) -> Key {
        Key {
            route: exchange.route,
            service: exchange.service,
            identity: self.identity(exchange),
        }
    }

    fn answered(
        &self,
        exchange: &mut Exchange,
        limits: &Windows,
        answer: Result<RedisValue, RedisError>,
    ) -> Flow {
        let taken = answer
            .ok()
            .and_then(|answer| shared::taken(&answer, limits));
        match taken {
            Some(taken) => self.decide(exchange, limits, taken),
            None if self.fault_tolerant => Flow::Continue,
            None => Flow::Respond(Reply::failure()),
        }
    }

    fn decide(&self, exchange: &mut Exchange, limits: &[Limit], taken: Taken) -> Flow {
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
                headers.set(limit_name, &self.limits[index].shown);
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
            headers.set(&LIMIT, &self.limits[index].shown);
            headers.set_number(&REMAINING, remaining);
            headers.set_number(&RESET, reset_s);
        }
        reset_s
    }
}

#[cfg(test)]
mod tests;
