//! Sending a request to a peer of its service, and again where that is allowed.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{HOST, SET_COOKIE};
use http::uri::{Authority, Scheme};
use http::{Method, StatusCode};
use rustls::ClientConfig;
use sallyport_plugins::{Exchange, PartOf, Reply};
use sallyport_runtime::tls::connect as connect_tls;
use tokio::time::Instant;
use tracing::debug;

use super::body::{BodySource, HeldBody};
use super::calls;
use super::clock::now;
use super::fault::Fault;
use super::flight::CLIENT_GONE;
use super::headers::{self, Told};
use super::http1::framing::Length;
use super::options::Options;
use super::pool::Key;
use super::serve::{Answer, AnswerBody, Refusal, Turn, millis};
use super::tunnel;
use super::upstream::{Limits, SendError, Stream, Upstream};
use crate::balancer::{Choice, Hashable, Hashed, PickError, Picked, Report, Watched};
use crate::configuration::{ServedRoute, ServedService};
use crate::router;

/// Most of a request body that is awaited before an upstream is asked, bytes.
const BUFFERED_BYTES_MAX: u64 = 64 * 1024;

impl Turn<'_> {
    /// Sends the request to a peer; tries again as often as the service allows.
    pub(super) async fn proxy(
        &self,
        exchange: &Exchange,
        body: &mut HeldBody<'_>,
        sent: &Sent<'_>,
    ) -> Result<Answer, Refusal> {
        let options = &self.worker.options;
        // a call may be answered before its client has said anything
        if sent.route.request_buffering
            && !sent.service.http2
            && body.length() != Length::Exact(0)
            && let Err(status) = body.buffer(BUFFERED_BYTES_MAX, options).await
        {
            self.report(
                Fault::Client,
                &"the request body did not come whole",
                exchange,
            );
            return Err(Refusal::failure(status, options));
        }
        let mut progress = Progress::default();
        let mut tries_left = sent.service.retries;
        let peers = &sent.service.peers;
        let hashable = Hashable {
            exchange,
            raw_path: sent.raw_path,
        };
        if let Some(hashed) = peers.hash(hashable, &self.worker.cursors) {
            progress.hashed = hashed;
        }
        self.tally.asks(&sent.target);
        loop {
            let failure = match self.attempt(exchange, body, &mut progress, sent).await {
                Ok(mut answer) => {
                    if let Some(watched) = progress.watched.take() {
                        peers.report(&watched, Report::Status(answer.status.as_u16()));
                    }
                    if let Some(cookie) = progress.hashed.cookie.take() {
                        answer.headers.append(&SET_COOKIE, &cookie);
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.tally.failed(failure.status());
            debug!(service = %sent.service.id, reason = %failure, "try failed");
            let again = match &failure {
                Failure::Pick(_) => false,
                Failure::Connect(_) | Failure::ConnectTimeout => true,
                Failure::Send(
                    SendError::TooLarge
                    | SendError::ClientTimeout
                    | SendError::ClientGone
                    | SendError::ClientLeft
                    | SendError::ClientStuck(_)
                    | SendError::Untellable
                    // an answer came, even if nobody can read it
                    | SendError::NotHttp(_),
                ) => false,
                Failure::Send(error) => {
                    (is_untouched(error) || is_idempotent(&exchange.request.method))
                        && (!progress.body_taken || body.rewind())
                }
            };
            progress.body_taken &= !again;
            // a kept connection that ends under a request says nothing about the upstream, and
            // there are only so many of them; nginx does not count it either
            let died = match &failure {
                Failure::Send(SendError::Io(_) | SendError::Closed) => true,
                Failure::Send(error) => is_untouched(error),
                _ => false,
            };
            if again && died && progress.reused {
                continue;
            }
            if let (Some(watched), Some(report)) = (progress.watched.take(), failure.report()) {
                peers.report(&watched, report);
            }
            if !again || tries_left == 0 {
                self.report(failure.fault(), &failure, exchange);
                return Err(failure.refusal(options));
            }
            tries_left -= 1;
            progress.tried.extend(progress.at);
        }
    }

    /// One try.
    async fn attempt(
        &self,
        exchange: &Exchange,
        body: &mut HeldBody<'_>,
        progress: &mut Progress,
        sent: &Sent<'_>,
    ) -> Result<Answer, Failure> {
        let worker = self.worker;
        let options = &worker.options;
        let service = sent.service;
        self.tally.tries();
        progress.at = None;
        let choice = Choice {
            names: &worker.balancers.names,
            cursors: &worker.cursors,
            hash: progress.hashed.hash,
            tls: service.scheme == Scheme::HTTPS,
            tried: &progress.tried,
            now: self.arrived,
        };
        let looked_up = self.tally.begin();
        let picked = service.peers.pick(&choice).await.map_err(Failure::Pick);
        self.tally.end(PartOf::Dns, looked_up);
        let picked = picked?;
        let Picked {
            socket,
            host_header,
            lease,
            watched,
        } = picked;
        progress.at = Some(socket);
        progress.watched = watched;
        self.tally.dials(socket);
        let head = &exchange.request;
        let authority = head.uri.authority().map(host_of);
        // RFC 9112 section 3.2.2: the target's host, if it has one, is the host
        let client_host = authority.or_else(|| head.headers.get(&HOST));
        let upstream_host = match (&exchange.upstream_host, client_host) {
            (Some(host), _) => host.as_bytes(),
            (None, Some(host)) if sent.route.preserve_host => host,
            _ => host_header.as_bytes(),
        };
        progress.reused = false;
        let told = Told {
            client: self.client,
            client_ip: exchange.client_ip,
            version: head.version,
            host: client_host,
            path: sent.raw_path,
            prefix: sent.prefix.as_deref(),
            upstream_host,
            request_id: self.request_id,
            length: body.length(),
            upgrade: !service.http2 && tunnel::is_asked_for(head, body.length()),
        };
        let limits = Limits {
            write: service.write_timeout,
            read: service.read_timeout,
            client: options.client.body,
            body_bytes_max: options.body_bytes_max,
        };
        if service.http2 {
            let mut answer = self
                .call(exchange, body, progress, sent, &told, socket, limits)
                .await?;
            if let AnswerBody::Call(call, _) = &mut answer.body {
                call.lease = lease.and_then(|lease| lease.answered(answer.status));
            }
            return Ok(answer);
        }
        let mut upstream = self.connect(socket, service, upstream_host).await?;
        progress.reused = upstream.requests > 0;
        self.tally.connected(progress.reused);
        let write_head = |out: &mut bytes::BytesMut| {
            out.extend_from_slice(head.method.as_str().as_bytes());
            out.extend_from_slice(b" ");
            out.extend_from_slice(sent.target.as_bytes());
            out.extend_from_slice(b" HTTP/1.1\r\n");
            headers::to_upstream(out, &head.headers, &told, options);
            out.extend_from_slice(b"\r\n");
        };
        let started = now();
        let response = upstream
            .send(
                &head.method,
                write_head,
                body,
                &mut progress.body_taken,
                limits,
                told.upgrade,
            )
            .await
            .map_err(Failure::Send)?;
        upstream.lease = lease.and_then(|lease| lease.answered(response.status));
        let mut answer = Answer {
            status: response.status,
            headers: response.headers,
            body: match response.status {
                StatusCode::SWITCHING_PROTOCOLS => AnswerBody::Tunnel(upstream),
                _ => AnswerBody::Upstream(upstream, response.length),
            },
            later: None,
        };
        self.mark(&mut answer, started);
        Ok(answer)
    }

    /// One try of a call.
    #[expect(clippy::too_many_arguments, reason = "a part of `attempt`")]
    async fn call(
        &self,
        exchange: &Exchange,
        body: &mut HeldBody<'_>,
        progress: &mut Progress,
        sent: &Sent<'_>,
        told: &Told<'_>,
        socket: SocketAddr,
        limits: Limits,
    ) -> Result<Answer, Failure> {
        let (worker, service) = (self.worker, sent.service);
        let key = key(socket, service, told.upstream_host);
        let choose = worker
            .calls
            .choose(&key, service.tls.as_ref().map(|tls| &tls.http2));
        let chosen = match tokio::time::timeout(service.connect_timeout, choose).await {
            Ok(chosen) => chosen.map_err(Failure::Connect)?,
            Err(_) => return Err(Failure::ConnectTimeout),
        };
        progress.reused = chosen.reused;
        self.tally.connected(progress.reused);
        let head = &exchange.request;
        let mut lines = bytes::BytesMut::new();
        headers::to_upstream(&mut lines, &head.headers, told, &worker.options);
        let asked = calls::Asked {
            method: &head.method,
            scheme: &service.scheme,
            authority: told.upstream_host,
            target: &sent.target,
            lines: &lines,
        };
        let started = now();
        let taken = &mut progress.body_taken;
        let begun = calls::start(chosen, &asked, body, taken, limits)
            .await
            .map_err(Failure::Send)?;
        let mut answer = Answer {
            status: begun.status,
            headers: begun.headers,
            body: AnswerBody::Call(begun.call, begun.length),
            later: None,
        };
        self.mark(&mut answer, started);
        Ok(answer)
    }

    /// Notes that a response is there, and what its client is told about the upstream.
    fn mark(&self, answer: &mut Answer, started: Instant) {
        let answered = now();
        self.tally.answered(answer.status, started, answered);
        let shown = &self.worker.options.shown;
        let headers = &mut answer.headers;
        if shown.upstream_status {
            headers.set_number(&headers::UPSTREAM_STATUS, answer.status.as_u16().into());
        }
        if shown.upstream_latency {
            headers.set_number(&headers::UPSTREAM_LATENCY, millis(answered - started));
        }
        if shown.proxy_latency {
            headers.set_number(&headers::PROXY_LATENCY, millis(started - self.arrived));
        }
    }

    /// A pooled connection to a peer, or a new one within the connect timeout.
    async fn connect(
        &self,
        address: SocketAddr,
        service: &ServedService,
        host: &[u8],
    ) -> Result<Box<Upstream>, Failure> {
        let worker = self.worker;
        let key = key(address, service, host);
        if let Some(upstream) = worker.pool.take(&key).await {
            return Ok(upstream);
        }
        let connect = worker.connect(key, service.tls.as_ref().map(|tls| &tls.http));
        match tokio::time::timeout(service.connect_timeout, connect).await {
            Ok(connected) => connected.map_err(Failure::Connect),
            Err(_) => Err(Failure::ConnectTimeout),
        }
    }
}

/// A request that is about to be sent upstream.
pub(super) struct Sent<'a> {
    pub(super) route: &'a ServedRoute,
    pub(super) service: &'a ServedService,
    pub(super) raw_path: &'a str,
    pub(super) prefix: Option<Cow<'a, str>>,
    /// Path and query to ask for.
    pub(super) target: Cow<'a, str>,
}

/// How far the tries of a request have come.
#[derive(Default)]
struct Progress {
    hashed: Hashed,
    /// Where the latest try went.
    at: Option<SocketAddr>,
    /// Whom to report on for the latest try.
    watched: Option<Watched>,
    /// Where earlier tries have failed.
    tried: Vec<SocketAddr>,
    /// Whether a part of the body is on its way: it cannot be sent again.
    body_taken: bool,
    /// Whether the latest try took a connection that had served a request before.
    reused: bool,
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Pick(PickError),
    #[error("could not connect: {0}")]
    Connect(std::io::Error),
    #[error("could not connect in time")]
    ConnectTimeout,
    #[error(transparent)]
    Send(SendError),
}

impl Failure {
    /// What it says about the peer; nothing if the client is to blame.
    fn report(&self) -> Option<Report> {
        match self {
            Failure::ConnectTimeout | Failure::Send(SendError::Timeout) => Some(Report::Timeout),
            Failure::Connect(_)
            | Failure::Send(
                SendError::Io(_) | SendError::Closed | SendError::NotHttp(_) | SendError::Http2(_),
            ) => Some(Report::TcpFailure),
            Failure::Pick(_)
            | Failure::Send(
                SendError::TooLarge
                | SendError::ClientTimeout
                | SendError::ClientGone
                | SendError::ClientLeft
                | SendError::ClientStuck(_)
                | SendError::Untellable,
            ) => None,
        }
    }

    fn refusal(&self, options: &Options) -> Refusal {
        let own =
            |message: &str| Refusal::own(Reply::error(StatusCode::SERVICE_UNAVAILABLE, message));
        let failure = |status| Refusal::failure(status, options);
        match self {
            Failure::Pick(PickError::NoPeer) => own("failure to get a peer from the ring-balancer"),
            Failure::Pick(PickError::Resolve(_)) => own("name resolution failed"),
            _ => failure(self.status()),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Failure::Send(
                SendError::TooLarge
                | SendError::ClientTimeout
                | SendError::ClientGone
                | SendError::ClientLeft
                | SendError::ClientStuck(_),
            ) => Fault::Client,
            Failure::Pick(PickError::NoPeer) | Failure::Send(SendError::Untellable) => {
                Fault::Gateway
            }
            Failure::Pick(PickError::Resolve(_))
            | Failure::Connect(_)
            | Failure::ConnectTimeout
            | Failure::Send(_) => Fault::Upstream,
        }
    }

    /// What the client is answered if this try was the last.
    fn status(&self) -> StatusCode {
        match self {
            Failure::Pick(_) => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Connect(_)
            | Failure::Send(
                SendError::Io(_) | SendError::Closed | SendError::NotHttp(_) | SendError::Http2(_),
            ) => StatusCode::BAD_GATEWAY,
            Failure::Send(SendError::Untellable) => StatusCode::INTERNAL_SERVER_ERROR,
            Failure::Send(SendError::ClientLeft) => {
                StatusCode::from_u16(CLIENT_GONE).expect("it is in the range of statuses")
            }
            Failure::ConnectTimeout | Failure::Send(SendError::Timeout) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Failure::Send(SendError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Failure::Send(SendError::ClientTimeout | SendError::ClientStuck(_)) => {
                StatusCode::REQUEST_TIMEOUT
            }
            Failure::Send(SendError::ClientGone) => StatusCode::BAD_REQUEST,
        }
    }
}

fn key(address: SocketAddr, service: &ServedService, host: &[u8]) -> Key {
    let tls = service.tls.as_ref();
    Key {
        address,
        tls: tls.map(|tls| (server_name(host), tls.id)),
    }
}

/// Whether the upstream says that it did nothing about a request (RFC 9113 section 8.7).
fn is_untouched(error: &SendError) -> bool {
    match error {
        SendError::Http2(error) => {
            error.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (error.is_go_away()
                    && error.is_remote()
                    && error.reason() == Some(h2::Reason::NO_ERROR))
        }
        _ => false,
    }
}

/// Whether sending a request twice does no more than sending it once, as nginx sees it.
fn is_idempotent(method: &Method) -> bool {
    !matches!(method.as_str(), "POST" | "PATCH" | "LOCK")
}

/// Host and port of an authority.
fn host_of(authority: &Authority) -> &[u8] {
    let authority = authority.as_str();
    let host = authority.rsplit_once('@').map(|(_, host)| host);
    host.unwrap_or(authority).as_bytes()
}

/// The name that TLS asks for when `Host` is this.
pub(super) fn server_name(host: &[u8]) -> Box<str> {
    let host = std::str::from_utf8(host).unwrap_or_default();
    let host = router::split_port(host).map_or(host, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').into()
}

/// An open stream to a peer.
///
/// What the handshake asks for is up to `tls`; whether a peer that says nothing about HTTP/2 speaks
/// it shows with its first bytes.
pub(super) async fn open(key: &Key, tls: Option<&Arc<ClientConfig>>) -> std::io::Result<Stream> {
    let stream = tokio::net::TcpStream::connect(key.address).await?;
    stream.set_nodelay(true)?;
    let (Some((name, _)), Some(config)) = (&key.tls, tls) else {
        return Ok(Stream::Plain(stream));
    };
    let stream = connect_tls(config.clone(), name, stream)
        .await
        .map_err(|failure| std::io::Error::new(failure.source.kind(), failure))?;
    Ok(Stream::Tls(Box::new(stream)))
}
