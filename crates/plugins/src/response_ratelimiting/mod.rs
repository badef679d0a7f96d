//! `response-ratelimiting`: limits what upstreams say that their responses cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, StatusCode};
use sallyport_model::schema::{Field, Record, each};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::checks::{header_name, is_header_name};
use crate::exchange::{BodyUse, Env, Exchange, Flow, Handler, Reply, ResponseHead, Resume};
use crate::node::Node;
use crate::rate_limiting::{
    self as requests, Identity, Key, Limits, RawLimits, Windows, checks, fields,
};
use crate::redis::{self, RedisServer};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
The upstream says in the header `header_name` of a response what it cost, such as `X-Kong-Limit: video=2,
sms=1`. The gateway counts that for the caller, removes the header, and tells the client
`X-RateLimit-Limit-<limit>-<period>` and `X-RateLimit-Remaining-<limit>-<period>`. The upstream gets what is
left of each limit before it answers: `X-RateLimit-Remaining-<limit>`.

| case | answer |
|---|---|
| a limit was used up before, and the response costs some of it | 429 without a body; nothing is counted |
| a limit is used up and `block_on_first_violation` is set | 429 `API rate limit exceeded for '<limit>'`; the upstream is not asked |

Windows and policies are those of [rate-limiting](rate-limiting.md). Counting follows the response: several
responses at once may exceed a limit. With `redis`, it does not wait for the server.
";

/// The plugin, as the registry lists it.
pub(crate) struct ResponseRatelimiting;

impl Plugin for ResponseRatelimiting {
    fn name(&self) -> &'static str {
        "response-ratelimiting"
    }

    fn priority(&self) -> i32 {
        900
    }

    fn summary(&self) -> &'static str {
        "limits what upstreams say that their responses cost"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn schema(&self) -> Record {
        let limits = Record::new(fields("What responses may cost in one such window."));
        let limits = checks().into_iter().fold(limits, Record::check);
        redis::with_redis(Record::new([
            Field::string("header_name")
                .default(json!("x-kong-limit"))
                .check(header_name)
                .about("The header in which upstreams say what a response cost."),
            Field::string("limit_by")
                .one_of(&["consumer", "credential", "ip"])
                .default(json!("consumer"))
                .about("Whose responses are counted together; the client's address where that is unknown."),
            Field::string("policy")
                .one_of(&["local", "cluster", "redis"])
                .default(json!("local"))
                .check(redis::policy)
                .about("Where is counted: in each gateway, or in Redis for all of them."),
            Field::boolean("fault_tolerant")
                .required()
                .default(json!(true))
                .about("Whether requests pass uncounted while Redis is gone; 500 otherwise."),
            Field::record("redis", redis::record())
                .required()
                .about("The server, for `policy: redis`."),
            Field::boolean("block_on_first_violation")
                .required()
                .default(json!(false))
                .about("Whether requests are refused as soon as any limit is used up."),
            Field::boolean("hide_client_headers")
                .required()
                .default(json!(false))
                .about("Whether clients are told nothing about their limits."),
            Field::map("limits", each::string().check(limit_name), each::record(limits).required())
                .required()
                .len(1, 64)
                .about("Limits by name."),
        ]))
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let redis = redis::server(config)?;
        let config = Config::deserialize(config)?;
        let limits = config.limits.into_iter();
        let rules = Rules {
            header_name: config.header_name.parse().map_err(CompileError::value)?,
            limit_by: config.limit_by,
            fault_tolerant: config.fault_tolerant,
            block_on_first_violation: config.block_on_first_violation,
            hide_client_headers: config.hide_client_headers,
            limits: limits
                .map(|(name, limits)| Named::new(&name, limits.into()))
                .collect::<Result<_, _>>()?,
            redis,
        };
        Ok(Box::new(Active(Arc::new(rules))))
    }
}

fn limit_name(name: &Value) -> Result<(), String> {
    let name = name.as_str().unwrap_or_default();
    is_header_name(name).map_err(|_| {
        format!("'{name}' cannot be a part of a header's name; use A-Z, a-z, 0-9, '_' and '-'")
    })
}

