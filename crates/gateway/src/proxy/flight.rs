//! One request until its log phase.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use sallyport_model::Kind;
use sallyport_plugins::{Exchange, Fields, Finished, Latencies, ResponseSource, TlsSession};
use tokio::time::Instant;

use super::clock::now;
use super::headers::Client;
use super::serve::{millis, request_host};
use super::tally::Tally;
use super::worker::{Held, Worker};
use crate::logs::Line;
use crate::telemetry;

/// Status of a request whose client was gone before there was an answer. Source: nginx.
pub(super) const CLIENT_GONE: u16 = 499;

/// A request under way. Its log phase runs when this is dropped, so it runs once however the
/// request ends: answered, refused, broken off, or given up because the client went away.
pub(crate) struct Flight {
    pub(super) exchange: Exchange,
    /// Handlers that were chosen, whose later phases run too.
    pub(super) chosen: Vec<u32>,
    pub(super) configuration: Rc<Held>,
    pub(super) request_id: HeaderValue,
    pub(super) tally: Tally,
    worker: Rc<Worker>,
    /// `None` if no log wants to know of any request. Boxed, as the flight moves.
    log: Option<Box<Log>>,
}

/// What the log phase tells beside what others need anyway.
struct Log {
    asked: Asked,
    peer: (IpAddr, Option<u16>),
    port: u16,
    tls: Option<TlsSession>,
    arrived: Instant,
    head_bytes: u64,
    /// `None` until there is an answer.
    answered: Option<Answered>,
    response_headers: Fields,
    response_head_bytes: u64,
    /// Head and body.
    response_bytes: u64,
}

/// What the client asked for.
enum Asked {
    Request(Method, Uri, Version),
    /// The first line of what is no request.
    Line(Vec<u8>),
    /// Nobody wants to know.
    Unasked,
}

#[derive(Clone, Copy)]
struct Answered {
    status: StatusCode,
    proxied: bool,
    at: Option<Instant>,
}

impl Flight {
    pub(super) fn new(
        worker: &Rc<Worker>,
        client: &Client,
        exchange: Exchange,
        arrived: Instant,
    ) -> Flight {
        let configuration = worker.configuration();
        let detailed = configuration.handlers.any_logs();
        let traced = configuration.handlers.any_traces();
        let request = &exchange.request;
        let told = detailed || worker.access.is_some();
        let log = (told || worker.telemetry.is_some()).then(|| {
            let text_bytes = request.headers.text_bytes() as u64;
            let line_bytes = match request.version {
                // there the head holds only the fields
                Version::HTTP_2 => request.uri.path().len() + request.method.as_str().len(),
                _ => 0,
            };
            Box::new(Log {
                asked: match told {
                    true => {
                        let (method, uri) = (request.method.clone(), request.uri.clone());
                        Asked::Request(method, uri, request.version)
                    }
                    false => Asked::Unasked,
                },
                peer: (client.peer, client.peer_port),
                port: client.port,
                tls: client.session,
                arrived,
                head_bytes: text_bytes + line_bytes as u64,
                answered: None,
                response_headers: Fields::new(),
                response_head_bytes: 0,
                response_bytes: 0,
            })
        });
        worker.counts_under_way(1);
        Flight {
            exchange,
            chosen: Vec::new(),
            configuration,
            request_id: worker.request_id(),
            tally: Tally::new(detailed, traced),
            worker: worker.clone(),
            log,
        }
    }

    /// What came is no request, but began with this line. No plugin sees it.
    pub(super) fn is_no_request(&mut self, line: &[u8]) {
        if let Some(log) = &mut self.log {
            log.asked = Asked::Line(line.to_vec());
        }
    }

    /// Whether some log wants to know how it ends.
    pub(super) fn is_logged(&self) -> bool {
        self.log.is_some()
            && (self.worker.access.is_some() || self.worker.telemetry.is_some() || {
                let handlers = &self.configuration.handlers;
                self.chosen.iter().any(|&index| handlers.get(index).logs())
            })
    }

    /// This is the answer; whether it came from the upstream.
    pub(super) fn answered(&mut self, status: StatusCode, proxied: bool) {
        if let Some(log) = &mut self.log {
            let at = self.tally.is_detailed().then(now);
            log.answered = Some(Answered {
                status,
                proxied,
                at,
            });
        }
    }

    /// The head of the answer is about to be sent.
    pub(super) fn head(&mut self, headers: Fields, bytes: usize) {
        if let Some(log) = &mut self.log {
            log.response_headers = headers;
            log.response_head_bytes = bytes as u64;
        }
    }

    /// So many bytes of the answer went out, head and body.
    pub(super) fn sent(&mut self, bytes: u64) {
        if let Some(log) = &mut self.log {
            log.response_bytes = bytes;
        }
    }

    /// So many more bytes of the answer went out.
    pub(super) fn sent_more(&mut self, bytes: usize) {
        if let Some(log) = &mut self.log {
            log.response_bytes += bytes as u64;
        }
    }

