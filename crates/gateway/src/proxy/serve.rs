//! One request, from its head to the head of its response.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HOST, LOCATION, SERVER, TE, UPGRADE, CONNECTION};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use sallyport_plugins::{Env, Exchange, Flow, Reply, ResponseHead};
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use super::body::{BodyProgress, RequestBody, ResponseBody};
use super::headers::{self, Client, Told};
use super::options::Options;
use super::pool::Key;
use super::reply::{render, upstream_failure};
use super::upstream::{Limits, SendError, Stream, Upstream, UpstreamBody};
use super::worker::Worker;
use crate::balancer::Peer;
use crate::chain::Chain;
use crate::conf::ErrorType;
use crate::configuration::{Configuration, ServedRoute, ServedService};
use crate::router::{self, Query};

/// A response that the gateway makes, and the form it takes for a client that accepts any.
struct Refusal {
    reply: Reply,
    default: ErrorType,
}

impl Refusal {
    /// By a plugin or by routing.
    fn own(reply: Reply) -> Refusal {
        Refusal { reply, default: ErrorType::Json }
    }

    /// Because an upstream or the client's body failed.
    fn failure(status: StatusCode, options: &Options) -> Refusal {
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
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let arrived = Instant::now();
    let configuration = worker.configuration();
    let options = &worker.options;
    let request_id = worker.request_id();
    let (head, body) = request.into_parts();
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    let mut exchange = Exchange {
        client_ip: client.address(options, &head.headers),
        request: head,
        now_ms,
        route: None,
        service: None,
        consumer: None,
        credential: None,
        response_headers: Vec::new(),
    };
    let mut chosen = Chosen::new();
    let head_only = exchange.request.method == Method::HEAD;
    let turn = Turn { worker, client, configuration: &configuration, arrived, request_id: &request_id };
    let result = turn.run(&mut exchange, body, &mut chosen).await;
    let (mut response, proxied) = match result {
        Ok(response) => (response, true),
        Err(refusal) => {
            let id = request_id.to_str().unwrap_or_default();
            let mut response = render(refusal.reply, &exchange.request.headers, refusal.default, id);
            if head_only {
                *response.body_mut() = ResponseBody::Full(None);
            }
            (response, false)
        }
    };
    finish(&turn, &mut exchange, &chosen, &mut response, proxied);
    response
}

/// The header-filter phase, and what the gateway adds to every response.
fn finish(
    turn: &Turn<'_>,
    exchange: &mut Exchange,
    chosen: &[u32],
    response: &mut Response<ResponseBody>,
    proxied: bool,
) {
    let options = &turn.worker.options;
    let mut status = response.status();
    let map = response.headers_mut();
    if proxied {
        headers::mark_proxied(map, options);
    } else {
        if options.shown.server {
            map.insert(SERVER, options.server.clone());
        }
        if options.shown.response_latency {
            map.insert(headers::RESPONSE_LATENCY, millis(turn.arrived.elapsed()));
        }
    }
    if options.shown.request_id {
        map.insert(headers::REQUEST_ID, turn.request_id.clone());
    }
    for (name, value) in exchange.response_headers.drain(..) {
        map.insert(name, value);
    }
    for &handler in chosen {
        let mut head = ResponseHead { status: &mut status, headers: map };
        turn.configuration.handlers.get(handler).header_filter(exchange, &mut head);
    }
    *response.status_mut() = status;
}

/// What stays the same while one request is served.
struct Turn<'a> {
    worker: &'a Rc<Worker>,
    client: &'a Client,
    configuration: &'a Configuration,
    arrived: Instant,
    request_id: &'a HeaderValue,
}

