//! Listeners of the APIs: plain or TLS, HTTP/1.1.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sallyport_plugins::Fields;
use sallyport_runtime::listen::{ListenOptions, listen};
use sallyport_runtime::tls::Offer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Answer, Node};
use crate::certificates::Certificates;
use crate::conf::Listener;
use crate::logs::{Access, Line, LocalTime};
use crate::start::{StartError, tls_config};

/// How long a client may take for a handshake, and for the head of a request.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Which API a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `status_listen`
    Status,
    /// `admin_listen`
    Admin,
}

impl Kind {
    fn contract_id(self, tls: bool) -> &'static str {
        match (self, tls) {
            (Kind::Status, _) => "status",
            (Kind::Admin, false) => "admin.http",
            (Kind::Admin, true) => "admin.https",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Kind::Status => "status_listen in kong.conf",
            Kind::Admin => "admin_listen in kong.conf",
        }
    }
}

/// Sockets of one API, not yet served.
pub(crate) struct Sockets {
    kind: Kind,
    all: Vec<Socket>,
    access: Option<Access>,
}

struct Socket {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Sockets {
    /// Where they listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let all = self.all.iter();
        all.filter_map(|socket| socket.listener.local_addr().ok())
            .collect()
    }
}

/// Opens the sockets.
///
/// # Errors
/// An address that cannot be used.
pub(crate) fn open(
    kind: Kind,
    listeners: &[Listener],
    (certificates, offer): (&Certificates, &Offer),
    access: Option<Access>,
) -> Result<Sockets, StartError> {
    let tls = match certificates.is_empty() {
        true => None,
        false => {
            let config = tls_config(certificates.clone(), &[b"http/1.1"], offer)?;
            Some(TlsAcceptor::from(config))
        }
    };
    let mut all = Vec::new();
    for wanted in listeners {
        let options = ListenOptions {
            reuse_port: false,
            ..wanted.options()
        };
        let id = kind.contract_id(wanted.tls);
        let listener = listen(id, wanted.addr()?, kind.setting(), options)?;
        all.push(Socket {
            listener,
            tls: tls.clone().filter(|_| wanted.tls),
        });
    }
    Ok(Sockets { kind, all, access })
}

/// A running API.
pub(crate) struct Server(JoinSet<()>);

impl Server {
    /// Waits until it has stopped.
    pub(crate) async fn finish(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// Answers until `stop`.
pub(crate) fn serve(sockets: Sockets, node: &Arc<Node>, stop: &CancellationToken) -> Server {
    let mut tasks = JoinSet::new();
    let Sockets { kind, all, access } = sockets;
    for socket in all {
        let api = Arc::new(Api {
            kind,
            node: node.clone(),
            access: access.clone(),
        });
        tasks.spawn(accept(socket, api, stop.clone()));
    }
    Server(tasks)
}

struct Api {
    kind: Kind,
    node: Arc<Node>,
    access: Option<Access>,
}

async fn accept(socket: Socket, api: Arc<Api>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = socket.listener.accept() => match accepted {
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok((stream, peer)) => {
                    let (api, tls, peer) = (api.clone(), socket.tls.clone(), peer.ip());
                    connections.spawn(async move {
                        match tls {
                            None => answer_all(TokioIo::new(stream), &api, peer).await,
                            Some(tls) => match timeout(TIME_MAX, tls.accept(stream)).await {
                                Ok(Ok(stream)) => {
                                    answer_all(TokioIo::new(stream), &api, peer).await;
                                }
                                Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
                                Err(_) => debug!("TLS handshake timed out"),
                            },
                        }
                    });
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn answer_all<I>(io: I, api: &Api, peer: IpAddr)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(api.answer(request, peer).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIME_MAX)
        .serve_connection(io, service);
    if let Err(error) = connection.await {
        debug!(%error, "connection ended");
    }
}

impl Api {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        let arrived = Instant::now();
        let line = self.access.as_ref().map(|_| {
            let (method, uri, version) = (request.method(), request.uri(), request.version());
            let headers = Fields::from(request.headers());
            (format!("{method} {uri} {version:?}"), headers)
        });
        let mut answer = super::answer(self.kind, &self.node, request).await;
        let options = &self.node.shared.options;
        let headers = answer.headers_mut();
        if options.shown.server {
            headers.insert(http::header::SERVER, options.server.clone());
        }
        if options.shown.admin_latency && self.kind == Kind::Admin {
            let took = HeaderValue::from(arrived.elapsed().as_millis() as u64);
            headers.insert("x-kong-admin-latency", took);
        }
        if let (Some(access), Some((request, headers))) = (&self.access, line) {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = since.map_or(0, |since| since.as_millis() as u64);
            let (mut text, mut time) = (Vec::new(), LocalTime::default());
            let line = Line {
                client: peer.to_canonical(),
                time: time.at(now),
                request: request.as_bytes().into(),
                headers: &headers,
                status: answer.status().as_u16(),
                body_bytes: answer.body().size_hint().exact().unwrap_or(0),
                request_id: "",
            };
            line.write(&mut text, access.format);
            access.sink.write(text);
        }
        answer
    }
}
