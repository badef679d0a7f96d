//! One link to a data plane, from hello to the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use fastwebsockets::{
    Frame, OpCode, Payload as Bytes, WebSocket, WebSocketError, WebSocketRead, WebSocketWrite,
};
use sallyport_store::{NodeSeen, SyncStatus};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::Refused;
use sallyport_wire::config_sync::edits::{KNOWS, KNOWS_GROUPS, Make, class};
use sallyport_wire::config_sync::error_report::ENTITIES_REFUSED;
use sallyport_wire::config_sync::{
    ErrorReport, FromDataPlane, HELLO_SECS_MAX, KongVersion, PluginVersion, SILENCE_SECS_MAX,
    compat::{check_plugins, check_version},
    ping_hash,
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::publishers::{Payloads, Published, Subscription, blocking};
use super::recorder::Contacts;
use super::trust::{self, now_secs};
use super::{Guest, Links};
use crate::KONG_VERSION;

/// The largest frame a data plane may send: its hello holds its whole kong.conf.
pub(super) const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Frames of one data plane that may wait while a payload is being written to it.
pub(super) const EVENTS_MAX: usize = 8;
/// For those before it nothing is known of what they must not be sent.
const OLDEST: KongVersion = KongVersion::new(3, 0, 0);

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
pub(super) type Event = Result<(OpCode, Vec<u8>), End>;

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
        contacts: links.recorder.link(),
        write,
        published: None,
        hash: ConfigHash::ZERO,
        sent: None,
        plugins: Vec::new(),
        labels: BTreeMap::new(),
        status: SyncStatus::Unknown,
        detail: String::new(),
        class: 0,
        make: Make::Kong { expressions: false },
        noted: Vec::new(),
        refusal: None,
        guest,
        caller,
    };
    // Reading a frame must not be cut short, so it has a future of its own in this task.
    let end = tokio::select! {
        end = link.serve(inbox, &stop) => end,
        () = listen(read, events) => End::ByNode("connection lost".to_owned()),
    };
    say_goodbye(&mut link.write, &end).await;
    end
}

/// Passes frames on until the stream ends; then waits for the link to notice.
pub(super) async fn listen<R: AsyncRead + Unpin>(
    mut read: WebSocketRead<R>,
    events: mpsc::Sender<Event>,
) {
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
    contacts: Contacts,
    guest: Guest,
    caller: Caller,
    write: WebSocketWrite<W>,
    /// Where the control plane stands; `None` before the hello.
    published: Option<watch::Receiver<Published>>,
    /// What the data plane runs on.
    hash: ConfigHash,
    /// What was sent last.
    sent: Option<ConfigHash>,
    /// What the data plane has.
    plugins: Vec<PluginVersion>,
    labels: BTreeMap<String, String>,
    status: SyncStatus,
    detail: String,
    /// Which of the edited configurations it gets; 0 is the one as it is.
    class: usize,
    /// What it knows that others do not.
    make: Make,
    /// What it is not sent as it was written.
    noted: Vec<Refused>,
    /// What it refused of what it was sent last, or before.
    refusal: Option<Refusal>,
}

/// What a data plane says that it refused.
struct Refusal {
    /// The hash of what it refused; `None` if it did not say.
    hash: Option<ConfigHash>,
    /// Whether it runs the rest.
    in_part: bool,
    refused: Vec<Refused>,
    detail: String,
}

impl Refusal {
    fn of(report: &ErrorReport) -> Refusal {
        let ErrorReport { name, message, .. } = report;
        let mut refused = report.refused();
        let detail = summary(&refused).unwrap_or_else(|| format!("{name}: {message}"));
        if refused.is_empty() {
            refused.push(Refused {
                message: detail.clone(),
                ..Refused::default()
            });
        }
        Refusal {
            hash: report.config_hash.parse().ok(),
            in_part: *name == ENTITIES_REFUSED,
            refused,
            detail,
        }
    }
}

/// Refused entities in one line; `None` if there are none.
pub(super) fn summary(refused: &[Refused]) -> Option<String> {
    let first = refused.first()?;
    let field = match first.field.is_empty() {
        true => String::new(),
        false => format!(".{}", first.field),
    };
    let (kind, id, message) = (&first.entity_type, &first.entity_id, &first.message);
    let more = match refused.len() {
        1 => String::new(),
        many => format!(" (and {} more)", many - 1),
    };
    let name = match first.entity_name.is_empty() {
        true => String::new(),
        false => format!(" ({})", first.entity_name),
    };
    Some(format!("{kind} {id}{name}{field}: {message}{more}"))
}

