//! `correlation-id`: gives every request an id that services, logs and clients share.

use std::cell::Cell;

use http::{HeaderName, HeaderValue};
use sallyport_model::schema::{Field, Record};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arrival::Arrival;
use crate::checks::header_name;
use crate::exchange::{Env, Exchange, Flow, Handler, ResponseHead};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
A request that has the header already, not empty, keeps its value. Otherwise it gets one before it goes
upstream:

| `generator` | value |
|---|---|
| `uuid#counter` | a UUID for each core of the gateway, `#`, and a number that grows with every request |
| `uuid` | a UUID for each request |
| `tracker` | the address and the port of the gateway that the client reached, the process, the number of the connection, the number of the request on it, and the time in seconds with milliseconds, joined by `-` |

With `echo_downstream` the client gets the value in the header of the same name; where no route matched, one of
the kind `uuid#counter` if `generator` is `tracker`. Log plugins tell the value as `correlation_id`.

`tracker` shows services, and with `echo_downstream` clients too, addresses and ports behind your load balancer.
";

/// The plugin, as the registry lists it.
pub(crate) struct CorrelationId;

impl Plugin for CorrelationId {
    fn name(&self) -> &'static str {
        "correlation-id"
    }

    fn priority(&self) -> i32 {
        100_001
    }

    fn summary(&self) -> &'static str {
        "gives every request an id that services, logs and clients share"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::string("header_name")
                .default(json!("Kong-Request-ID"))
                .check(header_name)
                .about("The header that carries the id."),
            Field::string("generator")
                .required()
                .default(json!("uuid#counter"))
                .one_of(&["uuid", "uuid#counter", "tracker"])
                .about("What an id is made of."),
            Field::boolean("echo_downstream")
                .required()
                .default(json!(false))
                .about("Whether the client gets the id too."),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let name = config.header_name.as_deref().unwrap_or("Kong-Request-ID");
        Ok(Box::new(Active {
            name: name.parse().map_err(CompileError::value)?,
            generator: config.generator,
            echo_downstream: config.echo_downstream,
        }))
    }
}

#[derive(Deserialize)]
struct Config {
    header_name: Option<String>,
    generator: Generator,
    echo_downstream: bool,
}

#[derive(Clone, Copy, Deserialize)]
enum Generator {
    #[serde(rename = "uuid")]
    Uuid,
    #[serde(rename = "uuid#counter")]
    UuidCounter,
    #[serde(rename = "tracker")]
    Tracker,
}

thread_local! {
    /// The UUID of this core and how many ids it made.
    static COUNTER: (Uuid, Cell<u64>) = (Uuid::new_v4(), Cell::new(0));
}

impl Generator {
    fn make(self, arrival: Option<(&Arrival<'_>, u64)>) -> HeaderValue {
        let text = match (self, arrival) {
            (Generator::Uuid, _) => Uuid::new_v4().to_string(),
            (Generator::Tracker, Some((arrival, now_ms))) => tracked(arrival, now_ms),
            (Generator::UuidCounter | Generator::Tracker, _) => COUNTER.with(|(id, made)| {
                made.set(made.get() + 1);
                format!("{id}#{}", made.get())
            }),
        };
        HeaderValue::try_from(text).expect("hex digits, numbers and addresses are a header value")
    }
}

/// Source: the generator `tracker` of Kong's handler.
fn tracked(arrival: &Arrival<'_>, now_ms: u64) -> String {
    let Arrival {
        address,
        connection,
        nth,
        ..
    } = arrival;
    let (ip, port) = (address.ip(), address.port());
    let (process, seconds, millis) = (std::process::id(), now_ms / 1000, now_ms % 1000);
    format!("{ip}-{port}-{process}-{connection}-{nth}-{seconds}.{millis:03}")
}

struct Active {
    name: HeaderName,
    generator: Generator,
    echo_downstream: bool,
}

/// The id of a request.
#[derive(Clone)]
pub(crate) struct CorrelatedBy(HeaderValue);

impl CorrelatedBy {
    /// The id, if it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        self.0.to_str().ok()
    }
}