#[derive(Deserialize)]
struct Config {
    header_name: String,
    limit_by: LimitBy,
    fault_tolerant: bool,
    block_on_first_violation: bool,
    hide_client_headers: bool,
    limits: BTreeMap<String, RawLimits>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LimitBy {
    Consumer,
    Credential,
    Ip,
}

struct Rules {
    header_name: HeaderName,
    limit_by: LimitBy,
    fault_tolerant: bool,
    block_on_first_violation: bool,
    hide_client_headers: bool,
    limits: Vec<Named>,
    /// Where is counted, if not in this gateway.
    redis: Option<Arc<RedisServer>>,
}

/// A limit with its name and the headers that speak of it.
struct Named {
    name: Arc<str>,
    limits: Limits,
    /// To the upstream.
    remaining: HeaderName,
    /// To the client, for each window: limit and what is left of it.
    told: Vec<(HeaderName, HeaderName)>,
}

impl Named {
    fn new(name: &str, limits: Limits) -> Result<Named, CompileError> {
        let header =
            |text: String| HeaderName::from_bytes(text.as_bytes()).map_err(CompileError::value);
        let told = |period: &str| {
            Ok((
                header(format!("x-ratelimit-limit-{name}-{period}"))?,
                header(format!("x-ratelimit-remaining-{name}-{period}"))?,
            ))
        };
        Ok(Named {
            name: name.into(),
            remaining: header(format!("x-ratelimit-remaining-{name}"))?,
            told: limits
                .iter()
                .map(|stated| told(stated.period.field()))
                .collect::<Result<_, CompileError>>()?,
            limits,
        })
    }
}

/// What the access phase found out, for the response.
#[derive(Clone)]
struct Usage {
    node: Arc<Node>,
    caller: Identity,
    /// What is left in the windows of each limit.
    left: Vec<Vec<u64>>,
    /// Whether the response is refused.
    refused: bool,
}

impl Rules {
    fn caller(&self, exchange: &Exchange) -> Identity {
        let credential = || {
            let credential = exchange.credential.as_ref();
            credential.map(|credential| Identity::Credential(credential.id))
        };
        let consumer = || {
            let consumer = exchange.consumer.as_ref();
            consumer.map(|consumer| Identity::Consumer(consumer.id))
        };
        let known = match self.limit_by {
            LimitBy::Consumer => consumer().or_else(credential),
            LimitBy::Credential => credential(),
            LimitBy::Ip => None,
        };
        known.unwrap_or(Identity::Ip(exchange.client_ip))
    }

    /// The limits with their windows at the time of the request.
    fn windows(&self, exchange: &Exchange) -> Vec<Windows> {
        let at = |named: &Named| named.limits.at(exchange.now_ms);
        self.limits.iter().map(at).collect()
    }

    /// Goes on with what is used of each window of each limit.
    fn known(
        &self,
        exchange: &mut Exchange,
        node: &Arc<Node>,
        windows: &[Windows],
        used: &[Vec<u64>],
    ) -> Flow {
        let mut left = Vec::new();
        for ((named, windows), used) in self.limits.iter().zip(windows).zip(used) {
            let each = windows.iter().zip(used);
            let each: Vec<u64> = each
                .map(|(limit, used)| limit.limit.saturating_sub(*used))
                .collect();
            let least = each.iter().copied().min().unwrap_or(0);
            if self.block_on_first_violation && least == 0 {
                let message = format!("API rate limit exceeded for '{}'", named.name);
                return Flow::Respond(Reply::error(StatusCode::TOO_MANY_REQUESTS, message));
            }
            exchange.request.headers.set_number(&named.remaining, least);
            left.push(each);
        }
        exchange.state.insert(Usage {
            node: node.clone(),
            caller: self.caller(exchange),
            left,
            refused: false,
        });
        Flow::Continue
    }

    /// What the upstream says that the response cost, for each limit.
    fn costs(&self, response: &ResponseHead<'_>) -> Vec<u64> {
        let mut costs = vec![0; self.limits.len()];
        for value in response.headers.get_all(&self.header_name) {
            let Ok(text) = std::str::from_utf8(value) else {
                continue;
            };
            for part in text.split(',') {
                let Some((name, amount)) = part.split_once('=') else {
                    continue;
                };
                let known = self
                    .limits
                    .iter()
                    .position(|named| *named.name == *name.trim());
                if let (Some(at), Ok(amount)) = (known, amount.trim().parse()) {
                    costs[at] = amount;
                }
            }
        }
        costs
    }