impl<W: AsyncWrite + Unpin> Link<'_, W> {
    async fn serve(&mut self, mut inbox: mpsc::Receiver<Event>, stop: &CancellationToken) -> End {
        let hello = first(&mut inbox, "basic_info", stop).await;
        if let Err(end) = self.greet(hello).await {
            return end;
        }
        let cp = self.guest.control_plane.id;
        let Some(subscription) = self.links.publishers.subscribe(cp).await else {
            return End::Stopping;
        };
        let Subscription {
            mut published,
            mut payloads,
            ..
        } = subscription;
        self.published = Some(published.clone());
        let mut trust = published.borrow_and_update().trust;
        payloads.mark_changed();
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
                    Ok(()) => self.trust(&mut published, &mut trust).await,
                    Err(_) => Err(End::Stopping),
                },
                changed = payloads.changed() => match changed {
                    Ok(()) => self.publish(&mut payloads).await,
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
                let known = info.process_conf.get(KNOWS).and_then(Value::as_array);
                let own = known.is_some_and(|it| it.contains(&Value::from(KNOWS_GROUPS)));
                self.make = Make::of(&info.process_conf, own);
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
        match served(&self.caller.version) {
            Ok(version) => self.class = class(version, self.make),
            Err(why) => {
                self.status = SyncStatus::KongVersionIncompatible;
                self.detail.clone_from(&why);
                self.record().await;
                return Err(End::Version(why));
            }
        }
        self.record().await;
        Ok(())
    }

    /// A frame after the first.
    async fn hear(&mut self, event: Event) -> Result<(), End> {
        match event {
            Ok((OpCode::Ping, payload)) => {
                self.hash = ping_hash(&payload).map_err(|e| End::Protocol(e.to_string()))?;
                if self.is_refusal_over() {
                    self.refusal = None;
                }
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
                    self.refusal = Some(Refusal::of(&report));
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

    /// Whether the data plane runs something else than what it refused, all of it.
    fn is_refusal_over(&self) -> bool {
        let Some(refusal) = &self.refusal else {
            return false;
        };
        // nothing but workspaces is acknowledged with zeros
        self.sent == Some(self.hash) || self.hash.is_zero() && refusal.hash != self.sent
    }

    /// Something new from the publisher; if it is trust, the guest is looked at again.
    async fn trust(
        &mut self,
        published: &mut watch::Receiver<Published>,
        trust: &mut u64,
    ) -> Result<(), End> {
        let now = published.borrow_and_update().trust;
        if std::mem::replace(trust, now) != now {
            let checked = trust::check(&self.links.store, &self.guest).await;
            checked.map_err(|refusal| End::Distrusted(refusal.to_string()))?;
        }
        Ok(())
    }

    /// A payload.
    async fn publish(&mut self, payloads: &mut Payloads) -> Result<(), End> {
        let Some(payload) = payloads.borrow_and_update().clone() else {
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
        let edited = match self.class {
            0 => None,
            class => {
                let whole = payload.clone();
                let edited = blocking(move || whole.edited(class)).await;
                Some(edited.map_err(|_| End::Stopping)?)
            }
        };
        let noted = edited.as_ref().map_or(&[][..], |edited| &edited.noted);
        let changed = (self.status, self.detail.as_str(), self.noted.as_slice())
            != (status, detail.as_str(), noted);
        self.noted = noted.to_vec();
        (self.status, self.detail) = (status, detail);
        let (node, revision) = (self.caller.node_id, payload.revision);
        if self.status == SyncStatus::Normal {
            let frame = edited
                .as_ref()
                .map_or(&payload.frame, |edited| &edited.frame);
            self.send(OpCode::Binary, frame).await?;
            self.sent = Some(payload.hash);
            let edits = self.noted.len();
            info!(%node, revision, bytes = frame.len(), edits, "configuration sent");
        } else if changed {
            warn!(%node, revision, reason = self.detail, "configuration withheld");
        }
        if changed {
            self.record().await;
        }
        Ok(())
    }

    async fn send(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), End> {
        send(&mut self.write, opcode, payload).await
    }

    async fn record(&mut self) {
        let refusal = self.refusal.as_ref();
        let refusal = refusal.filter(|_| self.status == SyncStatus::Normal);
        let (status, detail) = match refusal {
            Some(refusal) => (SyncStatus::EntitiesRefused, &refusal.detail),
            None => (self.status, &self.detail),
        };
        // what runs in part has a hash of its own
        let in_part = refusal.filter(|refusal| refusal.in_part);
        let hash = in_part.and_then(|refusal| refusal.hash);
        let refused = refusal.map_or(&self.noted, |refusal| &refusal.refused);
        let seen = NodeSeen {
            control_plane: self.guest.control_plane.id,
            id: self.caller.node_id,
            hostname: self.caller.hostname.clone(),
            version: self.caller.version.clone(),
            ip: self.guest.ip.to_string(),
            labels: self.labels.clone(),
            at: now_secs(),
            config_hash: self.hash.to_string(),
            revision: revision_of(self.published.as_ref(), hash.unwrap_or(self.hash)),
            refused: refused.iter().map(|refused| json!(refused)).collect(),
            sync_status: status,
            sync_detail: detail.clone(),
            cert_expires_at: self.guest.cert_expires_at,
        };
        self.contacts.seen(seen).await;
    }
}

/// The first frame, which has to come soon.
pub(super) async fn first(
    inbox: &mut mpsc::Receiver<Event>,
    what: &str,
    stop: &CancellationToken,
) -> Event {
    let frame = timeout(Duration::from_secs(HELLO_SECS_MAX), inbox.recv());
    let frame = tokio::select! {
        () = stop.cancelled() => return Err(End::Stopping),
        frame = frame => frame,
    };
    match frame {
        Ok(Some(event)) => event,
        Ok(None) => Err(End::ByNode("connection lost".to_owned())),
        Err(_) => Err(End::Protocol(format!(
            "no {what} within {HELLO_SECS_MAX} s"
        ))),
    }
}

/// Writes a frame, within the time that silence may last.
pub(super) async fn send<W: AsyncWrite + Unpin>(
    write: &mut WebSocketWrite<W>,
    opcode: OpCode,
    payload: &[u8],
) -> Result<(), End> {
    let frame = Frame::new(true, opcode, None, Bytes::Borrowed(payload));
    let sent = async {
        write.write_frame(frame).await?;
        write.flush().await
    };
    match timeout(Duration::from_secs(SILENCE_SECS_MAX), sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(End::ByNode(error.to_string())),
        Err(_) => Err(End::Stuck),
    }
}

/// A close frame, unless the data plane is past hearing it.
pub(super) async fn say_goodbye<W: AsyncWrite + Unpin>(write: &mut WebSocketWrite<W>, end: &End) {
    let (code, text): (u16, &str) = match end {
        End::Stopping => (1001, "control plane stopping"),
        End::Protocol(_) => (1002, "protocol error"),
        End::Distrusted(_) => (1008, "certificate not accepted any more"),
        End::Version(_) => (1008, "version not accepted"),
        End::ByNode(_) | End::Silent | End::Stuck => return,
    };
    let bye = write.write_frame(Frame::close(code, text.as_bytes()));
    // The link ends whether or not this arrives.
    let _ = timeout(Duration::from_secs(HELLO_SECS_MAX), bye).await;
}

/// The revision with this hash; 0 if it is not known.
fn revision_of(published: Option<&watch::Receiver<Published>>, hash: ConfigHash) -> u64 {
    let found = published.and_then(|published| {
        let published = published.borrow();
        published.state.as_ref()?.revision_of(hash)
    });
    found.unwrap_or(0)
}

/// Whether data planes of this version are served; the error says why not.
pub(super) fn served(version: &str) -> Result<KongVersion, String> {
    let own: KongVersion = KONG_VERSION.parse().expect("the version is a constant");
    let node = check_version(own, version).map_err(|problem| problem.to_string())?;
    if node < OLDEST {
        return Err(format!(
            "data plane {node} is older than {OLDEST}, the oldest this build serves"
        ));
    }
    Ok(node)
}

#[cfg(test)]
mod tests;
