//! One request, from its head to the head of its response.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, DATE, HOST, LOCATION, SERVER, UPGRADE};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{Extensions, HeaderValue, Method, StatusCode, Version};
use sallyport_model::Kind;
use sallyport_plugins::{
    Arrival, Arriving, Captures, Env, Exchange, Fields, Flow, PartOf, Reply, ReplyBody, Request,
    RequestBody, ResponseHead,
};
use tokio::time::Instant;
use tracing::error;

use super::body::{BodySource, HeldBody};
use super::calls::Call;
use super::clock::now;
use super::flight::Flight;
use super::forward::Sent;
use super::grpc;
use super::headers::{self, Client};
use super::http1::framing::Length;
use super::later::{Broken, Later, filter_body};
use super::options::Options;
use super::reply::{render, upstream_failure};
use super::tally::Tally;
use super::upstream::Upstream;
use super::worker::Worker;
use crate::chain::{Caller, Chain};
use crate::conf::ErrorType;
use crate::configuration::{Configuration, ServedRoute};
use crate::router::{self, Query};

/// A response, whoever made it.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Without what frames the body, except the length of a proxied one.
    pub(crate) headers: Fields,
    pub(crate) body: AnswerBody,
    /// What plugins do with the body on its way.
    pub(crate) later: Option<Box<Later>>,
}

/// The body of an [`Answer`].
pub(crate) enum AnswerBody {
    /// Made by the gateway.
    Full(Bytes),
    /// To be read from the upstream.
    Upstream(Box<Upstream>, Length),
    /// To be read from the upstream, over HTTP/2.
    Call(Box<Call>, Length),
    /// None: both sides go on as WebSocket.
    Tunnel(Box<Upstream>),
}

/// A response that the gateway makes, and the form it takes for a client that accepts any.
pub(super) struct Refusal {
    reply: Reply,
    default: ErrorType,
}

impl Refusal {
    /// By a plugin or by routing.
    pub(super) fn own(reply: Reply) -> Refusal {
        Refusal {
            reply,
            default: ErrorType::Json,
        }
    }

    /// Because an upstream or the client's body failed.
    pub(super) fn failure(status: StatusCode, options: &Options) -> Refusal {
        Refusal {
            reply: Reply::error(status, upstream_failure(status)),
            default: options.error_type,
        }
    }
}

/// Handlers that were chosen for a request, whose later phases run too.
type Chosen = Vec<u32>;

/// Answers one request; a failure is an answer too.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    client: &Client,
    head: Request,
    body: &mut dyn BodySource,
) -> Answer {
    let arrived = now();
    client.requests.set(client.requests.get() + 1);
    let length = match body.length() {
        Length::Exact(bytes) => Some(bytes),
        Length::Chunked | Length::UntilClose => None,
    };
    let exchange = exchange(worker, client, head, length, arrived);
    let mut flight = Flight::new(worker, client, exchange, arrived);
    let turn = Turn {
        worker,
        client,
        configuration: &flight.configuration,
        arrived,
        request_id: &flight.request_id,
        tally: &flight.tally,
    };
    let (exchange, chosen) = (&mut flight.exchange, &mut flight.chosen);
    let (mut answer, proxied) = match turn.run(exchange, body, chosen).await {
        Ok(answer) => (answer, true),
        Err(refusal) => {
            let request = &exchange.request;
            let id = flight.request_id.to_str().unwrap_or_default();
            let answer = match grpc::is_call(request) {
                true => grpc::render(refusal.reply),
                false => render(refusal.reply, &request.headers, refusal.default, id),
            };
            (answer, false)
        }
    };
    finish(&turn, exchange, chosen, &mut answer, proxied);
    flight.answered(answer.status, proxied);
    let handlers = &flight.configuration.handlers;
    let filtered = flight
        .chosen
        .iter()
        .any(|&handler| handlers.get(handler).filters_bodies());
    if (filtered || flight.is_logged())
        && let Err(broken) = filter_body(worker, flight, &mut answer).await
    {
        let Broken { error, mut flight } = broken;
        error!(fault = "upstream", reason = %error, "a response that a plugin waited for broke off");
        flight.answered(StatusCode::BAD_GATEWAY, false);
        answer = refusal(worker, StatusCode::BAD_GATEWAY, &flight.request_id);
        if flight.is_logged() {
            answer.later = Some(Box::new(Later::of(*flight)));
        }
    }
    answer
}

