//! One link to a data plane, from hello to the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use fastwebsockets::{
    Frame, OpCode, Payload as Bytes, WebSocket, WebSocketError, WebSocketRead, WebSocketWrite,
};
use sallyport_store::{NodeSeen, SyncStatus};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::{
    FromDataPlane, HELLO_SECS_MAX, KongVersion, PluginVersion, SILENCE_SECS_MAX,
    compat::{check_plugins, check_version},
    ping_hash,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::publishers::Published;
use super::trust::{self, now_secs};
use super::{Guest, Links};
use crate::KONG_VERSION;

/// The largest frame a data plane may send: its hello holds its whole kong.conf.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Frames of one data plane that may wait while a payload is being written to it.
const EVENTS_MAX: usize = 8;
/// Older data planes need payloads edited for them, which this build does not do.
const OLDEST: KongVersion = KongVersion::new(3, 7, 0);

/// Who the data plane says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) node_id: Uuid,
    pub(super) hostname: String,
    pub(super) version: String,
}

/// Why a link ended.
#[derive(Debug)]
pub(super) enum End {
    /// The control plane stops, or was deleted.
    Stopping,
    /// The data plane closed it.
    ByNode(String),
    /// It broke the protocol.
    Protocol(String),
    /// Nothing was heard for too long.
    Silent,
    /// It did not take a frame in time.
    Stuck,
    /// It may not be here any more.
    Distrusted(String),
    /// Its version does not fit.
    Version(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Stopping => f.write_str("the control plane stops serving it"),
            End::ByNode(how) => write!(f, "ended by the data plane: {how}"),
            End::Protocol(what) => write!(f, "the data plane broke the protocol: {what}"),
            End::Silent => write!(f, "nothing heard for {SILENCE_SECS_MAX} s"),
            End::Stuck => write!(f, "a frame was not taken within {SILENCE_SECS_MAX} s"),
            End::Distrusted(why) => write!(f, "it may not stay connected: {why}"),
            End::Version(why) => write!(f, "incompatible version: {why}"),
        }
    }
}

/// A frame of the data plane, or why there are no more.
type Event = Result<(OpCode, Vec<u8>), End>;

/// Runs the link until it ends.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(
    links: &Links,
    guest: Guest,
    caller: Caller,
    socket: WebSocket<S>,
    stop: CancellationToken,
) -> End {
    let (mut read, mut write) = socket.split(tokio::io::split);
    read.set_auto_close(false);
    read.set_auto_pong(false);
    read.set_max_message_size(FRAME_BYTES_MAX);
    write.set_auto_apply_mask(false);
    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let mut link = Link {
        links,
        write,
        hash: ConfigHash::ZERO,
        sent: None,
        plugins: Vec::new(),
        labels: BTreeMap::new(),
        status: SyncStatus::Unknown,
        detail: String::new(),
        guest,
        caller,
    };
    // Reading a frame must not be cut short, so it has a future of its own in this task.
    let end = tokio::select! {
        end = link.serve(inbox, &stop) => end,
        () = listen(read, events) => End::ByNode("connection lost".to_owned()),
    };
    link.say_goodbye(&end).await;
    end
}

