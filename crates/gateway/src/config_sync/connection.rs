//! One connection to the control plane, from the dial to its end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastwebsockets::{
    Frame as WsFrame, OpCode, Payload, Role, WebSocketError, WebSocketRead, WebSocketWrite,
    after_handshake_split,
};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use sallyport_runtime::dial;
use sallyport_runtime::forward_proxy::{Way, dial_through};
use sallyport_runtime::tls::connect;
use sallyport_wire::config_sync::HELLO_SECS_MAX;
use tokio::io::{AsyncRead, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::ClientSettings;
use super::down::Down;
use super::link::{Frame, Outgoing};
use super::settings::Through;
use crate::conf::ControlPlaneAddr;

/// Limit of each step and each write.
const STEP_MAX: Duration = Duration::from_secs(HELLO_SECS_MAX);
/// Limit of the goodbye.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// Bytes of a refusal that are shown.
const REFUSAL_BYTES_MAX: usize = 300;

/// Whether bytes arrived since somebody looked.
pub(super) type Activity = Arc<AtomicBool>;

/// What a connection reports.
pub(super) enum FromControlPlane {
    Connected,
    Frame(Frame),
    /// Always the last word.
    Ended(Down),
}

type Reader = WebSocketRead<Watched<ReadHalf<TokioIo<Upgraded>>>>;
type Writer = WebSocketWrite<WriteHalf<TokioIo<Upgraded>>>;

/// Connects, then writes what comes out of `outgoing` and reports what comes in through `tell`,
/// until either side ends. `tell` gives false when nobody listens any more.
pub(super) async fn run<F: Future<Output = bool>>(
    settings: &ClientSettings,
    outgoing: mpsc::Receiver<Outgoing>,
    activity: Activity,
    tell: impl Fn(FromControlPlane) -> F,
) -> Down {
    let upgraded = match Box::pin(open(settings)).await {
        Ok(upgraded) => upgraded,
        Err(down) => return down,
    };
    let (read, write) = split(TokioIo::new(upgraded));
    let (mut reader, writer) = after_handshake_split(
        Watched {
            inner: read,
            activity,
        },
        write,
        Role::Client,
    );
    // Kong's control plane drops a link on which a data plane answers anything.
    reader.set_auto_pong(false);
    reader.set_auto_close(false);
    reader.set_max_message_size(settings.payload_bytes_max.saturating_add(1));
    if !tell(FromControlPlane::Connected).await {
        return Down::HungUp;
    }
    // Neither side is restarted, so neither can lose a frame in the middle.
    tokio::select! {
        down = read_all(settings, reader, &tell) => down,
        down = write_all(settings, writer, outgoing) => down,
    }
}

async fn limited<T>(
    step: &'static str,
    work: impl Future<Output = Result<T, Down>>,
) -> Result<T, Down> {
    let late = Down::Timeout {
        step,
        limit_secs: STEP_MAX.as_secs(),
    };
    timeout(STEP_MAX, work).await.unwrap_or(Err(late))
}

async fn open(settings: &ClientSettings) -> Result<Upgraded, Down> {
    let tls = reach("config_sync", settings.place()).await?;
    limited("opening the link", upgrade(settings, tls)).await
}

/// A far end of the control plane, and how it is reached.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) at: &'a ControlPlaneAddr,
    /// Through what; `None` for directly.
    pub(crate) proxy: Option<&'a Through>,
    pub(crate) tls_name: &'a str,
    pub(crate) tls: &'a Arc<ClientConfig>,
}

/// Dials, through the forward proxy if there is one, up to the end of the TLS handshake. `id` is
/// the contract's.
pub(crate) async fn reach(id: &'static str, place: Place<'_>) -> Result<TlsStream<Way>, Down> {
    let at = place.at;
    let stream = match place.proxy {
        None => dial(id, &at.host, at.port, STEP_MAX)
            .await
            .map(Way::Plain)
            .map_err(Down::Dial)?,
        Some(Through { server, tls }) => {
            let place = (at.host.as_str(), at.port);
            dial_through(id, server, tls.as_ref(), place, STEP_MAX)
                .await
                .map_err(Down::Proxy)?
        }
    };
    let handshake = async {
        connect(place.tls.clone(), place.tls_name, stream)
            .await
            .map_err(Down::Tls)
    };
    limited("TLS handshake", handshake).await
}