fn exchange(
    worker: &Worker,
    client: &Client,
    head: Request,
    length: Option<u64>,
    arrived: Instant,
) -> Exchange {
    Exchange {
        client_ip: client.address(&worker.options, &head.headers),
        request: head,
        body: RequestBody::Coming(length),
        now_ms: worker.unix_ms(arrived),
        route: None,
        service: None,
        consumer: None,
        credential: None,
        uri_captures: Captures::default(),
        upstream_path: None,
        upstream_host: None,
        state: Extensions::new(),
        response_headers: Fields::new(),
    }
}

/// The answer to what is not even a request; `line` is how it began.
pub(crate) fn refuse_line(
    worker: &Rc<Worker>,
    client: &Client,
    status: StatusCode,
    line: &[u8],
) -> Answer {
    let arrived = now();
    let head = Request {
        method: Method::GET,
        uri: Uri::default(),
        version: Version::HTTP_11,
        headers: Fields::new(),
    };
    let exchange = exchange(worker, client, head, None, arrived);
    let mut flight = Flight::new(worker, client, exchange, arrived);
    flight.is_no_request(line);
    flight.answered(status, false);
    let mut answer = refusal(worker, status, &flight.request_id);
    if flight.is_logged() {
        answer.later = Some(Box::new(Later::of(flight)));
    }
    answer
}

/// An answer that no plugin sees.
fn refusal(worker: &Worker, status: StatusCode, id: &HeaderValue) -> Answer {
    let reply = Reply::error(status, upstream_failure(status));
    let text = id.to_str().unwrap_or_default();
    let mut answer = render(reply, &Fields::new(), worker.options.error_type, text);
    mark_own(&mut answer.headers, worker, id);
    answer
}

/// What the gateway adds to a response that it makes.
fn mark_own(headers: &mut Fields, worker: &Worker, request_id: &HeaderValue) {
    let options = &worker.options;
    if options.shown.server {
        headers.set(&SERVER, &options.server);
    }
    worker.with_date(|date| headers.set(&DATE, date));
    if options.shown.request_id {
        headers.set(&headers::REQUEST_ID, request_id);
    }
}

/// The header-filter phase, and what the gateway adds to every response.
fn finish(
    turn: &Turn<'_>,
    exchange: &mut Exchange,
    chosen: &[u32],
    answer: &mut Answer,
    proxied: bool,
) {
    let options = &turn.worker.options;
    let map = &mut answer.headers;
    if proxied {
        let version = match answer.body {
            AnswerBody::Call(..) => Version::HTTP_2,
            _ => Version::HTTP_11,
        };
        headers::mark_proxied(map, version, options);
        if options.shown.request_id {
            map.set(&headers::REQUEST_ID, turn.request_id);
        }
    } else {
        mark_own(map, turn.worker, turn.request_id);
        if options.shown.response_latency {
            map.set_number(&headers::RESPONSE_LATENCY, millis(turn.arrived.elapsed()));
        }
    }
    map.set_all(&exchange.response_headers);
    let phase = turn.tally.begin();
    for &index in chosen {
        let handler = turn.configuration.handlers.get(index);
        if handler.filters_headers() {
            let mut head = ResponseHead {
                status: &mut answer.status,
                headers: &mut answer.headers,
            };
            let began = turn.tally.begin();
            handler.header_filter(exchange, &mut head);
            if began.is_some() {
                let name = turn.configuration.handlers.name(index);
                turn.tally.end(PartOf::HeaderFilterOf(name), began);
            }
        }
    }
    turn.tally.end(PartOf::HeaderFilter, phase);
}

/// What stays the same while one request is served.
pub(super) struct Turn<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) client: &'a Client,
    pub(super) configuration: &'a Configuration,
    pub(super) arrived: Instant,
    pub(super) request_id: &'a HeaderValue,
    pub(super) tally: &'a Tally,
}

impl Arriving for Turn<'_> {
    fn arrival(&self, exchange: &Exchange) -> Arrival<'_> {
        let request = &exchange.request;
        let entities = &self.configuration.entities;
        Arrival {
            tls: self.client.tls,
            host: request_host(&request.uri, &request.headers).0.into_owned(),
            path: router::normalise(request.uri.path()).into_owned(),
            address: self.client.local,
            connection: self.client.serial,
            nth: self.client.requests.get(),
            route: exchange
                .route
                .and_then(|id| entities.logged(Kind::Route, id)),
            service: exchange
                .service
                .and_then(|id| entities.logged(Kind::Service, id)),
        }
    }
}

