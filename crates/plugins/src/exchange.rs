//! What a plugin sees of one request and its response, and what it may say about it.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use uuid::Uuid;

use crate::arrival::Arriving;
use crate::fields::Fields;
use crate::finished::Finished;
use crate::identities::{Consumer, Identities};
use crate::metrics::Metrics;
use crate::node::Node;

/// `Content-Type` of the gateway's own JSON.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A request head.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The target as the client sent it.
    pub uri: Uri,
    /// The version the client spoke.
    pub version: Version,
    /// The header lines.
    pub headers: Fields,
}

/// One request on its way through the phases, and what is known about it so far.
pub struct Exchange {
    /// The head as it will be sent upstream; plugins edit it in place.
    pub request: Request,
    /// Its body.
    pub body: RequestBody,
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
    /// What the regular expression of the route's path caught.
    pub uri_captures: Captures,
    /// Sent upstream in the place of the path that route and service say; begins with `/`.
    pub upstream_path: Option<String>,
    /// Sent upstream as `Host` in the place of what route and service say.
    pub upstream_host: Option<HeaderValue>,
    /// What plugins remember from one phase to the next, each under a type of its own.
    pub state: Extensions,
    /// Headers set on whatever response the client gets, replacing equal names.
    pub response_headers: Fields,
}

/// What a regular expression caught.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// By place: the whole match at 0, then each group; `None` for a group that took no part.
    pub indexed: Vec<Option<String>>,
    /// Groups by name.
    pub named: Vec<(String, String)>,
}

impl Captures {
    /// The group with this name.
    pub fn named(&self, name: &str) -> Option<&str> {
        let found = self.named.iter().find(|(known, _)| known == name);
        found.map(|(_, text)| text.as_str())
    }

    /// The group at this place, the whole match at 0.
    pub fn indexed(&self, index: usize) -> Option<&str> {
        self.indexed.get(index)?.as_deref()
    }
}

/// How much of a request body is known.
#[derive(Clone, Debug)]
pub enum RequestBody {
    /// It goes upstream as it comes from the client; its length in bytes, if the client said one.
    Coming(Option<u64>),
    /// It was [read](Flow::ReadBody); these bytes go upstream, and a plugin may replace them.
    Here(Bytes),
    /// A plugin wanted to read it, but it is larger than the plugin takes. It goes upstream
    /// nevertheless.
    TooLarge,
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
    /// What outlives configurations: counters, stored responses, ways out.
    pub node: &'a Arc<Node>,
    /// What this node counts for Prometheus, which outlives configurations.
    pub metrics: &'a Metrics,
    /// How the request came; `None` for a stream, and in the log phase.
    pub arriving: Option<&'a dyn Arriving>,
}

/// What happens after a plugin's turn in the access phase.
pub enum Flow {
    /// The next plugin runs.
    Continue,
    /// The client gets this; no further access handler runs, later phases do.
    Respond(Reply),
    /// The request rests until the future is done, then goes on with what it yields.
    Wait(Pin<Box<dyn Future<Output = Resume>>>),
    /// The request body is read to its end, unless it has more than these bytes, and the request
    /// goes on with [`Exchange::body`] filled.
    ReadBody(u64, Resume),
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

    /// `{"message": …}` whatever the client accepts. Source: Kong's `kong.response.exit`.
    pub fn message(status: StatusCode, message: &str) -> Reply {
        let body = serde_json::json!({ "message": message }).to_string();
        Reply::json(status, body)
    }

    /// This JSON text.
    pub fn json(status: StatusCode, text: String) -> Reply {
        Reply::exact(status, JSON, text)
    }

    /// These bytes as they are.
    pub fn exact(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: ReplyBody::Exact {
                content_type,
                bytes: body.into(),
            },
        }
    }

    /// No body.
    pub fn empty(status: StatusCode) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: ReplyBody::Empty,
        }
    }

    /// What a client sees of a plugin that failed.
    pub fn failure() -> Reply {
        Reply::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An unexpected error occurred",
        )
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
    pub headers: &'a mut Fields,
}

/// What a plugin does with the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyUse {
    /// Nothing.
    Pass,
    /// The whole body is read before the head is sent, and the plugin says what takes its place.
    /// One with more than these bytes passes as it is.
    Replace(u64),
    /// The client gets none, and what comes of it is not read.
    Drop,
    /// The body passes, and the plugin gets a copy once all of it came, before the last part goes
    /// to the client, if it has no more than these bytes.
    Copy(u64),
}

/// A plugin with one configuration, ready to run. One method a phase; what a plugin does not
/// take part in costs nothing.
pub trait Handler: Send + Sync {
    /// Before the request is sent upstream.
    fn access(&self, _exchange: &mut Exchange, _env: &Env<'_>) -> Flow {
        Flow::Continue
    }

    /// Whether it reads [`Exchange::uri_captures`], which nobody fills otherwise.
    fn reads_captures(&self) -> bool {
        false
    }

    /// Whether it asks for the entities of an [`Arrival`](crate::Arrival), which nobody keeps otherwise.
    fn reads_entities(&self) -> bool {
        false
    }

    /// Whether [`header_filter`](Handler::header_filter) does anything. Headers that no plugin
    /// looks at are passed on without being indexed.
    fn filters_headers(&self) -> bool {
        false
    }

    /// Before the response head is sent to the client, whoever made the response; only called if
    /// [`filters_headers`](Handler::filters_headers).
    fn header_filter(&self, _exchange: &mut Exchange, _response: &mut ResponseHead<'_>) {}

    /// Whether any method below this one does anything.
    fn filters_bodies(&self) -> bool {
        false
    }

    /// What the plugin does with the body of this response, once all header filters ran; only
    /// called if [`filters_bodies`](Handler::filters_bodies).
    fn body_use(&self, _exchange: &Exchange, _response: &ResponseHead<'_>) -> BodyUse {
        BodyUse::Pass
    }

    /// Puts another body in the place of a response's, as [`BodyUse::Replace`] announced. What
    /// frames it is the gateway's to say.
    fn replace_body(
        &self,
        _exchange: &mut Exchange,
        _response: &mut ResponseHead<'_>,
        body: Bytes,
    ) -> Bytes {
        body
    }

    /// The body that the client gets, as [`BodyUse::Copy`] announced.
    fn body_copied(&self, _exchange: &mut Exchange, _body: Bytes) {}

    /// Whether it wants to know where the time of a request went in detail, which nobody measures
    /// otherwise.
    fn traces(&self) -> bool {
        false
    }

    /// Whether [`log`](Handler::log) does anything. Requests that nobody logs are not measured.
    fn logs(&self) -> bool {
        false
    }

    /// Once the request is over: exactly once for each that this handler was chosen for, whether
    /// it was answered, refused, broke off, or its client went away. Runs on the core that served
    /// it and must not block; only called if [`logs`](Handler::logs).
    fn log(&self, _exchange: &mut Exchange, _finished: &Finished<'_>, _env: &Env<'_>) {}
}
