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
use sallyport_wire::config_sync::delta::{HelloAnswer, OWN, SYNC};
use sallyport_wire::config_sync::error_report::{TAKES_ERRORS, TAKES_HEADER};
use sallyport_wire::config_sync::rpc::{self, Message, RpcError};
use serde_json::Value;
use tokio::io::{AsyncRead, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::ClientSettings;
use super::down::Down;
use super::link::{Frame, Outgoing};
use super::settings::{SyncProtocol, Through};
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
    /// On protocol v1.
    Connected {
        /// Whether reports of what is refused are wanted there.
        takes_errors: bool,
    },
    /// On protocol v2.
    ConnectedRpc {
        own: bool,
    },
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
    if settings.protocol == SyncProtocol::Auto {
        match Box::pin(open(settings, Protocol::Rpc)).await {
            Ok((upgraded, _)) => {
                let (mut reader, mut writer) = halves(upgraded, settings, activity.clone());
                match greet(settings, &mut reader, &mut writer).await {
                    Ok(answer) if answer.has(SYNC) => {
                        let own = answer.has(OWN);
                        if !tell(FromControlPlane::ConnectedRpc { own }).await {
                            return Down::HungUp;
                        }
                        return exchange(settings, Protocol::Rpc, (reader, writer), outgoing, tell)
                            .await;
                    }
                    Ok(_) => debug!("the control plane sends no changes, taking protocol v1"),
                    Err(down) => debug!(%down, "no hello on protocol v2, taking protocol v1"),
                }
                // Whether the goodbye arrives makes no difference any more.
                let _ = timeout(CLOSE_MAX, write(&mut writer, goodbye())).await;
            }
            // there is somebody, who does not know that path
            Err(down @ (Down::Status { .. } | Down::Upgrade(_))) => {
                debug!(%down, "protocol v2 is not spoken there, taking protocol v1");
            }
            Err(down) => return down,
        }
    }
    let (upgraded, takes_errors) = match Box::pin(open(settings, Protocol::Whole)).await {
        Ok(opened) => opened,
        Err(down) => return down,
    };
    let halves = halves(upgraded, settings, activity);
    if !tell(FromControlPlane::Connected { takes_errors }).await {
        return Down::HungUp;
    }
    exchange(settings, Protocol::Whole, halves, outgoing, tell).await
}

/// What is spoken on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// v1.
    Whole,
    /// v2.
    Rpc,
}

fn halves(upgraded: Upgraded, settings: &ClientSettings, activity: Activity) -> (Reader, Writer) {
    let (read, write) = split(TokioIo::new(upgraded));
    let watched = Watched {
        inner: read,
        activity,
    };
    let (mut reader, writer) = after_handshake_split(watched, write, Role::Client);
    // Kong's control plane drops a link on which a data plane answers anything.
    reader.set_auto_pong(false);
    reader.set_auto_close(false);
    reader.set_max_message_size(settings.payload_bytes_max.saturating_add(1));
    (reader, writer)
}

