//! One session, from its first byte to its log line.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Extensions, Method, StatusCode, Uri, Version};
use rustls::ClientConfig;
use sallyport_model::Kind;
use sallyport_plugins::{
    Captures, Env, Exchange, Fields, Finished, Flow, Latencies, Request, RequestBody,
    ResponseSource, StreamSession, TlsSession,
};
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::super::clock::now;
use super::super::tally::Tally;
use super::super::worker::{Held, Worker};
use super::routes::StreamRoute;
use crate::balancer::{Choice, Hashable, Lease, PickError, Report, Watched};
use crate::chain::Caller;
use crate::configuration::ServedService;
use crate::logs::{CLIENT_FAULTS, StreamLine};
use crate::router::StreamQuery;
use crate::telemetry;

/// Both ends of what a client opened.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Ends {
    /// Where the client is, as far as that is believed.
    pub(in crate::proxy) source: SocketAddr,
    /// What it connected to, the port as seen from outside.
    pub(in crate::proxy) destination: SocketAddr,
}

/// A session under way. Its log line is written when this is dropped, so once, however it ends.
pub(super) struct Session {
    pub(super) worker: Rc<Worker>,
    pub(super) configuration: Rc<Held>,
    pub(super) ends: Ends,
    exchange: Exchange,
    /// Handlers that were chosen, whose log phase runs too.
    chosen: Vec<u32>,
    tally: Tally,
    arrived: Instant,
    /// When a peer was reached.
    reached: Cell<Option<Instant>>,
    is_udp: bool,
    /// The client's TLS session, if it ended here.
    pub(super) tls: Option<TlsSession>,
    /// In nginx's meaning; 200 for what was passed on.
    status: Cell<u16>,
    /// Bytes that the client sent and got.
    pub(super) received: Cell<u64>,
    pub(super) sent: Cell<u64>,
}

/// Why a session was not passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("no Route matched with those values")]
    NoRoute,
    #[error("no Service found with those values")]
    NoService,
    #[error("the client went away before it said anything")]
    Gone,
    #[error("the client said nothing for too long")]
    Silent,
    #[error("what the client sent is not the beginning of TLS")]
    NotTls,
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    #[error("a plugin refused it")]
    Plugin(StatusCode),
    #[error(transparent)]
    Pick(PickError),
    #[error("could not connect: {0}")]
    Connect(std::io::Error),
    #[error("could not connect in time")]
    ConnectTimeout,
}

impl Refused {
    /// Source: nginx's stream module and Kong's stream handler; see docs/streams.md.
    fn status(&self) -> u16 {
        match self {
            Refused::NoRoute => 500,
            Refused::NoService | Refused::Pick(_) => 503,
            Refused::Gone | Refused::Silent | Refused::NotTls | Refused::Handshake(_) => 400,
            Refused::Plugin(status) => status.as_u16(),
            Refused::Connect(_) | Refused::ConnectTimeout => 502,
        }
    }

    fn fault(&self) -> &'static str {
        match self {
            Refused::NoRoute
            | Refused::Gone
            | Refused::Silent
            | Refused::NotTls
            | Refused::Handshake(_)
            | Refused::Plugin(_) => "client",
            Refused::NoService | Refused::Pick(PickError::NoPeer) => "gateway",
            Refused::Pick(_) | Refused::Connect(_) | Refused::ConnectTimeout => "upstream",
        }
    }

    fn report(&self) -> Option<Report> {
        match self {
            Refused::Connect(_) => Some(Report::TcpFailure),
            Refused::ConnectTimeout => Some(Report::Timeout),
            _ => None,
        }
    }
}

/// A peer that a session is passed on to.
pub(super) struct Reached<T> {
    pub(super) to: T,
    /// Held until the session is over, where that counts.
    pub(super) lease: Option<Lease>,
    pub(super) address: SocketAddr,
    /// Whom to report on, where that counts.
    pub(super) watched: Option<Watched>,
}

/// How far the tries of a session have come.
#[derive(Default)]
pub(super) struct Tries {
    tried: Vec<SocketAddr>,
    made: u32,
}

impl Session {
    pub(super) fn new(worker: &Rc<Worker>, ends: Ends, is_udp: bool) -> Session {
        let arrived = now();
        worker.counts_under_way(1);
        let configuration = worker.configuration();
        let request = Request {
            method: Method::GET,
            uri: Uri::default(),
            version: Version::HTTP_11,
            headers: Fields::new(),
        };
        Session {
            exchange: Exchange {
                request,
                body: RequestBody::Coming(Some(0)),
                client_ip: ends.source.ip().to_canonical(),
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
            },
            worker: worker.clone(),
            chosen: Vec::new(),
            tally: Tally::new(configuration.handlers.any_logs(), false),
            configuration,
            ends,
            arrived,
            reached: Cell::new(None),
            is_udp,
            tls: None,
            status: Cell::new(200),
            received: Cell::new(0),
            sent: Cell::new(0),
        }
    }

