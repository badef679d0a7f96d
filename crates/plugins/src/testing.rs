//! What the plugins' own tests share: requests, callers, one turn of the access phase.

pub(crate) mod keys;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::StatusCode;
use http::request::Builder;
use sallyport_model::basic_auth::hash_password;
use sallyport_model::entities::ConfigTable;
use sallyport_model::schema;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::Plugin;
use crate::arrival::{Arrival, Arriving};
use crate::auth::admit;
use crate::exchange::{
    Captures, Credential, Env, Exchange, Flow, Handler, ReplyBody, Request, RequestBody,
    ResponseHead,
};
use crate::fields::Fields;
use crate::finished::{Entity, Finished, Latencies, ResponseSource};
use crate::identities::{Identities, Owner, uuid_value};
use crate::log_queue::{LogQueue, LogQueues, QueueSpec};
use crate::metrics::Metrics;
use crate::node::Node;

/// Every request of the tests comes to 192.0.2.1:8000, as the third of its connection.
pub(crate) struct Nearby;

impl Arriving for Nearby {
    fn arrival(&self, exchange: &Exchange) -> Arrival<'_> {
        Arrival {
            tls: false,
            host: "api.example".to_owned(),
            path: exchange.request.uri.path().to_owned(),
            address: ([192, 0, 2, 1], 8000).into(),
            connection: 7,
            nth: 3,
            route: None,
            service: None,
        }
    }
}

/// What a plugin did in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Continued,
    Refused(u16, String),
}

/// What a plugin did, with all of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Continued,
    Answered {
        status: u16,
        /// The message or the body.
        body: String,
        headers: Vec<(String, String)>,
    },
}

impl Seen {
    /// An answer with this message and no further headers.
    pub(crate) fn refused(status: u16, message: &str) -> Seen {
        Seen::answered(status, message)
    }

    /// An answer with this body and no further headers.
    pub(crate) fn answered(status: u16, body: &str) -> Seen {
        Seen::Answered {
            status,
            body: body.to_owned(),
            headers: Vec::new(),
        }
    }

