//! Sessions over TCP, with TLS that is ended here, passed through, or none.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::super::worker::{Held, Worker};
use super::hello::{self, HELLO_BYTES_MAX, Hello};
use super::prefixed::Prefixed;
use super::pump::pump;
use super::routes::StreamRoute;
use super::session::{Ends, Refused, Session, Tries, open_tcp};
use crate::balancer::Report;

/// How long a client may take until its route is known. Source: nginx `preread_timeout`.
const PREREAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Passes on what a client has opened, until it is over. With `tls` the client has to speak it.
pub(in crate::proxy) async fn run(
    worker: &Rc<Worker>,
    stream: TcpStream,
    ends: Ends,
    tls: Option<&Arc<ServerConfig>>,
) {
    let mut session = Session::new(worker, ends, false);
    let configuration = session.configuration.clone();
    let served = match tls {
        None => match session.route(&configuration, (false, None)) {
            Ok(route) => forward(&mut session, &configuration, route, stream).await,
            Err(refused) => Err(refused),
        },
        Some(tls) => serve_tls(&mut session, &configuration, stream, tls).await,
    };
    if let Err(refused) = served {
        session.refused(&refused);
    }
}

async fn serve_tls(
    session: &mut Session,
    configuration: &Held,
    mut stream: TcpStream,
    tls: &Arc<ServerConfig>,
) -> Result<(), Refused> {
    let mut start = BytesMut::with_capacity(2048);
    let name = timeout(PREREAD_TIME_MAX, server_name(&mut stream, &mut start)).await;
    let name = name.map_err(|_| Refused::Silent)??;
    let route = session.route(configuration, (true, name.as_deref()))?;
    let stream = Prefixed::new(start, stream);
    if route.passes_through {
        return forward(session, configuration, route, stream).await;
    }
    let accepting = TlsAcceptor::from(tls.clone()).accept(stream);
    let accepted = timeout(session.worker.options.client.head, accepting).await;
    let stream = accepted
        .map_err(|_| Refused::Silent)?
        .map_err(Refused::Handshake)?;
    session.tls = Some(super::super::session::session(stream.get_ref().1));
    forward(session, configuration, route, stream).await
}

/// The name that a client asks for; what was read for it is kept in `start`.
async fn server_name(
    stream: &mut TcpStream,
    start: &mut BytesMut,
) -> Result<Option<String>, Refused> {
    loop {
        match stream.read_buf(start).await {
            Ok(0) if start.is_empty() => return Err(Refused::Gone),
            Ok(0) => return Err(Refused::NotTls),
            Err(_) => return Err(Refused::Gone),
            Ok(_) => {}
        }
        match hello::read(start) {
            Hello::Whole { name } => return Ok(name),
            Hello::Foreign => return Err(Refused::NotTls),
            Hello::Incomplete => start.reserve(HELLO_BYTES_MAX / 8),
        }
    }
}

async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session,
    configuration: &Held,
    route: &StreamRoute,
    mut stream: S,
) -> Result<(), Refused> {
    let service = session.access(configuration, route).await?;
    // what passes through is encrypted already
    let tls = service.tls.as_ref().filter(|_| !route.passes_through);
    let tls = tls.map(|tls| (tls.id, &tls.bytes));
    let open = async |address, host: &[u8]| open_tcp(address, host, tls).await;
    let mut reached = session.reach(service, &mut Tries::default(), open).await?;
    if let Some(watched) = &reached.watched {
        service.peers.report(watched, Report::Connected);
    }
    let counts = (&session.received, &session.sent);
    let ended = pump(&mut stream, &mut reached.to, service.read_timeout, counts).await;
    if let Err(reason) = ended {
        let (client, address) = (session.ends.source, reached.address);
        debug!(%reason, %client, upstream = %address, "stream ended early");
    }
    drop(reached.lease);
    Ok(())
}
