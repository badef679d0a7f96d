//! What the plugins' own tests share: requests, callers, one turn of the access phase.

use std::net::{IpAddr, Ipv4Addr};

use http::request::Builder;
use sallyport_model::entities::ConfigTable;
use sallyport_model::schema;
use serde_json::{Value, json};

use crate::Plugin;
use crate::exchange::{Env, Exchange, Flow, Handler, ReplyBody, Request, RequestBody};
use crate::fields::Fields;
use crate::identities::Identities;
use crate::metrics::Metrics;
use crate::rate_limiting::Counters;

/// What a plugin did in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Continued,
    Refused(u16, String),
}

/// The plugin under one configuration, with the callers of [`identities`].
pub(crate) struct Bench {
    handler: Box<dyn Handler>,
    identities: Identities,
    counters: Counters,
    metrics: Metrics,
}

impl Bench {
    pub(crate) fn new(plugin: &dyn Plugin, config: Value) -> Bench {
        let config = validate(plugin, config).expect("the test's configuration is valid");
        Bench {
            handler: plugin
                .compile(&config)
                .expect("a valid configuration compiles"),
            identities: identities(),
            counters: Counters::default(),
            metrics: Metrics::default(),
        }
    }

    pub(crate) fn access(&self, exchange: &mut Exchange) -> Outcome {
        let env = Env {
            identities: &self.identities,
            counters: &self.counters,
            metrics: &self.metrics,
        };
        match self.handler.access(exchange, &env) {
            Flow::Continue => Outcome::Continued,
            Flow::Wait(_) | Flow::ReadBody(..) => {
                unreachable!("no plugin of this build waits")
            }
            Flow::Respond(reply) => {
                let ReplyBody::Message(message) = reply.body else {
                    unreachable!("no plugin of this build answers with a body of its own")
                };
                Outcome::Refused(reply.status.as_u16(), message)
            }
        }
    }
}

/// One turn of a plugin's access phase.
pub(crate) fn access(
    plugin: &dyn Plugin,
    config: Value,
    exchange: &mut Exchange,
    identities: &Identities,
) -> Outcome {
    let bench = Bench::new(plugin, config);
    assert!(identities.key(b"alice-key").is_some());
    bench.access(exchange)
}

/// A configuration with its defaults, or all its errors as one text.
pub(crate) fn validate(plugin: &dyn Plugin, config: Value) -> Result<Value, String> {
    schema::validate(&plugin.schema(), config, schema::Mode::Strict).map_err(|errors| {
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    })
}

/// Value of a header that goes upstream.
pub(crate) fn header<'a>(exchange: &'a Exchange, name: &'static str) -> Option<&'a str> {
    let name = http::HeaderName::from_static(name);
    exchange.request.headers.get_str(&name)
}

/// A request as it comes in from 10.0.0.1 at the epoch.
pub(crate) fn exchange(request: Builder) -> Exchange {
    let (request, ()) = request
        .body(())
        .expect("the test's request is valid")
        .into_parts();
    Exchange {
        request: Request {
            method: request.method,
            uri: request.uri,
            version: request.version,
            headers: Fields::from(&request.headers),
        },
        body: RequestBody::Coming(Some(0)),
        client_ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        now_ms: 0,
        route: None,
        service: None,
        consumer: None,
        credential: None,
        state: http::Extensions::new(),
        response_headers: Fields::new(),
    }
}

/// Consumers `alice` (key `alice-key`) and `guest` (no key).
pub(crate) fn identities() -> Identities {
    let (alice, guest) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    let table = json!({
        "consumers": [{"id": alice, "username": "alice"}, {"id": guest, "username": "guest"}],
        "keyauth_credentials": [
            {"id": uuid::Uuid::from_u128(3), "key": "alice-key", "consumer": alice}
        ],
    });
    Identities::new(&serde_json::from_value::<ConfigTable>(table).expect("the table is valid"))
}
