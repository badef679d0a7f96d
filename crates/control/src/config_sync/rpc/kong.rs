//! Kong's own data planes on protocol v2.
//!
//! They are told that there is a new version, ask for what leads there, and ask again every 30
//! seconds. With each question, and with a notification of the same name once they have changed,
//! they say which version they run.

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
use tokio::sync::watch;
use tracing::{debug, warn};

use super::super::answers::{Answers, failure};
use super::super::publishers::Published;
use super::super::session::{End, send, summary};
use super::super::state::State;
use super::{Link, Told};

/// Revisions whose hash is remembered.
const SENT_MAX: usize = 4;

impl<W: AsyncWrite + Unpin> Link<'_, W> {
    /// There is a new state, for who was told of all up to a revision.
    pub(super) async fn tell_kong(&mut self, state: &State, told: u64) -> Result<(), End> {
        let known = self.sent.iter().find(|(revision, _)| *revision == told);
        if state.revision <= told || known.is_some_and(|(_, hash)| *hash == state.hash()) {
            return Ok(());
        }
        self.told = Told::Newer;
        self.notify(state.revision).await
    }

    async fn notify(&mut self, revision: u64) -> Result<(), End> {
        self.calls += 1;
        let version = SyncVersion::new(self.plane, revision);
        let frame = notify(self.calls, version).encode();
        send(&mut self.write, OpCode::Binary, &frame).await
    }

    pub(super) async fn kongs_message(
        &mut self,
        class: usize,
        message: Message,
        (published, answers): (&mut watch::Receiver<Published>, &Answers),
    ) -> Result<(), End> {
        match message {
            Message::Call { id, method, params } if method == GET_DELTA => {
                match asked_version(&params) {
                    Ok(version) => {
                        let state = published.wait_for(|it| it.state.is_some()).await;
                        let state = state.map_err(|_| End::Stopping)?.state.clone();
                        // what was just seen must not be taken for news
                        published.mark_changed();
                        let state = state.ok_or(End::Stopping)?;
                        self.answer_kong(class, (id, version), &state, answers)
                            .await
                    }
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
        class: usize,
        (id, version): (u64, SyncVersion),
        state: &State,
        answers: &Answers,
    ) -> Result<(), End> {
        let from = version.revision(self.plane);
        let answer = match answers.kong.get(class, from, state).await {
            Ok(answer) => answer,
            Err(error) => {
                warn!(%error, "could not read the configuration to send");
                let refusal = failure(id, code::INTERNAL, "no database, ask again".to_owned());
                return send(&mut self.write, OpCode::Binary, &refusal).await;
            }
        };
        let (revision, hash) = (answer.revision, answer.hash);
        if self.calls == 0 && from != Some(revision) {
            // who was told of a version says that it has it, and not only half a minute later
            self.notify(revision).await?;
        }
        let result = answer.result.clone();
        let frame = Message::Answer { id, result }.encode();
        send(&mut self.write, OpCode::Binary, &frame).await?;
        self.links.publishers.answered.count(answer.is_full);
        let (bytes, is_full) = (frame.len(), answer.is_full);
        debug!(node = ?self.node(), ?from, revision, is_full, bytes, "configuration sent");
        if self.sent.iter().all(|(known, _)| *known != revision) {
            self.sent.push((revision, hash));
            if self.sent.len() > SENT_MAX {
                self.sent.remove(0);
            }
        }
        self.noted.clone_from(&answer.noted);
        self.runs(version).await;
        self.told = Told::All(revision);
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