impl Turn<'_> {
    async fn run(
        &self,
        exchange: &mut Exchange,
        body: &mut dyn BodySource,
        chosen: &mut Chosen,
    ) -> Result<Answer, Refusal> {
        let options = &self.worker.options;
        if exchange.request.method == Method::CONNECT {
            return Err(Refusal::failure(StatusCode::METHOD_NOT_ALLOWED, options));
        }
        if matches!(body.length(), Length::Exact(bytes) if bytes > options.body_bytes_max) {
            return Err(Refusal::failure(StatusCode::PAYLOAD_TOO_LARGE, options));
        }
        let raw_path = exchange.request.uri.clone();
        // `*`, and escapes that two parties could read in two ways
        if !raw_path.path().starts_with('/') || !router::is_well_escaped(raw_path.path()) {
            return Err(Refusal::failure(StatusCode::BAD_REQUEST, options));
        }
        let path = router::normalise(raw_path.path());
        let found = {
            let (host, host_port) = request_host(&exchange.request.uri, &exchange.request.headers);
            let query = Query {
                method: &exchange.request.method,
                host: &host,
                host_port,
                port: self.client.port,
                path: &path,
                query: exchange.request.uri.query(),
                source: (
                    Some(exchange.client_ip),
                    self.client.source_port(&self.worker.options),
                ),
                local: options.routes_by_address.then(|| self.client.local.ip()),
                headers: &exchange.request.headers,
                sni: self.client.sni.as_deref(),
                tls: self.client.tls,
            };
            let routing = self.tally.begin();
            let reads_captures = self.configuration.handlers.read_captures();
            let found = self.configuration.find(&query).map(|(route, found)| {
                let hashed = route.service.as_ref();
                let needed = reads_captures || hashed.is_some_and(|it| it.peers.needs_captures());
                let captures = needed.then(|| found.captures(&query)).flatten();
                (route, found, captures)
            });
            self.tally.end(PartOf::Router, routing);
            found
        };
        let Some((route, found, captures)) = found else {
            let none = Chain::default();
            let steps = none.with(&self.configuration.global_chain);
            chosen.extend(steps.filter_map(|step| step.pick(None)));
            let message = "no Route matched with those values";
            return Err(Refusal::own(Reply::error(StatusCode::NOT_FOUND, message)));
        };
        self.tally.slot.set(Some(found.slot));
        exchange.route = Some(route.id);
        if let Some(captures) = captures {
            exchange.uri_captures = shown(captures);
        }
        exchange.service = route.service.as_ref().map(|service| service.id);
        if let Some(status) = route.tls_only
            && !self.client.tls
        {
            return Err(Refusal::own(redirect(
                status,
                &exchange.request.uri,
                &exchange.request.headers,
            )));
        }
        if let Some(grpc) = &route.grpc
            && let Some(reply) = grpc::mismatch(&exchange.request, self.client.tls, grpc.tls_only)
        {
            return Err(Refusal::own(reply));
        }
        let mut body = HeldBody::new(body, &self.tally.body_bytes);
        self.access(&route.chain, exchange, &mut body, chosen)
            .await?;
        body.replace(&exchange.body);
        let Some(service) = &route.service else {
            let message = "no Service found with those values";
            return Err(Refusal::own(Reply::error(
                StatusCode::SERVICE_UNAVAILABLE,
                message,
            )));
        };
        let stripped = if route.strip_path { found.matched } else { 0 };
        let exchange: &Exchange = exchange;
        let sent = Sent {
            route,
            service,
            raw_path: raw_path.path(),
            // the path is decoded: a line feed in it would end the header
            prefix: Some(&path[..stripped])
                .filter(|prefix| !prefix.is_empty() && *prefix != "/")
                .map(|prefix| router::escape(prefix.into())),
            target: match &exchange.upstream_path {
                Some(path) => replaced_target(path, exchange.request.uri.query()),
                None => target(&exchange.request.uri, &path, &service.path, stripped, route),
            },
        };
        self.proxy(exchange, &mut body, &sent).await
    }

    /// The access phase: every plugin in turn, until one answers.
    async fn access(
        &self,
        chain: &Chain,
        exchange: &mut Exchange,
        body: &mut HeldBody<'_>,
        chosen: &mut Chosen,
    ) -> Result<(), Refusal> {
        let options = &self.worker.options;
        let env = Env {
            identities: &self.configuration.identities,
            node: &self.worker.node,
            metrics: &self.worker.metrics,
            arriving: Some(self),
        };
        let mut answer = None;
        let phase = self.tally.begin();
        for step in chain.with(&self.configuration.global_chain) {
            let Some(index) = step.pick(Caller::of(&exchange.consumer)) else {
                continue;
            };
            chosen.push(index);
            if answer.is_some() {
                continue; // only its later phases still run
            }
            let turn = self.tally.begin();
            let mut flow = self
                .configuration
                .handlers
                .get(index)
                .access(exchange, &env);
            loop {
                match flow {
                    Flow::Continue => break,
                    Flow::Respond(reply) => {
                        answer = Some(reply);
                        break;
                    }
                    Flow::Wait(future) => flow = future.await(exchange, &env),
                    Flow::ReadBody(bytes_max, then) => {
                        body.hold(exchange, bytes_max, options).await?;
                        flow = then(exchange, &env);
                    }
                }
            }
            if turn.is_some() {
                let name = self.configuration.handlers.name(index);
                self.tally.end(PartOf::AccessOf(name), turn);
            }
        }
        self.tally.end(PartOf::Access, phase);
        answer.map_or(Ok(()), |reply| Err(Refusal::own(reply)))
    }
}

