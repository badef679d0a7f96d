//! What a plugin sees of one request and its response, and what it may say about it.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use uuid::Uuid;

use crate::identities::{Consumer, Identities};
use crate::rate_limiting::Counters;

/// One request on its way through the phases, and what is known about it so far.
pub struct Exchange {
    /// The head as it will be sent upstream; plugins edit it in place.
    pub request: Parts,
    /// The client, after `real_ip_header` rules.
    pub client_ip: IpAddr,
    /// When the request arrived, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The route that matched.
    pub route: Option<Uuid>,
    /// The service of that route.
    pub service: Option<Uuid>,
    /// Who calls, once an authentication plugin knows.
    pub consumer: Option<Arc<Consumer>>,
    /// What the caller proved itself with; `None` for an anonymous consumer.
    pub credential: Option<Credential>,
    /// Headers set on whatever response the client gets, replacing equal names.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
}

/// The credential that a caller was recognised by.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The entity.
    pub id: Uuid,
    /// Value of `X-Credential-Identifier`.
    pub identifier: HeaderValue,
}

/// What plugins may look up besides the request itself.
pub struct Env<'a> {
    /// Consumers and credentials of the configuration in force.
    pub identities: &'a Identities,
    /// Counters of this node, which outlive configurations.
    pub counters: &'a Counters,
}

/// What happens after a plugin's turn in the access phase.
pub enum Flow {
    /// The next plugin runs.
    Continue,
    /// The client gets this; no further access handler runs, later phases do.
    Respond(Reply),
    /// The request rests until the future is done, then goes on with what it yields.
    Wait(Pin<Box<dyn Future<Output = Resume>>>),
}

/// How a resting request goes on.
pub type Resume = Box<dyn FnOnce(&mut Exchange, &Env<'_>) -> Flow>;

/// A response made by the gateway itself.
#[derive(Debug)]
pub struct Reply {
    /// Status to answer with.
    pub status: StatusCode,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What it says.
    pub body: ReplyBody,
}

/// The body of a [`Reply`].
#[derive(Debug)]
pub enum ReplyBody {
    /// A message that is rendered in the form the client accepts, with the request id.
    Message(String),
    /// These bytes as they are.
    Exact {
        /// Value of `Content-Type`.
        content_type: HeaderValue,
        /// The body.
        bytes: Bytes,
    },
    /// Nothing.
    Empty,
}

impl Reply {
    /// A message that is rendered in the form the client accepts.
    pub fn error(status: StatusCode, message: impl Into<String>) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: ReplyBody::Message(message.into()),
        }
    }

    /// The same reply with one more header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Reply {
        self.headers.push((name, value));
        self
    }
}

/// The head of a response on its way to the client.
pub struct ResponseHead<'a> {
    /// Its status.
    pub status: &'a mut StatusCode,
    /// Its headers.
    pub headers: &'a mut HeaderMap,
}

/// A plugin with one configuration, ready to run. One method a phase; what a plugin does not
/// take part in costs nothing.
pub trait Handler: Send + Sync {
    /// Before the request is sent upstream.
    fn access(&self, _exchange: &mut Exchange, _env: &Env<'_>) -> Flow {
        Flow::Continue
    }

    /// Whether [`header_filter`](Handler::header_filter) does anything. Headers that no plugin
    /// looks at are passed on without being indexed.
    fn filters_headers(&self) -> bool {
        false
    }

    /// Before the response head is sent to the client, whoever made the response; only called if
    /// [`filters_headers`](Handler::filters_headers).
    fn header_filter(&self, _exchange: &mut Exchange, _response: &mut ResponseHead<'_>) {}
}
