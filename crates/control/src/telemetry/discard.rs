//! Analytics of enterprise gateways, a WebSocket whose frames have no public format.
//!
//! The connection is taken, so that those gateways do not fill their logs with errors, and what
//! arrives is counted and thrown away.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fastwebsockets::{Frame, OpCode, Payload, WebSocket};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sallyport_wire::config_sync::SILENCE_SECS_MAX;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use super::rollup::count;

/// The largest frame: a batch of requests of one second.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Counts frames until the data plane ends the link, is silent, or `stop`.
pub(super) async fn run(
    discarded: &AtomicU64,
    control_plane: &str,
    node: Uuid,
    mut socket: WebSocket<TokioIo<Upgraded>>,
    stop: CancellationToken,
) {
    socket.set_auto_close(true);
    socket.set_auto_pong(false);
    socket.set_max_message_size(FRAME_BYTES_MAX);
    info!(%node, control_plane, "a gateway sends analytics in a form that is not public; they are thrown away");
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
                count(discarded, 1);
                bytes += frame.payload.len() as u64;
            }
            OpCode::Pong => {}
        }
    }
    debug!(%node, control_plane, frames, bytes, "analytics of a gateway ended");
}