    /// The same answer with this header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Seen {
        if let Seen::Answered { headers, .. } = &mut self {
            headers.retain(|(other, _)| other != name);
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

/// The plugin under one configuration, with the callers of [`identities`].
pub(crate) struct Bench {
    handler: Box<dyn Handler>,
    identities: Identities,
    node: Arc<Node>,
    metrics: Metrics,
    body: Vec<u8>,
}

impl Bench {
    pub(crate) fn new(plugin: &dyn Plugin, config: Value) -> Bench {
        let config = validate(plugin, config).expect("the test's configuration is valid");
        Bench {
            handler: plugin
                .compile(&config)
                .expect("a valid configuration compiles"),
            identities: identities(),
            node: Arc::default(),
            metrics: Metrics::default(),
            body: Vec::new(),
        }
    }

    /// The same with a body for those that read it.
    pub(crate) fn with_body(mut self, body: &[u8]) -> Bench {
        self.body = body.to_vec();
        self
    }

    /// The same after all consumers were deleted.
    pub(crate) fn without_consumers(mut self) -> Bench {
        self.identities = Identities::default();
        self
    }

    /// The access phase, with all that may come after a wait for the body.
    pub(crate) fn seen(&self, exchange: &mut Exchange) -> Seen {
        let env = Env {
            identities: &self.identities,
            node: &self.node,
            metrics: &self.metrics,
            arriving: Some(&Nearby),
        };
        let mut flow = self.handler.access(exchange, &env);
        loop {
            match flow {
                Flow::Continue => return Seen::Continued,
                Flow::Wait(_) => unreachable!("the plugin does not wait"),
                Flow::ReadBody(bytes_max, then) => {
                    exchange.body = match self.body.len() as u64 <= bytes_max {
                        true => RequestBody::Here(self.body.clone().into()),
                        false => RequestBody::TooLarge,
                    };
                    flow = then(exchange, &env);
                }
                Flow::Respond(reply) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let body = match reply.body {
                        ReplyBody::Message(message) => message,
                        ReplyBody::Exact { bytes, .. } => text(&bytes),
                        ReplyBody::Empty => String::new(),
                    };
                    let headers = reply.headers.iter();
                    return Seen::Answered {
                        status: reply.status.as_u16(),
                        body,
                        headers: headers
                            .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
                            .collect(),
                    };
                }
            }
        }
    }

    /// Another plugin has recognised this consumer.
    pub(crate) fn known_as(&self, exchange: &mut Exchange, username: &str) {
        let consumer = self.identities.consumer(username);
        let id = uuid::Uuid::from_u128(100);
        let owner = Owner {
            consumer: consumer.expect("one of the test's").clone(),
            credential: Credential {
                id,
                identifier: uuid_value(id),
            },
        };
        admit(exchange, &owner);
    }

    /// Another plugin goes on as this anonymous consumer.
    pub(crate) fn anonymous_as(&self, exchange: &mut Exchange, username: &str) {
        let consumer = self.identities.consumer(username);
        exchange.consumer = Some(consumer.expect("one of the test's").clone());
        exchange.credential = None;
    }

    /// The header filter phase.
    pub(crate) fn filter(&self, exchange: &mut Exchange, status: u16, headers: &mut Fields) {
        assert!(self.handler.filters_headers());
        let mut status = StatusCode::from_u16(status).expect("a status");
        let mut response = ResponseHead {
            status: &mut status,
            headers,
        };
        self.handler.header_filter(exchange, &mut response);
    }

    pub(crate) fn access(&self, exchange: &mut Exchange) -> Outcome {
        let env = Env {
            identities: &self.identities,
            node: &self.node,
            metrics: &self.metrics,
            arriving: Some(&Nearby),
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
    assert!(identities.key(b"alice-key", 0).is_some());
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
        uri_captures: Captures::default(),
        upstream_path: None,
        upstream_host: None,
        state: http::Extensions::new(),
        response_headers: Fields::new(),
    }
}

/// Consumers `alice` (in groups `staff` and `admins`), `bob`, `team` (in `staff`) and `guest`, with
/// credentials of every kind; `guest` has none.
pub(crate) fn identities() -> Identities {
    let id = uuid::Uuid::from_u128;
    let [alice, guest, bob, team] = [id(1), id(2), id(4), id(5)];
    let consumer = |id, username| json!({"id": id, "username": username});
    let mut next = 1000;
    let mut own = |consumer: uuid::Uuid, mut credential: Value| {
        next += 1;
        credential["id"] = json!(id(next));
        credential["consumer"] = json!(consumer);
        credential
    };
    let password = |consumer, password| hash_password(consumer, password);
    let mut jwt_secrets = vec![
        own(
            alice,
            json!({"key": "alice", "algorithm": "HS256", "secret": "alice-secret"}),
        ),
        own(alice, json!({"key": "no-secret", "algorithm": "HS256"})),
        own(
            alice,
            json!({"key": "base64", "algorithm": "HS256", "secret": "//79/A=="}),
        ),
        own(
            alice,
            json!({"key": "both", "algorithm": "RS256", "secret": "beside",
                "rsa_public_key": keys::public_pem(keys::RSA)}),
        ),
        own(
            alice,
            json!({"key": "rsa-as-es", "algorithm": "ES256",
                "rsa_public_key": keys::public_pem(keys::RSA)}),
        ),
    ];
    for (algorithm, key) in [
        ("HS256", None),
        ("HS384", None),
        ("HS512", None),
        ("RS256", Some(keys::public_pem(keys::RSA))),
        ("RS384", Some(keys::public_pem(keys::RSA))),
        ("RS512", Some(keys::public_pem(keys::RSA))),
        ("PS256", Some(keys::public_pem(keys::RSA))),
        ("PS384", Some(keys::public_pem(keys::RSA))),
        ("PS512", Some(keys::public_pem(keys::RSA))),
        ("ES256", Some(keys::public_pem(keys::P256))),
        ("ES384", Some(keys::public_pem(keys::P384))),
        ("ES512", Some(keys::P521_PUBLIC)),
        ("EdDSA", Some(keys::public_pem(keys::ED25519))),
    ] {
        jwt_secrets.push(own(
            alice,
            json!({"key": format!("alice-{algorithm}"), "algorithm": algorithm,
                "secret": "alice-secret", "rsa_public_key": key}),
        ));
    }
    let table = json!({
        "consumers": [
            consumer(alice, "alice"), consumer(guest, "guest"), consumer(bob, "bob"),
            consumer(team, "team"),
        ],
        "keyauth_credentials": [
            {"id": id(3), "key": "alice-key", "consumer": alice},
            {"id": id(8), "key": "brief-key", "consumer": alice, "ttl": 60, "created_at": 100},
        ],
        "basicauth_credentials": [
            own(alice, json!({"username": "alice", "password": password(alice, "open sesame")})),
            own(bob, json!({"username": "bob", "password": password(bob, "a:b:c")})),
            own(bob, json!({"username": "mallory", "password": "anything"})),
        ],
        "hmacauth_credentials": [
            own(alice, json!({"username": "alice", "secret": "alice-secret"})),
            own(bob, json!({"username": "bob", "secret": "bob-secret"})),
        ],
        "jwt_secrets": jwt_secrets,
        "acls": [
            own(alice, json!({"group": "staff"})),
            own(alice, json!({"group": "admins"})),
            own(team, json!({"group": "staff"})),
        ],
    });
    let table = serde_json::from_value::<ConfigTable>(table).expect("the table is valid");
    Identities::new(&table, 0)
}

/// What became of [`logged`].
pub(crate) struct Logged {
    /// Whether the handler wanted to know.
    pub(crate) logs: bool,
}

/// Logs one request of `alice` to the service `orders` by a route without a name, after `change`.
#[track_caller]
pub(crate) fn logged(
    plugin: &dyn Plugin,
    config: Value,
    change: impl FnOnce(&mut Finished<'_>),
) -> Logged {
    logged_with(plugin, config, &Metrics::default(), change)
}

/// The same, counted there.
#[track_caller]
pub(crate) fn logged_with(
    plugin: &dyn Plugin,
    config: Value,
    metrics: &Metrics,
    change: impl FnOnce(&mut Finished<'_>),
) -> Logged {
    logged_at(plugin, config, metrics, &Arc::default(), change)
}

/// The same, on this node.
#[track_caller]
pub(crate) fn logged_at(
    plugin: &dyn Plugin,
    config: Value,
    metrics: &Metrics,
    node: &Arc<Node>,
    change: impl FnOnce(&mut Finished<'_>),
) -> Logged {
    let config = validate(plugin, config).expect("the test's configuration is valid");
    let handler = plugin.compile(&config).expect("it compiles");
    let raw = |value: Value| RawValue::from_string(value.to_string()).expect("it is JSON");
    let route = raw(json!({"id": uuid::Uuid::from_u128(7), "paths": ["/v1"]}));
    let service =
        raw(json!({"id": uuid::Uuid::from_u128(8), "name": "orders", "host": "orders.example"}));
    let consumer = raw(json!({"id": uuid::Uuid::from_u128(1), "username": "alice"}));
    let entity = |name, json| Some(Entity { name, json });
    let mut exchange = exchange(http::Request::get("/v1/orders").header("Host", "api.example"));
    let uri = exchange.request.uri.clone();
    let mut finished = Finished {
        request_id: "0123",
        method: &http::Method::GET,
        uri: &uri,
        host: "api.example",
        port: 8000,
        tls: None,
        request_bytes: 90,
        status: StatusCode::OK,
        response_headers: &Fields::new(),
        response_bytes: 120,
        source: ResponseSource::Upstream,
        latencies: Latencies {
            kong: 1,
            proxy: 7,
            request: 9,
            receive: 1,
        },
        upstream_uri: "/orders",
        tries: &[],
        route: entity(None, &route),
        service: entity(Some("orders"), &service),
        consumer: entity(Some("alice"), &consumer),
        peer: ([10, 0, 0, 2].into(), Some(40_000)),
        started_ns: 1_000_000_000,
        ended_ns: 1_009_000_000,
        parts: &[],
        stream: None,
    };
    change(&mut finished);
    let logs = handler.logs();
    if logs {
        let identities = Identities::default();
        let env = Env {
            identities: &identities,
            node,
            metrics,
            arriving: None,
        };
        handler.log(&mut exchange, &finished, &env);
    }
    Logged { logs }
}

/// What a log plugin queued for one request; see [`queued`].
pub(crate) struct Queued {
    spec: Option<QueueSpec>,
    entries: Vec<Bytes>,
}

impl Queued {
    /// Nothing yet.
    pub(crate) fn empty() -> Queued {
        Queued {
            spec: None,
            entries: Vec::new(),
        }
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }

    fn spec(&self) -> &QueueSpec {
        self.spec.as_ref().expect("a queue was opened")
    }

    /// The sink, as logs show it.
    pub(crate) fn sink(&self) -> String {
        format!("{:?}", self.spec().destination)
    }

    /// The queue's name.
    pub(crate) fn name(&self) -> String {
        self.spec().name.clone()
    }

    /// What goes out for as many requests of the kind in one batch; nothing if nothing was queued.
    pub(crate) fn bytes(&self, requests: usize) -> Vec<Bytes> {
        let Some(spec) = &self.spec else {
            return Vec::new();
        };
        let batch: Vec<Bytes> = (0..requests).flat_map(|_| self.entries.clone()).collect();
        (spec.destination.encode)(&batch)
    }

    /// The same as texts.
    #[track_caller]
    pub(crate) fn payloads(&self, requests: usize) -> Vec<String> {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("it is text");
        self.bytes(requests).into_iter().map(text).collect()
    }
}

/// Logs one request, as [`logged`] does, and keeps what is queued.
#[track_caller]
pub(crate) fn queued(
    plugin: &dyn Plugin,
    config: Value,
    change: impl FnOnce(&mut Finished<'_>),
) -> Queued {
    let kept = Arc::new(Mutex::new(Queued::empty()));
    let node = Node {
        log_queues: Box::new(Keeping(kept.clone())),
        ..Node::default()
    };
    logged_at(plugin, config, &Metrics::default(), &Arc::new(node), change);
    let mut kept = kept.lock().unwrap();
    Queued {
        spec: kept.spec.take(),
        entries: std::mem::take(&mut kept.entries),
    }
}

/// Keeps what is queued.
#[derive(Clone)]
pub(crate) struct Keeping(pub(crate) Arc<Mutex<Queued>>);

impl LogQueues for Keeping {
    fn open(&self, spec: &QueueSpec) -> Arc<dyn LogQueue> {
        self.0.lock().unwrap().spec = Some(spec.clone());
        Arc::new(self.clone())
    }
}

impl LogQueue for Keeping {
    fn push(&self, entry: Bytes) {
        self.0.lock().unwrap().entries.push(entry);
    }
}