impl Turn<'_> {
    async fn run(
        &self,
        exchange: &mut Exchange,
        body: Incoming,
        chosen: &mut Chosen,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let options = &self.worker.options;
        if exchange.request.method == Method::CONNECT {
            return Err(Refusal::failure(StatusCode::METHOD_NOT_ALLOWED, options));
        }
        if body.size_hint().lower() > options.body_bytes_max {
            return Err(Refusal::failure(StatusCode::PAYLOAD_TOO_LARGE, options));
        }
        let raw_path = exchange.request.uri.clone();
        let path = router::normalise(raw_path.path());
        let found = {
            let host = request_host(&exchange.request.uri, &exchange.request.headers);
            self.configuration.find(&Query {
                method: &exchange.request.method,
                host: &host,
                port: self.client.port,
                path: &path,
                headers: &exchange.request.headers,
                sni: self.client.sni.as_deref(),
                tls: self.client.tls,
            })
        };
        let Some((route, matched)) = found else {
            let chain = &self.configuration.global_chain;
            for slot in 0..chain.len() {
                chosen.extend(chain.pick(slot, None));
            }
            let message = "no Route matched with those values";
            return Err(Refusal::own(Reply::error(StatusCode::NOT_FOUND, message)));
        };
        exchange.route = Some(route.id);
        exchange.service = route.service.as_ref().map(|service| service.id);
        if let Some(status) = route.tls_only
            && !self.client.tls
        {
            return Err(Refusal::own(redirect(status, &exchange.request.uri, &exchange.request.headers)));
        }
        self.access(&route.chain, exchange, chosen).await?;
        let Some(service) = &route.service else {
            let message = "no Service found with those values";
            return Err(Refusal::own(Reply::error(StatusCode::SERVICE_UNAVAILABLE, message)));
        };
        let stripped = if route.strip_path { matched } else { 0 };
        let sent = Sent {
            route,
            service,
            raw_path: raw_path.path(),
            prefix: Some(&path[..stripped]).filter(|prefix| !prefix.is_empty() && *prefix != "/"),
            target: target(&exchange.request.uri, &path, &service.path, stripped, route.strip_path)
                .ok_or_else(|| Refusal::failure(StatusCode::BAD_REQUEST, options))?,
        };
        self.proxy(exchange, body, &sent).await
    }

    /// The access phase: every plugin in turn, until one answers.
    async fn access(
        &self,
        chain: &Chain,
        exchange: &mut Exchange,
        chosen: &mut Chosen,
    ) -> Result<(), Refusal> {
        let env =
            Env { identities: &self.configuration.identities, counters: &self.worker.counters };
        let mut answer = None;
        for slot in 0..chain.len() {
            let consumer: Option<Uuid> = exchange.consumer.as_ref().map(|consumer| consumer.id);
            let Some(index) = chain.pick(slot, consumer) else { continue };
            chosen.push(index);
            if answer.is_some() {
                continue; // only its later phases still run
            }
            let mut flow = self.configuration.handlers.get(index).access(exchange, &env);
            loop {
                match flow {
                    Flow::Continue => break,
                    Flow::Respond(reply) => {
                        answer = Some(reply);
                        break;
                    }
                    Flow::Wait(future) => flow = future.await(exchange, &env),
                }
            }
        }
        answer.map_or(Ok(()), |reply| Err(Refusal::own(reply)))
    }

    /// Sends the request to a peer; tries again as often as the service allows.
    async fn proxy(
        &self,
        exchange: &Exchange,
        body: Incoming,
        sent: &Sent<'_>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let options = &self.worker.options;
        let progress = Rc::<BodyProgress>::default();
        let bodyless = body.is_end_stream();
        let mut body = (!bodyless).then_some(body);
        let mut tries_left = sent.service.retries;
        loop {
            let attempt = self.attempt(exchange, &mut body, bodyless, &progress, sent).await;
            let failure = match attempt {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            debug!(service = %sent.service.id, reason = %failure, "try failed");
            let replayable = bodyless || body.is_some();
            let again = match &failure {
                Failure::NoPeer | Failure::Resolve(_) => false,
                Failure::Connect(_) | Failure::ConnectTimeout => true,
                Failure::Send(SendError::Timeout | SendError::Broken(_)) => {
                    replayable && is_idempotent(&exchange.request.method)
                }
                Failure::Send(_) => false,
            };
            if !again || tries_left == 0 {
                warn!(service = %sent.service.id, reason = %failure, "request failed");
                return Err(failure.refusal(options));
            }
            tries_left -= 1;
        }
    }

    /// One try. A body is taken only when it is about to be sent.
    async fn attempt(
        &self,
        exchange: &Exchange,
        body: &mut Option<Incoming>,
        bodyless: bool,
        progress: &Rc<BodyProgress>,
        sent: &Sent<'_>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let worker = self.worker;
        let options = &worker.options;
        let service = sent.service;
        let peer = service.peers.next().ok_or(Failure::NoPeer)?;
        let head = &exchange.request;
        let client_host = head.headers.get(HOST).cloned().or_else(|| authority(&head.uri));
        let upstream_host = match (sent.route.preserve_host, &client_host) {
            (true, Some(host)) => host.clone(),
            _ => peer.host_header.clone(),
        };
        let mut upstream = self.connect(peer, service, &upstream_host).await?;
        let headers = headers::to_upstream(
            &head.headers,
            Told {
                client: self.client,
                client_ip: exchange.client_ip,
                version: head.version,
                host: client_host.as_ref(),
                path: sent.raw_path,
                prefix: sent.prefix,
                upstream_host,
                request_id: self.request_id,
            },
            options,
        );
        let body = match body.take() {
            Some(body) if !bodyless => {
                RequestBody::streaming(body, options.body_bytes_max, progress.clone())
            }
            _ => RequestBody::empty(progress.clone()),
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = sent.target.clone();
        *request.headers_mut() = headers;
        let limits = Limits { write: service.write_timeout, read: service.read_timeout };
        let started = Instant::now();
        let response =
            upstream.send(request, limits, progress.clone()).await.map_err(Failure::Send)?;
        let waited = started.elapsed();
        let (mut parts, body) = response.into_parts();
        let trailers_wanted =
            head.headers.get_all(TE).iter().any(|te| headers::contains_token(te, "trailers"));
        headers::from_upstream(&mut parts.headers, trailers_wanted);
        let shown = &options.shown;
        if shown.upstream_status {
            parts.headers.insert(headers::UPSTREAM_STATUS, HeaderValue::from(parts.status.as_u16()));
        }
        if shown.upstream_latency {
            parts.headers.insert(headers::UPSTREAM_LATENCY, millis(waited));
        }
        if shown.proxy_latency {
            parts.headers.insert(headers::PROXY_LATENCY, millis(started - self.arrived));
        }
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let body = UpstreamBody::new(body, upstream, worker.pool.clone());
        Ok(Response::from_parts(parts, ResponseBody::Upstream(Box::new(body))))
    }

    /// A pooled connection to a peer, or a new one within the connect timeout.
    async fn connect(
        &self,
        peer: &Peer,
        service: &ServedService,
        host: &HeaderValue,
    ) -> Result<Upstream, Failure> {
        let worker = self.worker;
        let address = worker.resolver.address(peer).await.map_err(Failure::Resolve)?;
        let tls = (service.scheme == Scheme::HTTPS).then(|| (server_name(host), service.verify));
        let key = Key { address, tls };
        if let Some(upstream) = worker.pool.take(&key).await {
            return Ok(upstream);
        }
        let connect = worker.connect(key);
        match tokio::time::timeout(service.connect_timeout, connect).await {
            Ok(connected) => connected.map_err(Failure::Connect),
            Err(_) => Err(Failure::ConnectTimeout),
        }
    }
}

/// A request that is about to be sent upstream.
struct Sent<'a> {
    route: &'a ServedRoute,
    service: &'a ServedService,
    raw_path: &'a str,
    prefix: Option<&'a str>,
    target: Uri,
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no peer is available")]
    NoPeer,
    #[error(transparent)]
    Resolve(crate::balancer::ResolveError),
    #[error("could not connect: {0}")]
    Connect(std::io::Error),
    #[error("could not connect in time")]
    ConnectTimeout,
    #[error(transparent)]
    Send(SendError),
}

