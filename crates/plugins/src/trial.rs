//! One request through the phases of one plugin, for the plugins' own tests.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::request::Builder;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use crate::Plugin;
use crate::exchange::{
    BodyUse, Env, Exchange, Flow, Handler, Reply, ReplyBody, RequestBody, ResponseHead,
};
use crate::fields::Fields;
use crate::identities::Identities;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::testing::{Nearby, exchange, identities, validate};

/// A plugin under one configuration.
pub(crate) struct Trial {
    handler: Box<dyn Handler>,
    identities: Identities,
    pub(crate) node: Arc<Node>,
}

/// A response as the client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    /// `name: value`, in order.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Seen {
    /// Value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            (found == name).then_some(value)
        })
    }
}

impl Trial {
    #[track_caller]
    pub(crate) fn new(plugin: &dyn Plugin, config: Value) -> Trial {
        Trial::at(plugin, config, Arc::default())
    }

    #[track_caller]
    pub(crate) fn at(plugin: &dyn Plugin, config: Value, node: Arc<Node>) -> Trial {
        let config = validate(plugin, config).expect("the test's configuration is valid");
        Trial {
            handler: plugin
                .compile(&config)
                .expect("a valid configuration compiles"),
            identities: identities(),
            node,
        }
    }

    /// The access phase of a request with this body; the answer, if the plugin gave one.
    pub(crate) fn access(&self, exchange: &mut Exchange, body: &[u8]) -> Option<Reply> {
        let env = Env {
            identities: &self.identities,
            node: &self.node,
            metrics: &Metrics::default(),
            arriving: Some(&Nearby),
        };
        let mut flow = self.handler.access(exchange, &env);
        loop {
            match flow {
                Flow::Continue => return None,
                Flow::Respond(reply) => return Some(reply),
                Flow::Wait(mut future) => {
                    let mut cx = Context::from_waker(Waker::noop());
                    let resume = loop {
                        if let Poll::Ready(resume) = future.as_mut().poll(&mut cx) {
                            break resume;
                        }
                    };
                    flow = resume(exchange, &env);
                }
                Flow::ReadBody(bytes_max, resume) => {
                    if !matches!(exchange.body, RequestBody::Here(_)) {
                        exchange.body = match body.len() as u64 > bytes_max {
                            true => RequestBody::TooLarge,
                            false => RequestBody::Here(Bytes::copy_from_slice(body)),
                        };
                    }
                    flow = resume(exchange, &env);
                }
            }
        }
    }

    /// The phases after access, on the response of an upstream.
    pub(crate) fn response(
        &self,
        exchange: &mut Exchange,
        status: u16,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Seen {
        let mut fields = Fields::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            fields.append(&name, &HeaderValue::from_str(value).unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        self.later_phases(
            exchange,
            status,
            fields,
            Bytes::copy_from_slice(body.as_bytes()),
        )
    }

    /// A request and what the client gets for it; without an answer of the plugin, the upstream
    /// answers 200 with an empty body.
    pub(crate) fn ask(&self, exchange: &mut Exchange, body: &[u8]) -> Seen {
        match self.access(exchange, body) {
            None => self.response(exchange, 200, &[], ""),
            Some(reply) => self.later(exchange, reply),
        }
    }

    /// The phases after access, on an answer of the gateway.
    pub(crate) fn later(&self, exchange: &mut Exchange, reply: Reply) -> Seen {
        let lines = reply.headers.iter();
        let mut fields: Fields = lines.map(|(name, value)| (name, value)).collect();
        let body = match reply.body {
            ReplyBody::Empty => Bytes::new(),
            ReplyBody::Message(message) => message.into(),
            ReplyBody::Exact {
                content_type,
                bytes,
            } => {
                fields.set(&http::header::CONTENT_TYPE, &content_type);
                bytes
            }
        };
        self.later_phases(exchange, reply.status, fields, body)
    }

    fn later_phases(
        &self,
        exchange: &mut Exchange,
        mut status: StatusCode,
        mut headers: Fields,
        mut body: Bytes,
    ) -> Seen {
        headers.set_all(&exchange.response_headers);
        let mut head = ResponseHead {
            status: &mut status,
            headers: &mut headers,
        };
        if self.handler.filters_headers() {
            self.handler.header_filter(exchange, &mut head);
        }
        if self.handler.filters_bodies() {
            let bytes = body.len() as u64;
            match self.handler.body_use(exchange, &head) {
                BodyUse::Replace(max) if bytes <= max => {
                    body = self.handler.replace_body(exchange, &mut head, body);
                }
                BodyUse::Copy(max) if bytes <= max => {
                    self.handler.body_copied(exchange, body.clone());
                }
                BodyUse::Drop => body = Bytes::new(),
                _ => {}
            }
        }
        Seen {
            status: status.as_u16(),
            headers: lines(&headers),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }
}

/// Header lines as `name: value`.
pub(crate) fn lines(fields: &Fields) -> Vec<String> {
    fields
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
        .collect()
}

/// A GET of `uri` from 10.0.0.1 at the epoch.
pub(crate) fn get(uri: &str) -> Exchange {
    exchange(Builder::new().uri(uri))
}

/// A POST with this type of content.
pub(crate) fn post(uri: &str, content_type: &str) -> Exchange {
    let request = Builder::new().method("POST").uri(uri);
    exchange(request.header("content-type", content_type))
}

/// All problems of a configuration as one text; empty if there is none.
pub(crate) fn problems(plugin: &dyn Plugin, config: Value) -> String {
    validate(plugin, config).err().unwrap_or_default()
}