    fn count(&self, exchange: &Exchange, usage: &Usage, costs: &[u64]) {
        let now_ms = exchange.now_ms;
        for (named, &cost) in self.limits.iter().zip(costs).filter(|(_, cost)| **cost > 0) {
            let limits = named.limits.at(now_ms);
            match &self.redis {
                None => {
                    let key = key(exchange, limit_of(named, &usage.caller));
                    usage.node.counters.add(key, &limits, cost, now_ms);
                }
                Some(server) => {
                    let key = key(exchange, usage.caller.clone());
                    let command = requests::add(&named.name, &key, &limits, cost, now_ms);
                    usage.node.redis.tell(server, command);
                }
            }
        }
    }
}

fn key(exchange: &Exchange, identity: Identity) -> Key {
    Key {
        route: exchange.route,
        service: exchange.service,
        identity,
    }
}

fn limit_of(named: &Named, caller: &Identity) -> Identity {
    Identity::Limit(named.name.clone(), Box::new(caller.clone()))
}

struct Active(Arc<Rules>);

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let Active(rules) = self;
        let windows = rules.windows(exchange);
        let caller = rules.caller(exchange);
        let Some(server) = &rules.redis else {
            let counters = &env.node.counters;
            let used: Vec<Vec<u64>> = rules
                .limits
                .iter()
                .zip(&windows)
                .map(|(named, windows)| {
                    let key = key(exchange, limit_of(named, &caller));
                    let used = counters.used(&key, windows, exchange.now_ms);
                    used[..windows.len()].to_vec()
                })
                .collect();
            return rules.known(exchange, env.node, &windows, &used);
        };
        let key = key(exchange, caller);
        let asked = rules
            .limits
            .iter()
            .zip(&windows)
            .flat_map(|(named, windows)| {
                let key = &key;
                windows.iter().map(move |limit| (&*named.name, key, *limit))
            });
        let asked = env.node.redis.ask(server, requests::read(asked));
        let rules = rules.clone();
        Flow::Wait(Box::pin(async move {
            let answer = asked.await;
            let resume: Resume = Box::new(move |exchange, env| {
                let length = windows.iter().map(|windows| windows.len()).sum();
                let counts = answer
                    .ok()
                    .and_then(|answer| requests::counts(&answer, length));
                match counts {
                    Some(counts) => {
                        let mut counts = counts.into_iter();
                        let used: Vec<Vec<u64>> = windows
                            .iter()
                            .map(|windows| counts.by_ref().take(windows.len()).collect())
                            .collect();
                        rules.known(exchange, env.node, &windows, &used)
                    }
                    None if rules.fault_tolerant => Flow::Continue,
                    None => Flow::Respond(Reply::failure()),
                }
            });
            resume
        }))
    }

    fn filters_headers(&self) -> bool {
        true
    }

    fn header_filter(&self, exchange: &mut Exchange, response: &mut ResponseHead<'_>) {
        let Active(rules) = self;
        let Some(mut usage) = exchange.state.remove::<Usage>() else {
            return;
        };
        let costs = rules.costs(response);
        response.headers.remove(&rules.header_name);
        for (at, named) in rules.limits.iter().enumerate() {
            for (index, &left) in usage.left[at].iter().enumerate() {
                usage.refused |= costs[at] > 0 && left == 0;
                if !rules.hide_client_headers {
                    let (limit, remaining) = &named.told[index];
                    response.headers.set(limit, &named.limits[index].shown);
                    let left = left.saturating_sub(costs[at]);
                    response.headers.set_number(remaining, left);
                }
            }
        }
        if usage.refused {
            *response.status = StatusCode::TOO_MANY_REQUESTS;
        } else {
            rules.count(exchange, &usage, &costs);
        }
        exchange.state.insert(usage);
    }

    fn filters_bodies(&self) -> bool {
        true
    }

    fn body_use(&self, exchange: &Exchange, _: &ResponseHead<'_>) -> BodyUse {
        match exchange.state.get::<Usage>() {
            Some(usage) if usage.refused => BodyUse::Drop,
            _ => BodyUse::Pass,
        }
    }
}

#[cfg(test)]
mod tests;