impl Failure {
    fn refusal(&self, options: &Options) -> Refusal {
        let own = |message: &str| {
            Refusal::own(Reply::error(StatusCode::SERVICE_UNAVAILABLE, message))
        };
        let failure = |status| Refusal::failure(status, options);
        match self {
            Failure::NoPeer => own("failure to get a peer from the ring-balancer"),
            Failure::Resolve(_) => own("name resolution failed"),
            Failure::Connect(_) | Failure::Send(SendError::Broken(_)) => {
                failure(StatusCode::BAD_GATEWAY)
            }
            Failure::ConnectTimeout | Failure::Send(SendError::Timeout) => {
                failure(StatusCode::GATEWAY_TIMEOUT)
            }
            Failure::Send(SendError::TooLarge) => failure(StatusCode::PAYLOAD_TOO_LARGE),
            Failure::Send(SendError::ClientTimeout) => failure(StatusCode::REQUEST_TIMEOUT),
            Failure::Send(SendError::ClientGone) => failure(StatusCode::BAD_REQUEST),
        }
    }
}

/// Whether sending a request twice does no more than sending it once, as nginx sees it.
fn is_idempotent(method: &Method) -> bool {
    !matches!(method.as_str(), "POST" | "PATCH" | "LOCK")
}

fn millis(span: Duration) -> HeaderValue {
    HeaderValue::from(span.as_millis() as u64)
}

