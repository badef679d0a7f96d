//! Kong's own data planes on protocol v2.
//!
//! They are told that there is a new version, ask for what leads there, and ask again every 30
//! seconds. With each question, and with a notification of the same name once they have changed,
//! they say which version they run.

use std::sync::Arc;

use fastwebsockets::OpCode;
use sallyport_store::SyncStatus;
use sallyport_wire::config_sync::ErrorReport;
use sallyport_wire::config_sync::delta::{
    GET_DELTA, NOTIFY_ERROR, Refused, Report, SyncVersion, asked_version, notify,
};
use sallyport_wire::config_sync::rpc::{Message, code};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::AsyncWrite;
use tracing::{debug, warn};

use super::super::answers::{Answers, failure};
use super::super::payload::Payload;
use super::super::publishers::{Payloads, blocking};
use super::super::session::{End, send, summary};
use super::{Link, Peer, Told};

/// Revisions whose hash is remembered.
const SENT_MAX: usize = 4;

/// The next payload; never for who takes none, `None` when there are no more.
pub(super) async fn changed(payloads: &mut Option<Payloads>) -> Option<Arc<Payload>> {
    let Some(payloads) = payloads else {
        return std::future::pending().await;
    };
    loop {
        payloads.changed().await.ok()?;
        if let Some(payload) = payloads.borrow_and_update().clone() {
            return Some(payload);
        }
    }
}

impl<W: AsyncWrite + Unpin> Link<'_, W> {
    /// There is a new payload.
    pub(super) async fn tell_kong(&mut self, payload: &Payload) -> Result<(), End> {
        let Told::All(told) = self.told else {
            // it is about to ask
            return Ok(());
        };
        let known = self.sent.iter().find(|(revision, _)| *revision == told);
        if payload.revision <= told || known.is_some_and(|(_, hash)| *hash == payload.hash) {
            return Ok(());
        }
        self.told = Told::Newer;
        self.notify(payload.revision).await
    }

    async fn notify(&mut self, revision: u64) -> Result<(), End> {
        self.calls += 1;
        let version = SyncVersion::new(self.plane, revision);
        let frame = notify(self.calls, version).encode();
        send(&mut self.write, OpCode::Binary, &frame).await
    }

    pub(super) async fn kongs_message(
        &mut self,
        message: Message,
        payloads: &mut Payloads,
        answers: &Answers,
    ) -> Result<(), End> {
        match message {
            Message::Call { id, method, params } if method == GET_DELTA => {
                match asked_version(&params) {
                    Ok(version) => self.answer_kong(id, version, payloads, answers).await,
                    Err(problem) => {
                        let refusal = failure(id, code::PARAMS, problem);
                        send(&mut self.write, OpCode::Binary, &refusal).await
                    }
                }
            }
            Message::Notification { method, params } if method == GET_DELTA => {
                if let Ok(version) = asked_version(&params) {
                    self.runs(version).await;
                }
                Ok(())
            }
            Message::Notification { method, params } if method == NOTIFY_ERROR => {
                self.kong_refused(&params).await;
                Ok(())
            }
            Message::Call { id, method, .. } => {
                let text = format!("no method {method:?} here");
                let refusal = failure(id, code::UNKNOWN_METHOD, text);
                send(&mut self.write, OpCode::Binary, &refusal).await
            }
            Message::Failure { message, .. } => {
                debug!(node = ?self.node(), message, "a data plane did not take a notification");
                Ok(())
            }
            Message::Notification { .. } | Message::Answer { .. } => Ok(()),
        }
    }

    async fn answer_kong(
        &mut self,
        id: u64,
        version: SyncVersion,
        payloads: &mut Payloads,
        answers: &Answers,
    ) -> Result<(), End> {
        let payload = match payloads.wait_for(Option::is_some).await {
            Ok(payload) => payload.clone(),
            Err(_) => return Err(End::Stopping),
        };
        let Some(payload) = payload else {
            return Err(End::Stopping);
        };
        let (results, whole, from) = (
            answers.kong.clone(),
            payload.clone(),
            version.revision(self.plane),
        );
        let Peer::Kong(class) = self.peer else {
            return Err(End::Stopping);
        };
        let made = blocking(move || {
            let noted = whole.edited(class).noted.clone();
            (results.get(class, from, &whole), noted)
        });
        let (result, noted) = made.await.map_err(|_| End::Stopping)?;
        if self.calls == 0 && from != Some(payload.revision) {
            // who was told of a version says that it has it, and not only half a minute later
            self.notify(payload.revision).await?;
        }
        let result: Box<RawValue> = (*result).to_owned();
        let frame = Message::Answer { id, result }.encode();
        send(&mut self.write, OpCode::Binary, &frame).await?;
        let (bytes, revision) = (frame.len(), payload.revision);
        debug!(node = ?self.node(), ?from, revision, bytes, "configuration sent");
        if self.sent.iter().all(|(known, _)| *known != revision) {
            self.sent.push((revision, payload.hash));
            if self.sent.len() > SENT_MAX {
                self.sent.remove(0);
            }
        }
        self.noted = noted;
        self.runs(version).await;
        self.told = Told::All(revision);
        // what came while this was made
        payloads.mark_changed();
        Ok(())
    }

    /// It says which version it runs.
    async fn runs(&mut self, version: SyncVersion) {
        let revision = version.revision(self.plane);
        let known = self.sent.iter().find(|(known, _)| Some(*known) == revision);
        let newest = self.sent.last().map(|(newest, _)| *newest);
        let refused = match revision.is_some() && revision == newest {
            // what it has left of an earlier version is no longer asked of it
            true => Vec::new(),
            false => std::mem::take(&mut self.report.refused),
        };
        self.report = Report {
            version,
            config_hash: known.map_or(self.report.config_hash, |(_, hash)| *hash),
            refused,
        };
        self.judge();
        self.record().await;
    }

    fn judge(&mut self) {
        (self.status, self.detail) = match summary(&self.report.refused) {
            None => (SyncStatus::Normal, String::new()),
            Some(detail) => (SyncStatus::EntitiesRefused, detail),
        };
    }

    async fn kong_refused(&mut self, params: &RawValue) {
        let error = match serde_json::from_str::<[Value; 1]>(params.get()) {
            Ok([mut told]) => told["error"].take(),
            Err(problem) => {
                debug!(%problem, "a data plane's error cannot be read");
                return;
            }
        };
        let report = ErrorReport::of(error);
        let mut refused = report.refused();
        if refused.is_empty() {
            refused.push(Refused {
                message: format!("{}: {}", report.name, report.message),
                kept: true,
                ..Refused::default()
            });
        }
        for refused in &mut refused {
            refused
                .message
                .push_str("; the data plane took nothing of this version");
        }
        self.report.refused = refused;
        self.judge();
        warn!(node = ?self.node(), reason = self.detail, "a data plane refused the configuration");
        self.record().await;
    }
}
