//! `telemetry`: what data planes report about requests.
//!
//! This build takes the connection, so that data planes which report do not fill their logs with
//! errors, and counts what arrives; it keeps nothing.

use std::time::Duration;

use fastwebsockets::{Frame, OpCode, Payload, WebSocket};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sallyport_wire::config_sync::SILENCE_SECS_MAX;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use crate::config_sync::{Guest, Links};

/// Path of the endpoint.
pub(crate) const REQLOG_PATH: &str = "/v1/analytics/reqlog";

/// The largest frame: a batch of requests of one second.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Counts frames until the data plane ends the link, is silent, or `stop`.
pub(crate) async fn discard(
    _links: &Links,
    guest: Guest,
    node: Uuid,
    mut socket: WebSocket<TokioIo<Upgraded>>,
    stop: CancellationToken,
) {
    socket.set_auto_close(true);
    socket.set_auto_pong(false);
    socket.set_max_message_size(FRAME_BYTES_MAX);
    let (mut frames, mut bytes) = (0_u64, 0_u64);
    let silence = Duration::from_secs(SILENCE_SECS_MAX);
    loop {
        let frame = tokio::select! {
            () = stop.cancelled() => break,
            frame = timeout(silence, socket.read_frame()) => frame,
        };
        let Ok(Ok(frame)) = frame else { break };
        match frame.opcode {
            OpCode::Close => break,
            OpCode::Ping => {
                let pong = Frame::pong(Payload::Borrowed(&[]));
                if socket.write_frame(pong).await.is_err() {
                    break;
                }
            }
            OpCode::Binary | OpCode::Text | OpCode::Continuation => {
                frames += 1;
                bytes += frame.payload.len() as u64;
            }
            OpCode::Pong => {}
        }
    }
    let control_plane = guest.control_plane.name;
    info!(%node, control_plane, frames, bytes, "telemetry of a data plane ended; nothing is kept");
}
