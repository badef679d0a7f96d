//! One link of protocol v2, from hello to the end.
//!
//! A data plane of ours gets changes pushed and reports what it made of them. Kong's own of the
//! newest version are told that there is something new, and ask for it ([`kong`]). Older ones are
//! answered with an empty list of capabilities, so that they take protocol v1, where configurations
//! are edited for them.

mod kong;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastwebsockets::{OpCode, WebSocket, WebSocketWrite};
use sallyport_store::{NodeSeen, SyncStatus};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::SILENCE_SECS_MAX;
use sallyport_wire::config_sync::delta::{
    GET_DELTA, Hello, HelloAnswer, OWN, REPORT, Refused, Report, SYNC, SyncVersion, asked_version,
    notify,
};
use sallyport_wire::config_sync::edits::{Make, class};
use sallyport_wire::config_sync::rpc::{ENCODING, Message, code, decode};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::answers::{Answers, failure, yes};
use super::publishers::{Published, Subscription};
use super::recorder::Contacts;
use super::session::{
    Caller, EVENTS_MAX, End, Event, FRAME_BYTES_MAX, first, listen, say_goodbye, send, served,
    summary,
};
use super::state::{State, kong_plane, plane};
use super::trust::{self, now_secs};
use super::{Guest, Links};

/// Runs the link until it ends; who it was with, once that is known.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(
    links: &Links,
    guest: Guest,
    socket: WebSocket<S>,
    stop: CancellationToken,
) -> (Option<Caller>, End) {
    let (mut read, mut write) = socket.split(tokio::io::split);
    read.set_auto_close(false);
    read.set_auto_pong(false);
    read.set_max_message_size(FRAME_BYTES_MAX);
    write.set_auto_apply_mask(false);
    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let mut link = Link {
        links,
        contacts: links.recorder.link(),
        plane: plane(guest.control_plane.id),
        guest,
        write,
        caller: None,
        labels: BTreeMap::new(),
        peer: Peer::Other,
        told: Told::Nothing,
        calls: 0,
        report: Report {
            version: SyncVersion::NONE,
            config_hash: ConfigHash::ZERO,
            refused: Vec::new(),
        },
        status: SyncStatus::Unknown,
        detail: String::new(),
        sent: Vec::new(),
        noted: Vec::new(),
    };
    // Reading a frame must not be cut short, so it has a future of its own in this task.
    let end = tokio::select! {
        end = link.serve(inbox, &stop) => end,
        () = listen(read, events) => End::ByNode("connection lost".to_owned()),
    };
    say_goodbye(&mut link.write, &end).await;
    (link.caller, end)
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// One of ours.
    Own,
    /// One of Kong's, of this class: a version that nothing is edited for.
    Kong(usize),
    /// One that takes protocol v1.
    Other,
}

/// What the data plane knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing yet: it will ask.
    Nothing,
    /// This revision, and all that led there.
    All(u64),
    /// That there is something newer; it will ask.
    Newer,
}

struct Link<'a, W> {
    links: &'a Links,
    contacts: Contacts,
    plane: u64,
    guest: Guest,
    write: WebSocketWrite<W>,
    caller: Option<Caller>,
    labels: BTreeMap<String, String>,
    peer: Peer,
    told: Told,
    /// Calls of ours so far.
    calls: u64,
    report: Report,
    status: SyncStatus,
    detail: String,
    /// The hashes of the last revisions that one of Kong's was sent.
    sent: Vec<(u64, ConfigHash)>,
    /// What it is not sent as it was written.
    noted: Vec<Refused>,
}