/// The hellos of protocol v2.
async fn greet(
    settings: &ClientSettings,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<HelloAnswer, Down> {
    let socket = |error| Down::socket(error, &settings.tls_name, settings.payload_bytes_max);
    let hello = WsFrame::binary(Payload::Owned(settings.rpc_hello.encode()));
    let greeted = async {
        write(writer, hello).await.map_err(socket)?;
        let mut send = |_: WsFrame<'_>| async { Ok::<(), WebSocketError>(()) };
        let frame = reader.read_frame(&mut send).await.map_err(socket)?;
        match frame.opcode {
            OpCode::Binary if frame.fin => HelloAnswer::decode(&frame.payload).map_err(Down::Lost),
            OpCode::Close => Err(closed(&frame.payload)),
            _ => Err(Down::Lost("no answer to the hello".to_owned())),
        }
    };
    limited("the hello", greeted).await
}

async fn exchange<F: Future<Output = bool>>(
    settings: &ClientSettings,
    protocol: Protocol,
    (reader, writer): (Reader, Writer),
    outgoing: mpsc::Receiver<Outgoing>,
    tell: impl Fn(FromControlPlane) -> F,
) -> Down {
    // Neither side is restarted, so neither can lose a frame in the middle.
    tokio::select! {
        down = read_all(settings, protocol, reader, &tell) => down,
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

/// The WebSocket, and whether reports of what is refused are wanted on it.
async fn open(settings: &ClientSettings, protocol: Protocol) -> Result<(Upgraded, bool), Down> {
    let tls = reach("config_sync", settings.place()).await?;
    limited("opening the link", upgrade(settings, protocol, tls)).await
}

/// A far end of the control plane, and how it is reached.
#[derive(Clone)]
pub(crate) struct Place<'a> {
    pub(crate) at: &'a ControlPlaneAddr,
    /// Through what; `None` for directly.
    pub(crate) proxy: Option<&'a Through>,
    pub(crate) tls_name: &'a str,
    pub(crate) tls: Arc<ClientConfig>,
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
        connect(place.tls, place.tls_name, stream)
            .await
            .map_err(|failure| Down::tls(failure, place.tls_name))
    };
    limited("TLS handshake", handshake).await
}

/// Asks for the WebSocket. The answer's `Sec-WebSocket-Accept` is not checked: it guards against
/// caches in between, and there is none inside mutual TLS. Kong's data planes do the same.
async fn upgrade(
    settings: &ClientSettings,
    protocol: Protocol,
    tls: TlsStream<Way>,
) -> Result<(Upgraded, bool), Down> {
    let peer = settings.tls_name.as_str();
    let mut nonce = [0_u8; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| Down::Upgrade(format!("this machine has no randomness: {error}")))?;
    let path = match protocol {
        Protocol::Whole => settings.query.path_and_query(),
        Protocol::Rpc => rpc::OUTLET_PATH.to_owned(),
    };
    let mut request = Request::get(path)
        .header(header::HOST, settings.control_plane.to_string())
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, STANDARD.encode(nonce));
    if protocol == Protocol::Rpc {
        request = request.header(header::SEC_WEBSOCKET_PROTOCOL, rpc::SUBPROTOCOL);
    }
    let request = request
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
        let agreed = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
        if protocol == Protocol::Rpc && agreed.is_none_or(|it| it != rpc::SUBPROTOCOL) {
            return Err(Down::Upgrade(
                "another subprotocol was agreed on".to_owned(),
            ));
        }
        let takes = response.headers().get(TAKES_HEADER);
        let takes_errors = takes.is_some_and(|takes| takes == TAKES_ERRORS);
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded = upgraded.map_err(|error| Down::upgrade(&error, peer))?;
        Ok((upgraded, takes_errors))
    };
    let (connection, exchange) = tokio::join!(connection.with_upgrades(), exchange);
    match (exchange, connection) {
        (Ok(opened), _) => Ok(opened),
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
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    let told = told["message"].as_str().map(str::as_bytes);
    let told = told.unwrap_or(&body);
    let shown = &told[..told.len().min(REFUSAL_BYTES_MAX)];
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
    protocol: Protocol,
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
            OpCode::Binary if frame.fin && protocol == Protocol::Rpc => {
                let bytes_max = settings.expanded_bytes_max();
                match messages(Vec::from(&*frame.payload), bytes_max).await {
                    Ok(messages) => Frame::Rpc(messages),
                    Err(problem) => {
                        return Down::Lost(format!("the control plane sent rubbish: {problem}"));
                    }
                }
            }
            OpCode::Ping if protocol == Protocol::Rpc => Frame::Ping,
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

/// What is in a frame of protocol v2.
async fn messages(
    frame: Vec<u8>,
    bytes_max: usize,
) -> Result<Vec<Result<Message, RpcError>>, RpcError> {
    match frame.len() > super::LARGE_BYTES {
        false => rpc::decode(&frame, bytes_max),
        true => tokio::task::spawn_blocking(move || rpc::decode(&frame, bytes_max))
            .await
            .unwrap_or_else(|panic| Err(RpcError::Json(panic.to_string()))),
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
            Outgoing::Rpc(text) => WsFrame::binary(Payload::Owned(rpc::compress(&text))),
            Outgoing::Error(report) => WsFrame::binary(Payload::Owned(report.encode())),
            Outgoing::Pong => WsFrame::pong(Payload::Borrowed(&[])),
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
    let _ = timeout(CLOSE_MAX, write(&mut writer, goodbye())).await;
    Down::HungUp
}

/// A close without a code: Kong's control plane takes any code for an error, and logs it.
fn goodbye() -> WsFrame<'static> {
    WsFrame::close_raw(Payload::Borrowed(&[]))
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