    /// The route for what is known of the session: whether it speaks TLS, and for which name.
    pub(super) fn route<'c>(
        &self,
        configuration: &'c Held,
        (tls, sni): (bool, Option<&str>),
    ) -> Result<&'c StreamRoute, Refused> {
        let query = StreamQuery {
            udp: self.is_udp,
            tls,
            sni,
            source: self.ends.source,
            destination: self.ends.destination,
        };
        configuration.streams.find(&query).ok_or(Refused::NoRoute)
    }

    /// Runs the plugins of the route; the service that the session goes to.
    pub(super) async fn access<'c>(
        &mut self,
        configuration: &Held,
        route: &'c StreamRoute,
    ) -> Result<&'c Arc<ServedService>, Refused> {
        let exchange = &mut self.exchange;
        exchange.route = Some(route.id);
        exchange.service = route.service.as_ref().map(|service| service.id);
        let env = Env {
            identities: &configuration.identities,
            node: &self.worker.node,
            metrics: &self.worker.metrics,
            arriving: None,
        };
        let mut refusal = None;
        for step in route.chain.with(&configuration.global_streams) {
            let Some(index) = step.pick(Caller::of(&exchange.consumer)) else {
                continue;
            };
            self.chosen.push(index);
            if refusal.is_some() {
                continue; // only its log phase still runs
            }
            let mut flow = configuration.handlers.get(index).access(exchange, &env);
            loop {
                match flow {
                    // a stream has no body to read
                    Flow::Continue | Flow::ReadBody(..) => break,
                    Flow::Respond(reply) => {
                        refusal = Some(Refused::Plugin(reply.status));
                        break;
                    }
                    Flow::Wait(future) => flow = future.await(exchange, &env),
                }
            }
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None => route.service.as_ref().ok_or(Refused::NoService),
        }
    }

    /// Reaches a peer of the service; tries again, elsewhere if it can, as often as the service
    /// allows. `open` gets an address and the server name for TLS.
    pub(super) async fn reach<T>(
        &self,
        service: &ServedService,
        tries: &mut Tries,
        open: impl AsyncFn(SocketAddr, &[u8]) -> std::io::Result<T>,
    ) -> Result<Reached<T>, Refused> {
        let worker = &self.worker;
        let hashable = Hashable {
            exchange: &self.exchange,
            raw_path: "",
        };
        let hashed = service.peers.hash(hashable, &worker.cursors);
        let hash = hashed.unwrap_or_default().hash;
        loop {
            self.tally.tries();
            let choice = Choice {
                names: &worker.balancers.names,
                cursors: &worker.cursors,
                hash,
                tls: service.tls.is_some(),
                tried: &tries.tried,
                now: self.arrived,
            };
            let picked = service.peers.pick(&choice).await.map_err(Refused::Pick)?;
            let address = picked.socket;
            self.tally.dials(address);
            let opening = open(address, picked.host_header.as_bytes());
            let opened = tokio::time::timeout(service.connect_timeout, opening).await;
            let failed = match opened {
                Ok(Ok(to)) => {
                    self.tally.connected(false);
                    self.reached.set(Some(now()));
                    return Ok(Reached {
                        to,
                        lease: picked.lease.and_then(|it| it.answered(StatusCode::OK)),
                        address,
                        watched: picked.watched,
                    });
                }
                Ok(Err(error)) => Refused::Connect(error),
                Err(_) => Refused::ConnectTimeout,
            };
            let counts_as = match failed {
                Refused::ConnectTimeout => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            self.tally.failed(counts_as);
            debug!(service = %service.id, %address, reason = %failed, "try failed");
            if let (Some(watched), Some(report)) = (&picked.watched, failed.report()) {
                service.peers.report(watched, report);
            }
            tries.failed(address);
            if !tries.may_go_on(service) {
                return Err(failed);
            }
        }
    }

    /// The session was not passed on, and this is why.
    pub(super) fn refused(&self, refused: &Refused) {
        self.status.set(refused.status());
        let (fault, client) = (refused.fault(), self.ends.source);
        let listener = self.ends.destination;
        let service = self.exchange.service.map(tracing::field::display);
        match refused {
            Refused::Gone => {}
            _ if fault == "client" => info!(
                target: CLIENT_FAULTS,
                fault, reason = %refused, %client, %listener, service, "stream closed"
            ),
            _ => error!(fault, reason = %refused, %client, %listener, service, "stream closed"),
        }
    }
}