/// Asks for the WebSocket. The answer's `Sec-WebSocket-Accept` is not checked: it guards against
/// caches in between, and there is none inside mutual TLS. Kong's data planes do the same.
async fn upgrade(settings: &ClientSettings, tls: TlsStream<Way>) -> Result<Upgraded, Down> {
    let peer = settings.tls_name.as_str();
    let mut nonce = [0_u8; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| Down::Upgrade(format!("this machine has no randomness: {error}")))?;
    let request = Request::get(settings.query.path_and_query())
        .header(header::HOST, settings.control_plane.to_string())
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, STANDARD.encode(nonce))
        .body(Empty::<Bytes>::new())
        .map_err(|error| Down::Upgrade(error.to_string()))?;
    let (mut sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(tls))
        .await
        .map_err(|error| Down::upgrade(&error, peer))?;
    let exchange = async move {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| Down::upgrade(&error, peer))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response).await);
        }
        hyper::upgrade::on(response)
            .await
            .map_err(|error| Down::upgrade(&error, peer))
    };
    let (connection, exchange) = tokio::join!(connection.with_upgrades(), exchange);
    match (exchange, connection) {
        (Ok(upgraded), _) => Ok(upgraded),
        (Err(refused @ Down::Status { .. }), _) => Err(refused),
        // The connection knows more (a TLS alert) than the request that was cut off.
        (Err(_), Err(error)) => Err(Down::upgrade(&error, peer)),
        (Err(down), Ok(())) => Err(down),
    }
}

async fn refusal(response: Response<Incoming>) -> Down {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), 64 * 1024)
        .collect()
        .await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let shown = &body[..body.len().min(REFUSAL_BYTES_MAX)];
    let body = String::from_utf8_lossy(shown)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>();
    Down::Status {
        status,
        body: body.trim().to_owned(),
    }
}

async fn read_all<F: Future<Output = bool>>(
    settings: &ClientSettings,
    mut reader: Reader,
    tell: impl Fn(FromControlPlane) -> F,
) -> Down {
    let bytes_max = settings.payload_bytes_max;
    loop {
        let frame = reader
            .read_frame(&mut |_| async { Ok::<(), WebSocketError>(()) })
            .await
            .map_err(|error| Down::socket(error, &settings.tls_name, bytes_max));
        let frame = match frame {
            Ok(frame) => frame,
            Err(down) => return down,
        };
        let frame = match frame.opcode {
            OpCode::Binary if frame.fin => Frame::Payload(frame.payload.to_vec()),
            OpCode::Binary | OpCode::Continuation => return Down::Fragmented,
            OpCode::Close => return closed(&frame.payload),
            OpCode::Text | OpCode::Ping | OpCode::Pong => Frame::Other,
        };
        if !tell(frame.into()).await {
            return Down::HungUp;
        }
    }
}

fn closed(payload: &[u8]) -> Down {
    let (code, reason) = match payload {
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        _ => (1005, &[][..]),
    };
    Down::Closed {
        code,
        reason: String::from_utf8_lossy(reason).into_owned(),
    }
}

/// Writes until the sender is dropped, then says goodbye.
async fn write_all(
    settings: &ClientSettings,
    mut writer: Writer,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Down {
    while let Some(outgoing) = outgoing.recv().await {
        let frame = match outgoing {
            Outgoing::Hello => WsFrame::binary(Payload::Owned(settings.hello.encode())),
            Outgoing::Ping(hash) => WsFrame::new(
                true,
                OpCode::Ping,
                None,
                Payload::Owned(hash.as_bytes().to_vec()),
            ),
        };
        let written = limited("writing to the control plane", async {
            write(&mut writer, frame).await.map_err(|error| {
                Down::socket(error, &settings.tls_name, settings.payload_bytes_max)
            })
        });
        if let Err(down) = written.await {
            return down;
        }
    }
    // Whether the goodbye arrives makes no difference any more.
    let _ = timeout(CLOSE_MAX, write(&mut writer, WsFrame::close(1000, b""))).await;
    Down::HungUp
}

async fn write(writer: &mut Writer, frame: WsFrame<'static>) -> Result<(), WebSocketError> {
    writer.write_frame(frame).await?;
    writer.flush().await
}

/// Notes that bytes arrive.
struct Watched<R> {
    inner: R,
    activity: Activity,
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.store(true, Ordering::Relaxed);
        }
        polled
    }
}
