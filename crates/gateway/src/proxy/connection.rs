//! One client connection, from its first byte to what it speaks.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sallyport_wire::proxy_protocol::Header;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::headers::Client;
use super::listeners::{Bound, Speaks};
use super::options::Options;
use super::stream::Ends;
use super::worker::Worker;
use super::{http1, http2, proxy_header, stream};
use crate::logs::CLIENT_FAULTS;

/// Serves a connection to its end.
///
/// What it speaks is boxed: one task of the size of all of it would hold, for each plain
/// HTTP/1 connection that waits, the room that HTTP/2 with TLS needs.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    bound: &Bound,
    mut stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
    busy: &Cell<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(%error, "connection lost");
    }
    let options = &worker.options;
    let told = match bound.proxy_protocol {
        false => None,
        true => match told(bound, &mut stream, peer, options.client.head).await {
            Ok(told) => told,
            Err(()) => return,
        },
    };
    if bound.speaks == Speaks::Streams {
        let ends = stream_ends(options, bound, &stream, peer, told);
        return Box::pin(stream::tcp::run(worker, stream, ends, bound.tls.as_ref())).await;
    }
    let (ip, address) = (peer.ip(), bound.address);
    let Some(tls) = &bound.tls else {
        let client = Client::new(options, ip, address, false, None)
            .on(&stream, options)
            .for_whom(told);
        return match bound.http2 {
            true => Box::pin(speak_either(worker, client, stream, stop, busy)).await,
            false => Box::pin(http1::server::run(worker, &client, stream, busy)).await,
        };
    };
    match timeout(
        options.client.head,
        TlsAcceptor::from(tls.clone()).accept(stream),
    )
    .await
    {
        Err(_) => debug!("TLS handshake timed out"),
        Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
        Ok(Ok(stream)) => {
            let (tcp, session) = stream.get_ref();
            let h2 = session.alpn_protocol() == Some(b"h2");
            let mut client =
                Client::new(options, ip, address, true, session.server_name()).on(tcp, options);
            client = client.for_whom(told);
            client.session = Some(super::session::session(session));
            match h2 {
                true => Box::pin(http2::run(worker, client, stream, stop)).await,
                false => Box::pin(http1::server::run(worker, &client, stream, busy)).await,
            }
        }
    }
}

/// For whom a load balancer has connected, by the header that has to be there.
async fn told(
    bound: &Bound,
    stream: &mut TcpStream,
    peer: SocketAddr,
    head: Duration,
) -> Result<Option<(SocketAddr, SocketAddr)>, ()> {
    let reason = match timeout(head, proxy_header::take(stream)).await {
        Ok(Ok(Header::Local)) => return Ok(None),
        Ok(Ok(Header::Proxied {
            source,
            destination,
        })) => return Ok(Some((source, destination))),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no PROXY protocol header came in time".to_owned(),
    };
    let address = bound.address;
    info!(target: CLIENT_FAULTS, fault = "client", %reason, client = %peer, listener = %address, "connection closed");
    Err(())
}

/// Where a stream comes from and goes to, as far as the header of a trusted peer says so.
fn stream_ends(
    options: &Options,
    bound: &Bound,
    stream: &TcpStream,
    peer: SocketAddr,
    told: Option<(SocketAddr, SocketAddr)>,
) -> Ends {
    let own = stream.local_addr().unwrap_or(bound.address);
    let believed = told.filter(|_| options.trusts(peer.ip().to_canonical()));
    Ends {
        source: believed.map_or(peer, |(source, _)| source),
        destination: options.outside(own),
    }
}

/// HTTP/1.1, or HTTP/2 with prior knowledge.
async fn speak_either(
    worker: &Rc<Worker>,
    client: Client,
    stream: TcpStream,
    stop: CancellationToken,
    busy: &Cell<bool>,
) {
    busy.set(false); // nothing came yet
    let first = timeout(worker.options.client.head, knows_http2(&stream)).await;
    busy.set(true);
    match first {
        Ok(Some(true)) => Box::pin(http2::run(worker, client, stream, stop)).await,
        Ok(Some(false)) => http1::server::run(worker, &client, stream, busy).await,
        Ok(None) | Err(_) => debug!("connection closed before a request"),
    }
}

/// Whether a connection starts with the HTTP/2 preface; `None` if it ends before that shows.
async fn knows_http2(stream: &TcpStream) -> Option<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
    let mut start = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut start).await {
            Err(_) | Ok(0) => return None,
            Ok(length) if start[..length] != PREFACE[..length] => return Some(false),
            Ok(length) if length == PREFACE.len() => return Some(true),
            // readiness does not tell when more has come than was peeked at
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