impl Tries {
    /// A try at this address has failed.
    pub(super) fn failed(&mut self, address: SocketAddr) {
        self.made += 1;
        self.tried.push(address);
    }

    /// Whether there may be another one.
    pub(super) fn may_go_on(&self, service: &ServedService) -> bool {
        self.made <= u32::from(service.retries)
    }
}

/// Opens a TCP connection, with TLS if a service wants that.
pub(super) async fn open_tcp(
    address: SocketAddr,
    host: &[u8],
    tls: Option<(u64, &Arc<ClientConfig>)>,
) -> std::io::Result<super::super::upstream::Stream> {
    let key = super::super::pool::Key {
        address,
        tls: tls.map(|(id, _)| (super::super::forward::server_name(host), id)),
    };
    super::super::forward::open(&key, tls.map(|(_, config)| config)).await
}

impl Session {
    /// Counts the session as one request: how long it took, and how long until its upstream was
    /// reached.
    fn count(&self) {
        let Some(telemetry) = &self.worker.telemetry else {
            return;
        };
        let nanos = |to: Instant| to.saturating_duration_since(self.arrived).as_nanos() as u64;
        let service = self.exchange.service;
        telemetry.borrow_mut().add(&telemetry::Request {
            route: self.exchange.route,
            service,
            consumer: None,
            upstream: service.and_then(|id| self.configuration.upstream_of(id)),
            status: self.status.get(),
            request_bytes: self.received.get(),
            response_bytes: self.sent.get(),
            latency_ns: nanos(now()),
            upstream_latency_ns: self.reached.get().map(nanos),
        });
    }

    /// The log phase of the plugins that were chosen.
    fn log_phase(&mut self) {
        let handlers = &self.configuration.handlers;
        if !self.chosen.iter().any(|&index| handlers.get(index).logs()) {
            return;
        }
        let Some(upstream) = self.tally.upstream(&self.worker) else {
            return;
        };
        let ended = now();
        let reached = self.reached.get();
        let span = |to: Instant| to.saturating_duration_since(self.arrived).as_millis() as u64;
        let entities = &self.configuration.entities;
        let (received, sent) = (self.received.get(), self.sent.get());
        let status = StatusCode::from_u16(self.status.get());
        let through = |bytes: u64| reached.map_or(0, |_| bytes);
        let finished = Finished {
            request_id: "",
            method: &Method::GET,
            uri: &Uri::default(),
            host: "",
            port: self.ends.destination.port(),
            tls: self.tls,
            request_bytes: received,
            status: status.unwrap_or(StatusCode::OK),
            response_headers: &Fields::new(),
            response_bytes: sent,
            source: match reached {
                Some(_) => ResponseSource::Upstream,
                None => ResponseSource::Kong,
            },
            latencies: Latencies {
                kong: span(reached.unwrap_or(ended)),
                proxy: -1,
                request: span(ended),
                receive: 0,
            },
            upstream_uri: "",
            tries: &upstream.tries,
            route: self
                .exchange
                .route
                .and_then(|id| entities.logged(Kind::Route, id)),
            service: self
                .exchange
                .service
                .and_then(|id| entities.logged(Kind::Service, id)),
            consumer: None,
            peer: (self.ends.source.ip(), Some(self.ends.source.port())),
            started_ns: self.worker.unix_ns(self.arrived),
            ended_ns: self.worker.unix_ns(ended),
            parts: &[],
            stream: Some(StreamSession {
                upstream_received: through(sent),
                upstream_sent: through(received),
            }),
        };
        let (worker, configuration) = (&self.worker, &self.configuration);
        worker.tell_logs(configuration, &self.chosen, &mut self.exchange, &finished);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.worker.counts_under_way(-1);
        // a plugin that panicked must not be asked again while that unwinds
        if !std::thread::panicking() {
            self.count();
            self.log_phase();
        }
        let Some(log) = &self.worker.stream_access else {
            return;
        };
        let line = StreamLine {
            client: self.exchange.client_ip,
            protocol: if self.is_udp { "UDP" } else { "TCP" },
            status: self.status.get(),
            sent: self.sent.get(),
            received: self.received.get(),
            took_ms: now().saturating_duration_since(self.arrived).as_millis() as u64,
        };
        self.worker.with_local_time(self.exchange.now_ms, |time| {
            log.append(|out| line.write(out, time));
        });
    }
}