/// The host a request is for: lower case, without port.
fn request_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> std::borrow::Cow<'a, str> {
    let host = match uri.host() {
        Some(host) => host,
        None => headers.get(HOST).and_then(|host| host.to_str().ok()).map_or("", |host| {
            router::split_port(host).map_or(host, |(host, _)| host)
        }),
    };
    match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => host.to_ascii_lowercase().into(),
        false => host.into(),
    }
}

fn authority(uri: &Uri) -> Option<HeaderValue> {
    uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
}

fn server_name(host: &HeaderValue) -> Box<str> {
    let host = host.to_str().unwrap_or_default();
    let host = router::split_port(host).map_or(host, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').into()
}

/// The request target to send: the upstream path with the client's query as it is.
fn target(uri: &Uri, path: &str, base: &str, matched: usize, strip: bool) -> Option<Uri> {
    if base == "/" && matched == 0 && path == uri.path() && uri.authority().is_none() {
        return Some(uri.clone());
    }
    let mut target = router::upstream_path(base, path, matched, strip);
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let target = PathAndQuery::from_maybe_shared(bytes::Bytes::from(target)).ok()?;
    Some(Uri::from(target))
}

/// The answer to plain HTTP where only TLS is served.
fn redirect(status: u16, uri: &Uri, headers: &HeaderMap) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::UPGRADE_REQUIRED);
    if status == StatusCode::UPGRADE_REQUIRED {
        return Reply::error(status, "Please use HTTPS protocol")
            .with(CONNECTION, HeaderValue::from_static("Upgrade"))
            .with(UPGRADE, HeaderValue::from_static("TLS/1.2, HTTP/1.1"));
    }
    let host = request_host(uri, headers);
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let location = HeaderValue::from_str(&format!("https://{host}{target}"));
    let reply = Reply {
        status,
        headers: Vec::new(),
        body: sallyport_plugins::ReplyBody::Empty,
    };
    match location {
        Ok(location) => reply.with(LOCATION, location),
        Err(_) => Reply::error(StatusCode::BAD_REQUEST, "Bad request"),
    }
}

/// An open stream to a peer.
pub(super) async fn open(
    worker: &Worker,
    key: &Key,
) -> std::io::Result<Stream> {
    let stream = tokio::net::TcpStream::connect(key.address).await?;
    stream.set_nodelay(true)?;
    let Some((name, verify)) = &key.tls else { return Ok(Stream::Plain(stream)) };
    let config = match verify {
        true => &worker.options.tls_verified,
        false => &worker.options.tls_unverified,
    };
    let name = rustls::pki_types::ServerName::try_from(name.to_string())
        .map_err(std::io::Error::other)?;
    let stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(stream)))
}