impl<W: AsyncWrite + Unpin> Link<'_, W> {
    async fn serve(&mut self, mut inbox: mpsc::Receiver<Event>, stop: &CancellationToken) -> End {
        let hello = first(&mut inbox, "hello", stop).await;
        if let Err(end) = self.greet(hello).await {
            return end;
        }
        let cp = self.guest.control_plane.id;
        let Some(subscription) = self.links.publishers.subscribe(cp).await else {
            return End::Stopping;
        };
        let Subscription {
            mut published,
            payloads,
            answers,
        } = subscription;
        // whole configurations are not built for who takes changes
        drop(payloads);
        let mut trust = published.borrow_and_update().trust;
        let silence = Duration::from_secs(SILENCE_SECS_MAX);
        let mut deadline = Instant::now() + silence;
        loop {
            let step = tokio::select! {
                () = stop.cancelled() => Err(End::Stopping),
                () = sleep_until(deadline) => Err(End::Silent),
                event = inbox.recv() => {
                    deadline = Instant::now() + silence;
                    match event {
                        Some(event) => self.hear(event, &mut published, &answers).await,
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

    async fn greet(&mut self, event: Event) -> Result<(), End> {
        let frame = match event? {
            (OpCode::Binary, frame) => frame,
            (OpCode::Close, _) => return Err(End::ByNode("closed".to_owned())),
            _ => return Err(End::Protocol("the first frame is no hello".to_owned())),
        };
        let (id, hello) = Hello::decode(&frame).map_err(End::Protocol)?;
        let node_id = Uuid::try_parse(&hello.kong_node_id).map_err(|_| {
            End::Protocol(format!("kong_node_id {:?} is no UUID", hello.kong_node_id))
        })?;
        let can = |capability: &str| hello.rpc_capabilities.iter().any(|it| it == capability);
        let (own, sync) = (can(OWN), can(SYNC));
        self.labels = hello.labels;
        let version = hello.kong_version;
        self.caller = Some(Caller {
            node_id,
            hostname: hello.kong_hostname,
            version: version.clone(),
        });
        let served = served(&version);
        if let Err(why) = served {
            self.status = SyncStatus::KongVersionIncompatible;
            self.detail.clone_from(&why);
            self.record().await;
            let refusal = failure(id, code::INVALID_REQUEST, why.clone());
            _ = send(&mut self.write, OpCode::Binary, &refusal).await;
            return Err(End::Version(why));
        }
        let make = Make::of(&hello.kong_conf, own);
        self.peer = match served {
            _ if own => Peer::Own,
            Ok(version) if sync && class(version, Make::Own) == 0 => {
                Peer::Kong(class(version, make))
            }
            _ => Peer::Other,
        };
        if let Peer::Kong(class) = self.peer {
            self.plane = kong_plane(self.guest.control_plane.id, class);
        }
        let capabilities: &[&str] = match self.peer {
            Peer::Own => &[SYNC, OWN],
            Peer::Kong(_) => &[SYNC],
            Peer::Other => &[],
        };
        let answer = HelloAnswer {
            rpc_capabilities: capabilities.iter().map(|it| (*it).to_owned()).collect(),
            rpc_frame_encoding: ENCODING.to_owned(),
        };
        send(&mut self.write, OpCode::Binary, &answer.encode(id)).await?;
        if let (true, Some(caller)) = (self.peer != Peer::Other, &self.caller) {
            let (node, name) = (caller.node_id, &self.guest.control_plane.name);
            info!(%node, hostname = caller.hostname, control_plane = name, protocol = 2, "data plane connected");
            self.record().await;
        }
        Ok(())
    }

    async fn hear(
        &mut self,
        event: Event,
        published: &mut watch::Receiver<Published>,
        answers: &Answers,
    ) -> Result<(), End> {
        let frame = match event? {
            (OpCode::Binary, frame) => frame,
            (OpCode::Ping, _) => {
                if now_secs() > self.guest.cert_expires_at {
                    let expired = trust::Refusal::Expired(self.guest.cert_expires_at);
                    return Err(End::Distrusted(expired.to_string()));
                }
                send(&mut self.write, OpCode::Pong, &[]).await?;
                if self.peer != Peer::Other {
                    self.record().await;
                }
                return Ok(());
            }
            (OpCode::Pong, _) => return Ok(()),
            (OpCode::Close, payload) => {
                let code = payload
                    .first_chunk::<2>()
                    .map(|code| u16::from_be_bytes(*code));
                return Err(End::ByNode(
                    code.map_or("closed".to_owned(), |code| format!("closed, {code}")),
                ));
            }
            (OpCode::Text | OpCode::Continuation, _) => {
                return Err(End::Protocol("a frame that is not binary".to_owned()));
            }
        };
        let messages =
            decode(&frame, FRAME_BYTES_MAX).map_err(|error| End::Protocol(error.to_string()))?;
        for message in messages {
            match message {
                Ok(message) => match self.peer {
                    Peer::Kong(class) => {
                        let feed = (&mut *published, answers);
                        self.kongs_message(class, message, feed).await?;
                    }
                    _ => self.message(message, published, answers).await?,
                },
                Err(error) => {
                    let refusal = Message::Failure {
                        id: None,
                        code: error.code(),
                        message: error.to_string(),
                    };
                    send(&mut self.write, OpCode::Binary, &refusal.encode()).await?;
                }
            }
        }
        Ok(())
    }

    async fn message(
        &mut self,
        message: Message,
        published: &mut watch::Receiver<Published>,
        answers: &Answers,
    ) -> Result<(), End> {
        match message {
            Message::Call { id, method, params }
                if self.peer == Peer::Own && method == GET_DELTA =>
            {
                match asked_version(&params) {
                    Ok(version) => self.answer(id, version, published, answers).await,
                    Err(problem) => {
                        let refusal = failure(id, code::PARAMS, problem);
                        send(&mut self.write, OpCode::Binary, &refusal).await
                    }
                }
            }
            Message::Call { id, method, .. } if method == REPORT => {
                send(&mut self.write, OpCode::Binary, &yes(id)).await
            }
            Message::Call { id, method, .. } => {
                let text = format!("no method {method:?} here");
                let refusal = failure(id, code::UNKNOWN_METHOD, text);
                send(&mut self.write, OpCode::Binary, &refusal).await
            }
            Message::Notification { method, params }
                if self.peer == Peer::Own && method == REPORT =>
            {
                match Report::from_params(&params) {
                    Ok(report) => self.reported(report, published).await,
                    Err(problem) => debug!(problem, "a data plane's report cannot be read"),
                }
                Ok(())
            }
            Message::Notification { .. } | Message::Answer { .. } | Message::Failure { .. } => {
                Ok(())
            }
        }
    }

    /// Answers what leads from a version to the newest one.
    async fn answer(
        &mut self,
        id: u64,
        version: SyncVersion,
        published: &mut watch::Receiver<Published>,
        answers: &Answers,
    ) -> Result<(), End> {
        let state = match published
            .wait_for(|published| published.state.is_some())
            .await
        {
            Ok(published) => published.state.clone(),
            Err(_) => return Err(End::Stopping),
        };
        let Some(state) = state else {
            return Err(End::Stopping);
        };
        // what was just seen must not be taken for news
        published.mark_changed();
        let from = version.revision(self.plane);
        match answers.get(id, from, &state).await {
            Ok(answer) => {
                send(&mut self.write, OpCode::Binary, &answer.frame).await?;
                self.links.publishers.answered.count(answer.is_full);
                let (bytes, revision, is_full) =
                    (answer.frame.len(), answer.revision, answer.is_full);
                debug!(node = ?self.node(), ?from, revision, is_full, bytes, "configuration sent");
                self.told = Told::All(answer.revision);
                Ok(())
            }
            Err(error) => {
                warn!(%error, "could not read the configuration to send");
                let refusal = failure(id, code::INTERNAL, "no database, ask again".to_owned());
                send(&mut self.write, OpCode::Binary, &refusal).await
            }
        }
    }

    /// Something new from the publisher: trust, a state, or both.
    async fn publish(
        &mut self,
        published: &mut watch::Receiver<Published>,
        trust: &mut u64,
    ) -> Result<(), End> {
        let Published { state, trust: now } = published.borrow_and_update().clone();
        if std::mem::replace(trust, now) != now {
            let checked = trust::check(&self.links.store, &self.guest).await;
            checked.map_err(|refusal| End::Distrusted(refusal.to_string()))?;
        }
        match (state, self.told, self.peer) {
            (Some(state), Told::All(revision), Peer::Own) if state.revision != revision => {
                self.push(&state, revision).await
            }
            (Some(state), Told::All(revision), Peer::Kong(_)) => {
                self.tell_kong(&state, revision).await
            }
            // it is about to ask, or does not ask at all
            _ => Ok(()),
        }
    }

    async fn push(&mut self, state: &Arc<State>, told: u64) -> Result<(), End> {
        if state.revision < told {
            // an answer was read from the database before the publisher saw it
            return Ok(());
        }
        if let Some(steps) = state.steps_from(told) {
            for step in steps {
                send(&mut self.write, OpCode::Binary, &step.frame).await?;
                self.told = Told::All(step.to);
            }
            return Ok(());
        }
        self.told = Told::Newer;
        self.calls += 1;
        let version = SyncVersion::new(self.plane, state.revision);
        let frame = notify(self.calls, version).encode();
        send(&mut self.write, OpCode::Binary, &frame).await
    }

    /// What the data plane made of a version.
    async fn reported(&mut self, report: Report, published: &watch::Receiver<Published>) {
        (self.status, self.detail) = match summary(&report.refused) {
            None => (SyncStatus::Normal, String::new()),
            Some(detail) => (SyncStatus::EntitiesRefused, detail),
        };
        let node = self.node();
        if self.status == SyncStatus::EntitiesRefused && report.refused != self.report.refused {
            warn!(?node, reason = self.detail, "a data plane refused entities");
        }
        let known = published
            .borrow()
            .state
            .as_ref()
            .map_or(0, |state| state.revision);
        let revision = report.version.revision(self.plane).unwrap_or(0);
        debug!(?node, revision, known, hash = %report.config_hash, "data plane reports");
        self.report = report;
        self.record().await;
    }

    fn node(&self) -> Option<Uuid> {
        self.caller.as_ref().map(|caller| caller.node_id)
    }

    async fn record(&mut self) {
        let Some(caller) = &self.caller else { return };
        let refused = match self.report.refused.is_empty() {
            true => self.noted.iter(),
            false => self.report.refused.iter(),
        };
        let seen = NodeSeen {
            control_plane: self.guest.control_plane.id,
            id: caller.node_id,
            hostname: caller.hostname.clone(),
            version: caller.version.clone(),
            ip: self.guest.ip.to_string(),
            labels: self.labels.clone(),
            at: now_secs(),
            config_hash: self.report.config_hash.to_string(),
            revision: self.report.version.revision(self.plane).unwrap_or(0),
            refused: refused.map(|refused| json!(refused)).collect(),
            sync_status: self.status,
            sync_detail: self.detail.clone(),
            cert_expires_at: self.guest.cert_expires_at,
        };
        self.contacts.seen(seen).await;
    }
}