/// What a route captured, as plugins see it.
fn shown(captures: router::Captures) -> Captures {
    let mut indexed = Vec::new();
    for (number, text) in captures.numbered {
        indexed.resize(number, None);
        indexed.push(Some(text));
    }
    Captures {
        indexed,
        named: captures.named.into_iter().collect(),
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    span.as_millis() as u64
}

/// The host a request is for: lower case, without port, without the dot of the root, as nginx
/// reads it; and the port behind it. Whatever follows the colon: a route must not be missed for
/// a port that is none.
pub(super) fn request_host<'a>(uri: &'a Uri, headers: &'a Fields) -> (Cow<'a, str>, Option<u16>) {
    let header = || headers.get_str(&HOST);
    let authority = uri.authority().map(Authority::as_str);
    let authority = authority.map(|text| text.rsplit_once('@').map_or(text, |(_, host)| host));
    let host = authority.or_else(header).unwrap_or_default();
    // one look at each byte: this is done for every request
    let mut upper = false;
    let mut bracket = host.starts_with('[');
    let end = host.bytes().position(|byte| {
        upper |= byte.is_ascii_uppercase();
        if bracket {
            bracket = byte != b']';
            return false;
        }
        byte == b':'
    });
    let (host, port) = host.split_at(end.unwrap_or(host.len()));
    let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
    let host = host.strip_suffix('.').unwrap_or(host);
    match upper {
        true => (host.to_ascii_lowercase().into(), port),
        false => (host.into(), port),
    }
}

/// The request target to send: the upstream path with the client's query as it is.
fn target<'a>(
    uri: &'a Uri,
    path: &str,
    base: &str,
    matched: usize,
    route: &ServedRoute,
) -> Cow<'a, str> {
    if let Some(whole) = uri.path_and_query().map(PathAndQuery::as_str)
        && base == "/"
        && matched == 0
        && path == uri.path()
        && whole.starts_with('/') // not so for `http://a?b`
        && router::is_plain(path)
    {
        return whole.into();
    }
    let mut target =
        router::upstream_path(route.path_handling, base, path, matched, route.strip_path);
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    target.into()
}

/// The request target to send where a plugin chose the path, which may bring a query of its own.
fn replaced_target<'a>(path: &'a str, query: Option<&str>) -> Cow<'a, str> {
    let (path, own) = path.split_once('?').unwrap_or((path, ""));
    let mut target = router::escape(path.into());
    for query in [own, query.unwrap_or_default()] {
        if !query.is_empty() {
            let separator = if target.contains('?') { '&' } else { '?' };
            let target = target.to_mut();
            target.push(separator);
            target.push_str(&escape_query(query));
        }
    }
    target
}

/// Percent-encodes what may not stand in a query.
fn escape_query(query: &str) -> Cow<'_, str> {
    match query
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        true => query.into(),
        false => {
            let keep = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
            let one = |byte: u8| match keep(byte) {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02X}"),
            };
            query.bytes().map(one).collect::<String>().into()
        }
    }
}

/// The answer to plain HTTP where only TLS is served.
fn redirect(status: u16, uri: &Uri, headers: &Fields) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::UPGRADE_REQUIRED);
    if status == StatusCode::UPGRADE_REQUIRED {
        return Reply::error(status, "Please use HTTPS protocol")
            .with(CONNECTION, HeaderValue::from_static("Upgrade"))
            .with(UPGRADE, HeaderValue::from_static("TLS/1.2, HTTP/1.1"));
    }
    let (host, _) = request_host(uri, headers);
    let query = uri
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let location = HeaderValue::from_str(&format!("https://{host}{}{query}", uri.path()));
    let reply = Reply {
        status,
        headers: Vec::new(),
        body: ReplyBody::Empty,
    };
    match location {
        Ok(location) => reply.with(LOCATION, location),
        Err(_) => Reply::error(StatusCode::BAD_REQUEST, "Bad request"),
    }
}