/// Passes frames on until the stream ends; then waits for the link to notice.
async fn listen<R: AsyncRead + Unpin>(mut read: WebSocketRead<R>, events: mpsc::Sender<Event>) {
    // Neither pongs nor closes are automatic, so the reader has nothing to send.
    let mut send = async |_: Frame<'_>| Ok::<(), std::io::Error>(());
    loop {
        let event = match read.read_frame(&mut send).await {
            Ok(frame) if !frame.fin => Err(End::Protocol("a fragmented frame".to_owned())),
            Ok(frame) => Ok((frame.opcode, Vec::from(&*frame.payload))),
            Err(error @ (WebSocketError::IoError(_) | WebSocketError::UnexpectedEOF)) => {
                Err(End::ByNode(error.to_string()))
            }
            Err(error) => Err(End::Protocol(error.to_string())),
        };
        let ended = event.is_err();
        if events.send(event).await.is_err() {
            return;
        }
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

struct Link<'a, W> {
    links: &'a Links,
    guest: Guest,
    caller: Caller,
    write: WebSocketWrite<W>,
    /// What the data plane runs on.
    hash: ConfigHash,
    /// What was sent last.
    sent: Option<ConfigHash>,
    /// What the data plane has.
    plugins: Vec<PluginVersion>,
    labels: BTreeMap<String, String>,
    status: SyncStatus,
    detail: String,
}

impl<W: AsyncWrite + Unpin> Link<'_, W> {
    async fn serve(&mut self, mut inbox: mpsc::Receiver<Event>, stop: &CancellationToken) -> End {
        let hello = timeout(Duration::from_secs(HELLO_SECS_MAX), inbox.recv());
        let hello = tokio::select! {
            () = stop.cancelled() => return End::Stopping,
            hello = hello => hello,
        };
        let hello = match hello {
            Ok(Some(event)) => event,
            Ok(None) => return End::ByNode("connection lost".to_owned()),
            Err(_) => {
                return End::Protocol(format!("no basic_info within {HELLO_SECS_MAX} s"));
            }
        };
        if let Err(end) = self.greet(hello).await {
            return end;
        }
        let cp = self.guest.control_plane.id;
        let Some(mut published) = self.links.publishers.subscribe(cp).await else {
            return End::Stopping;
        };
        let mut trust = published.borrow().trust;
        published.mark_changed();
        let silence = Duration::from_secs(SILENCE_SECS_MAX);
        let mut deadline = Instant::now() + silence;
        loop {
            let step = tokio::select! {
                () = stop.cancelled() => Err(End::Stopping),
                () = sleep_until(deadline) => Err(End::Silent),
                event = inbox.recv() => {
                    deadline = Instant::now() + silence;
                    match event {
                        Some(event) => self.hear(event).await,
                        None => Err(End::ByNode("connection lost".to_owned())),
                    }
                }
                changed = published.changed() => match changed {
                    Ok(()) => self.publish(&mut published, &mut trust).await,
                    Err(_) => Err(End::Stopping),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// The first frame must be a `basic_info`, of a version that is served.
    async fn greet(&mut self, event: Event) -> Result<(), End> {
        let frame = match event {
            Ok((OpCode::Binary, frame)) => frame,
            Ok((OpCode::Close, _)) => return Err(End::ByNode("closed".to_owned())),
            Ok(_) => {
                return Err(End::Protocol(
                    "the first frame is not basic_info".to_owned(),
                ));
            }
            Err(end) => return Err(end),
        };
        match FromDataPlane::decode(&frame) {
            Ok(FromDataPlane::BasicInfo(info)) => {
                self.plugins = info.plugins;
                self.labels = info.labels;
            }
            Ok(_) => {
                return Err(End::Protocol(
                    "the first frame is not basic_info".to_owned(),
                ));
            }
            Err(error) => return Err(End::Protocol(error.to_string())),
        }
        if let Err(why) = served(&self.caller.version) {
            self.status = SyncStatus::KongVersionIncompatible;
            self.detail.clone_from(&why);
            self.record().await;
            return Err(End::Version(why));
        }
        self.record().await;
        Ok(())
    }

    /// A frame after the first.
    async fn hear(&mut self, event: Event) -> Result<(), End> {
        match event {
            Ok((OpCode::Ping, payload)) => {
                self.hash = ping_hash(&payload).map_err(|e| End::Protocol(e.to_string()))?;
                if now_secs() > self.guest.cert_expires_at {
                    let expired = trust::Refusal::Expired(self.guest.cert_expires_at);
                    return Err(End::Distrusted(expired.to_string()));
                }
                self.send(OpCode::Pong, &[]).await?;
                self.record().await;
                Ok(())
            }
            Ok((OpCode::Binary, frame)) => match FromDataPlane::decode(&frame) {
                Ok(FromDataPlane::Error(report)) => {
                    let node = self.caller.node_id;
                    let (name, message) = (&report.name, &report.message);
                    warn!(%node, name, message, "a data plane refused the configuration");
                    self.detail = format!("{name}: {message}");
                    self.record().await;
                    Ok(())
                }
                Ok(_) => Ok(()),
                Err(error) => Err(End::Protocol(error.to_string())),
            },
            Ok((OpCode::Close, payload)) => {
                let code = payload
                    .first_chunk::<2>()
                    .map(|code| u16::from_be_bytes(*code));
                Err(End::ByNode(code.map_or("closed".to_owned(), |code| {
                    format!("closed, {code}")
                })))
            }
            Ok((OpCode::Pong, _)) => Ok(()),
            Ok((OpCode::Text | OpCode::Continuation, _)) => {
                Err(End::Protocol("a frame that is not binary".to_owned()))
            }
            Err(end) => Err(end),
        }
    }

    /// Something new from the publisher: trust, a payload, or both.
    async fn publish(
        &mut self,
        published: &mut watch::Receiver<Published>,
        trust: &mut u64,
    ) -> Result<(), End> {
        let Published {
            payload,
            trust: now,
        } = published.borrow_and_update().clone();
        if std::mem::replace(trust, now) != now {
            let checked = trust::check(&self.links.store, &self.guest).await;
            checked.map_err(|refusal| End::Distrusted(refusal.to_string()))?;
        }
        let Some(payload) = payload else {
            return Ok(());
        };
        if self.sent == Some(payload.hash) {
            return Ok(());
        }
        let problems = check_plugins(&payload.plugins, &self.plugins);
        let (status, detail) = match problems.first() {
            None => (SyncStatus::Normal, String::new()),
            Some(first) => {
                let status = SyncStatus::from_name(first.sync_status().as_str());
                let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
                (status, all.join("; "))
            }
        };
        let changed = (self.status, &self.detail) != (status, &detail);
        (self.status, self.detail) = (status, detail);
        let (node, revision) = (self.caller.node_id, payload.revision);
        if self.status == SyncStatus::Normal {
            self.send(OpCode::Binary, &payload.frame).await?;
            self.sent = Some(payload.hash);
            info!(%node, revision, bytes = payload.frame.len(), "configuration sent");
        } else if changed {
            warn!(%node, revision, reason = self.detail, "configuration withheld");
        }
        if changed {
            self.record().await;
        }
        Ok(())
    }

    async fn send(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), End> {
        let frame = Frame::new(true, opcode, None, Bytes::Borrowed(payload));
        let sent = async {
            self.write.write_frame(frame).await?;
            self.write.flush().await
        };
        match timeout(Duration::from_secs(SILENCE_SECS_MAX), sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::ByNode(error.to_string())),
            Err(_) => Err(End::Stuck),
        }
    }

    /// A close frame, unless the data plane is past hearing it.
    async fn say_goodbye(&mut self, end: &End) {
        let (code, text): (u16, &str) = match end {
            End::Stopping => (1001, "control plane stopping"),
            End::Protocol(_) => (1002, "protocol error"),
            End::Distrusted(_) | End::Version(_) => (1008, "not accepted"),
            End::ByNode(_) | End::Silent | End::Stuck => return,
        };
        let bye = self.write.write_frame(Frame::close(code, text.as_bytes()));
        // The link ends whether or not this arrives.
        let _ = timeout(Duration::from_secs(HELLO_SECS_MAX), bye).await;
    }

    async fn record(&mut self) {
        let seen = NodeSeen {
            control_plane: self.guest.control_plane.id,
            id: self.caller.node_id,
            hostname: self.caller.hostname.clone(),
            version: self.caller.version.clone(),
            ip: self.guest.ip.to_string(),
            labels: self.labels.clone(),
            at: now_secs(),
            config_hash: self.hash.to_string(),
            sync_status: self.status,
            sync_detail: self.detail.clone(),
            cert_expires_at: self.guest.cert_expires_at,
        };
        self.links.recorder.seen(seen).await;
    }
}

/// Whether data planes of this version are served; the error says why not.
fn served(version: &str) -> Result<(), String> {
    let own: KongVersion = KONG_VERSION.parse().expect("the version is a constant");
    let node = check_version(own, version).map_err(|problem| problem.to_string())?;
    if node < OLDEST {
        return Err(format!(
            "data plane {node} is older than {OLDEST}, the oldest this build serves"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