    fn log_phase(&mut self, log: &Log) {
        let status = log.answered.map(|answered| answered.status);
        let status = status.unwrap_or_else(|| {
            StatusCode::from_u16(CLIENT_GONE).expect("it is in the range of statuses")
        });
        self.count(log, status);
        self.line(log, status);
        let handlers = &self.configuration.handlers;
        if !self.chosen.iter().any(|&index| handlers.get(index).logs()) {
            return;
        }
        let Asked::Request(method, uri, _) = &log.asked else {
            return;
        };
        let (host, _) = request_host(uri, &self.exchange.request.headers);
        let host = host.into_owned();
        let entities = &self.configuration.entities;
        let parts = self.tally.parts(&self.worker);
        let proxied_at = self.tally.proxied.get();
        let body_bytes = self.tally.body_bytes.get();
        let Some(upstream) = self.tally.upstream(&self.worker) else {
            return;
        };
        let (proxied, answered) = match log.answered {
            Some(answered) => (answered.proxied, answered.at),
            None => (false, None),
        };
        let finished = Finished {
            request_id: self.request_id.to_str().unwrap_or_default(),
            method,
            uri,
            host: &host,
            port: log.port,
            tls: log.tls,
            request_bytes: log.head_bytes + body_bytes,
            status,
            response_headers: &log.response_headers,
            response_bytes: log.response_bytes,
            source: match proxied {
                true => ResponseSource::Upstream,
                false => ResponseSource::Kong,
            },
            latencies: latencies(log.arrived, answered, proxied_at, proxied),
            upstream_uri: &upstream.uri,
            tries: &upstream.tries,
            route: self
                .exchange
                .route
                .and_then(|id| entities.logged(Kind::Route, id)),
            service: self
                .exchange
                .service
                .and_then(|id| entities.logged(Kind::Service, id)),
            consumer: self
                .exchange
                .consumer
                .as_ref()
                .and_then(|consumer| entities.logged(Kind::Consumer, consumer.id)),
            peer: log.peer,
            started_ns: self.worker.unix_ns(log.arrived),
            ended_ns: self.worker.unix_ns(now()),
            parts: &parts,
            stream: None,
        };
        let (worker, configuration) = (&self.worker, &self.configuration);
        worker.tell_logs(configuration, &self.chosen, &mut self.exchange, &finished);
    }

    fn count(&self, log: &Log, status: StatusCode) {
        let Some(telemetry) = &self.worker.telemetry else {
            return;
        };
        let nanos =
            |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
        let proxied_at = self.tally.proxied.get();
        let consumer = self.exchange.consumer.as_ref();
        telemetry.borrow_mut().add(&telemetry::Request {
            route: self.exchange.route,
            service: self.exchange.service,
            consumer: consumer.map(|consumer| consumer.id),
            upstream: self
                .tally
                .slot
                .get()
                .and_then(|slot| self.configuration.upstream(slot)),
            status: status.as_u16(),
            request_bytes: log.head_bytes + self.tally.body_bytes.get(),
            response_bytes: log.response_bytes,
            latency_ns: nanos(log.arrived, now()),
            upstream_latency_ns: proxied_at.map(|(sent, head)| nanos(sent, head)),
        });
    }

    fn line(&self, log: &Log, status: StatusCode) {
        let Some(access) = &self.worker.access else {
            return;
        };
        let request = match &log.asked {
            Asked::Line(line) => Cow::Borrowed(&line[..]),
            Asked::Unasked => return,
            Asked::Request(method, uri, version) => Cow::Owned(request_line(method, uri, *version)),
        };
        let head_bytes = log.response_head_bytes;
        self.worker.with_local_time(self.exchange.now_ms, |time| {
            access.add(&Line {
                client: self.exchange.client_ip,
                time,
                request,
                headers: &self.exchange.request.headers,
                status: status.as_u16(),
                body_bytes: log.response_bytes.saturating_sub(head_bytes),
                request_id: self.request_id.to_str().unwrap_or_default(),
            });
        });
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.worker.counts_under_way(-1);
        // a plugin that panicked must not be asked again while that unwinds
        if !std::thread::panicking()
            && let Some(log) = self.log.take()
        {
            self.log_phase(&log);
        }
    }
}

fn request_line(method: &Method, uri: &Uri, version: Version) -> Vec<u8> {
    let target = uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    let version = match version {
        Version::HTTP_10 => " HTTP/1.0",
        Version::HTTP_2 => " HTTP/2.0",
        _ => " HTTP/1.1",
    };
    let method = method.as_str();
    let mut line = Vec::with_capacity(method.len() + 1 + target.map_or(64, str::len) + 9);
    line.extend_from_slice(method.as_bytes());
    line.push(b' ');
    match (uri.authority(), target) {
        (None, Some(target)) => line.extend_from_slice(target.as_bytes()),
        _ => line.extend_from_slice(uri.to_string().as_bytes()),
    }
    line.extend_from_slice(version.as_bytes());
    line
}

/// `answered` is when the answer's head was ready, `upstream` when the request was sent on and
/// when the upstream's head was there.
fn latencies(
    arrived: Instant,
    answered: Option<Instant>,
    upstream: Option<(Instant, Instant)>,
    proxied: bool,
) -> Latencies {
    let ended = now();
    let span = |from: Instant, to: Instant| millis(to.saturating_duration_since(from));
    let answered = answered.unwrap_or(ended);
    let request = span(arrived, ended);
    match upstream.filter(|_| proxied) {
        Some((sent, head)) => Latencies {
            kong: span(arrived, sent),
            proxy: span(sent, head) as i64,
            request,
            receive: span(head, ended),
        },
        None => Latencies {
            kong: span(arrived, answered),
            proxy: -1,
            request,
            receive: 0,
        },
    }
}