impl Active {
    fn sent_by_client(&self, exchange: &Exchange) -> Option<HeaderValue> {
        let value = exchange.request.headers.get(&self.name)?;
        let value = HeaderValue::from_bytes(value).ok()?;
        (!value.is_empty()).then_some(value)
    }
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        let id = self.sent_by_client(exchange).unwrap_or_else(|| {
            let arrival = match self.generator {
                Generator::Tracker => env.arriving.map(|it| it.arrival(exchange)),
                Generator::Uuid | Generator::UuidCounter => None,
            };
            let arrival = arrival.as_ref().map(|it| (it, exchange.now_ms));
            let id = self.generator.make(arrival);
            exchange.request.headers.set(&self.name, &id);
            id
        });
        exchange.state.insert(CorrelatedBy(id));
        Flow::Continue
    }

    fn filters_headers(&self) -> bool {
        self.echo_downstream
    }

    fn header_filter(&self, exchange: &mut Exchange, response: &mut ResponseHead<'_>) {
        if !self.echo_downstream {
            return;
        }
        // no access phase ran where no route matched
        let id = match exchange.state.get::<CorrelatedBy>() {
            Some(CorrelatedBy(id)) => id.clone(),
            None => self
                .sent_by_client(exchange)
                .unwrap_or_else(|| self.generator.make(None)),
        };
        response.headers.set(&self.name, &id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::header;
    use crate::trial::{Trial, get, problems};

    const NAME: &str = "kong-request-id";

    #[test]
    fn every_request_gets_an_id_of_its_own() {
        let trial = Trial::new(&CorrelationId, json!({}));
        let mut ids = Vec::new();
        for _ in 0..3 {
            let mut exchange = get("/");
            let seen = trial.ask(&mut exchange, b"");
            assert_eq!(seen.header(NAME), None, "not echoed unless configured");
            ids.push(header(&exchange, NAME).unwrap().to_owned());
        }
        let parts: Vec<_> = ids.iter().map(|id| id.split_once('#').unwrap()).collect();
        assert!(parts.iter().all(|(id, _)| *id == parts[0].0), "{ids:?}");
        assert!(Uuid::parse_str(parts[0].0).is_ok());
        let numbers: Vec<u64> = parts.iter().map(|(_, n)| n.parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }

    #[test]
    fn an_id_that_the_client_sent_stays() {
        let config = json!({"header_name": "X-Id", "generator": "uuid", "echo_downstream": true});
        let trial = Trial::new(&CorrelationId, config);
        for (sent, kept) in [(Some("mine"), true), (Some(""), false), (None, false)] {
            let mut exchange = get("/");
            if let Some(sent) = sent {
                let value = HeaderValue::from_static(sent);
                exchange
                    .request
                    .headers
                    .set(&HeaderName::from_static("x-id"), &value);
            }
            let seen = trial.ask(&mut exchange, b"");
            let upstream = header(&exchange, "x-id").unwrap();
            assert_eq!(seen.header("x-id"), Some(upstream));
            assert_eq!(upstream == "mine", kept);
            assert!(kept || Uuid::parse_str(upstream).is_ok());
        }
    }

    #[test]
    fn a_tracker_tells_the_way_of_the_request() {
        let trial = Trial::new(&CorrelationId, json!({"generator": "tracker"}));
        let mut exchange = get("/");
        exchange.now_ms = 1_700_000_000_007;
        trial.ask(&mut exchange, b"");
        let process = std::process::id();
        let expected = format!("192.0.2.1-8000-{process}-7-3-1700000000.007");
        assert_eq!(header(&exchange, NAME), Some(&*expected));
    }

    #[test]
    fn a_response_without_an_access_phase_has_an_id_too() {
        let trial = Trial::new(&CorrelationId, json!({"echo_downstream": true}));
        let seen = trial.response(&mut get("/"), 404, &[], "");
        assert!(seen.header(NAME).is_some());
    }

    #[test]
    fn bad_configurations_are_named() {
        for (config, part) in [
            (json!({"generator": "dice"}), "expected one of"),
            (json!({"header_name": "a b"}), "header_name"),
            (json!({"echo": true}), "unknown field"),
        ] {
            let found = problems(&CorrelationId, config);
            assert!(found.contains(part), "{found:?}");
        }
    }
}
