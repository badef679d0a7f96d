//! The rules of order on `/v2/outlet`: what is asked when, and what follows on what comes.

use std::time::{Duration, Instant};

use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{
    NOTIFY, NOTIFY_ERROR, PUSH, Refused, Report, SyncVersion, get_delta,
};
use sallyport_wire::config_sync::rpc::{Message, RpcError, code, raw};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Effect, Outgoing};

/// For an answer with a whole configuration to be made and sent.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// What became of a set of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Synced {
    /// They are in force, perhaps without some entities.
    Done(Report),
    /// The same; they are kept, and told, soon.
    InForce {
        /// The version that runs.
        version: SyncVersion,
        /// The hash of what is served.
        config_hash: ConfigHash,
        /// Whether who asked has to see to that.
        settles: bool,
    },
    /// They do not start from what is there.
    Elsewhere,
    /// They do not lead to what was published; nothing was done.
    Diverged,
    /// They cannot be used; nothing was done.
    Refused(String),
}

/// Changes on their way to be applied.
#[derive(Clone, Debug)]
pub enum Changes {
    /// A result of `get_delta`, asked for from this version.
    Answer {
        /// Where they start, unless they are everything.
        from: SyncVersion,
        /// The result.
        result: Box<RawValue>,
    },
    /// The params of a push.
    Push(Box<RawValue>),
}

impl PartialEq for Changes {
    fn eq(&self, other: &Changes) -> bool {
        let parts = |changes: &Changes| match changes {
            Changes::Answer { from, result } => (Some(*from), result.get().to_owned()),
            Changes::Push(params) => (None, params.get().to_owned()),
        };
        parts(self) == parts(other)
    }
}

/// One connection's state.
#[derive(Debug)]
pub(super) struct Session {
    /// Whether the control plane is one of ours.
    own: bool,
    version: SyncVersion,
    ids: u64,
    asked: Option<Asked>,
    applying: bool,
    /// Whether there is something newer than what is being asked for or applied.
    behind: bool,
    /// Whether everything was asked for since something was last put in force.
    started_over: bool,
    /// The version that the last report named.
    told: Option<SyncVersion>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    id: u64,
    from: SyncVersion,
    until: Instant,
}

impl Session {
    /// A session that begins: asks for what it does not have.
    pub(super) fn begin(
        now: Instant,
        own: bool,
        version: SyncVersion,
        hash: ConfigHash,
    ) -> (Session, Vec<Effect>) {
        let mut session = Session {
            own,
            version,
            ids: 0,
            asked: None,
            applying: false,
            behind: false,
            started_over: false,
            told: None,
        };
        let mut effects = Vec::new();
        if own {
            let report = Report {
                version,
                config_hash: hash,
                refused: Vec::new(),
            };
            effects.push(send(&report.to_message()));
        }
        effects.extend(session.ask(now, version));
        (session, effects)
    }

    /// When an answer is overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.map(|asked| asked.until)
    }

    /// A heartbeat is due. Kong's control plane reads from the question which version this node has
    /// and that it is alive, as its own data planes ask every time; one of ours hears reports.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Effect> {
        match self.own || self.asked.is_some() || self.applying {
            true => Vec::new(),
            false => self.ask(now, self.version),
        }
    }

    fn ask(&mut self, now: Instant, from: SyncVersion) -> Vec<Effect> {
        if self.asked.is_some() || self.applying {
            self.behind = true;
            return Vec::new();
        }
        self.behind = false;
        let id = self.ids;
        self.ids += 1;
        let until = now + ANSWER_MAX;
        self.asked = Some(Asked { id, from, until });
        vec![send(&get_delta(id, from))]
    }

    /// Takes the messages of one frame.
    pub(super) fn received(
        &mut self,
        now: Instant,
        messages: Vec<Result<Message, RpcError>>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        for message in messages {
            match message {
                Ok(message) => effects.extend(self.message(now, message)),
                Err(error) => effects.push(send(&Message::Failure {
                    id: None,
                    code: error.code(),
                    message: error.to_string(),
                })),
            }
        }
        effects
    }

    fn message(&mut self, now: Instant, message: Message) -> Vec<Effect> {
        match message {
            Message::Answer { id, result } => match self.asked.filter(|asked| asked.id == id) {
                Some(Asked { from, .. }) => {
                    self.asked = None;
                    self.applying = true;
                    vec![Effect::ApplyChanges(Changes::Answer { from, result })]
                }
                None => Vec::new(),
            },
            Message::Failure { id, .. } => {
                // asked again at the next notification or connection
                if self.asked.is_some_and(|asked| Some(asked.id) == id) {
                    self.asked = None;
                }
                Vec::new()
            }
            Message::Notification { method, params } if method == PUSH => {
                // what is on its way may not have it yet
                if self.applying || self.asked.is_some() {
                    self.behind = true;
                    return Vec::new();
                }
                self.applying = true;
                vec![Effect::ApplyChanges(Changes::Push(params))]
            }
            Message::Call { id, method, .. } if method == NOTIFY => {
                let result = raw(&true);
                let mut effects = vec![send(&Message::Answer { id, result })];
                effects.extend(self.ask(now, self.version));
                effects
            }
            Message::Notification { method, .. } if method == NOTIFY => self.ask(now, self.version),
            Message::Call { id, method, .. } => vec![send(&Message::Failure {
                id: Some(id),
                code: code::UNKNOWN_METHOD,
                message: format!("no method {method:?} here"),
            })],
            Message::Notification { .. } => Vec::new(),
        }
    }

    /// What was to be applied is done with. `hash` is what is in force in any case.
    pub(super) fn synced(&mut self, now: Instant, synced: Synced, hash: ConfigHash) -> Vec<Effect> {
        self.applying = false;
        let mut effects = Vec::new();
        let again = match synced {
            Synced::Done(report) => {
                let again = self.runs(report.version);
                effects.extend(self.settled(report));
                again
            }
            Synced::InForce { version, .. } => self.runs(version),
            Synced::Elsewhere => Some(self.version),
            Synced::Diverged if !self.started_over => {
                self.started_over = true;
                Some(SyncVersion::NONE)
            }
            Synced::Diverged => {
                // a second time in a row: nothing is won by asking for ever
                effects.extend(self.refusal("what was published has another hash", hash));
                None
            }
            Synced::Refused(problem) => {
                effects.extend(self.refusal(&problem, hash));
                None
            }
        };
        if let Some(from) = again.or(self.behind.then_some(self.version)) {
            effects.extend(self.ask(now, from));
        }
        effects
    }

    /// This version is in force; from where to ask, if that is to be done.
    fn runs(&mut self, version: SyncVersion) -> Option<SyncVersion> {
        self.started_over = false;
        let moved = version != self.version;
        self.version = version;
        // Kong's control plane reads off the question what this node has
        (self.behind || moved && !self.own).then_some(version)
    }

    /// What is in force is kept. A report that another has overtaken is not told.
    pub(super) fn settled(&mut self, report: Report) -> Vec<Effect> {
        let is_late = self
            .told
            .is_some_and(|told| report.version.is_before(&told));
        if !self.own || is_late && report.version != self.version {
            return Vec::new();
        }
        self.told = Some(report.version);
        vec![send(&report.to_message())]
    }

    fn refusal(&self, problem: &str, config_hash: ConfigHash) -> Vec<Effect> {
        if !self.own {
            let error = json!({"name": "sync deltas parse failure", "message": problem});
            let params = raw(&json!([{"version": self.version, "error": error}]));
            let method = NOTIFY_ERROR.to_owned();
            return vec![send(&Message::Notification { method, params })];
        }
        let report = Report {
            version: self.version,
            config_hash,
            refused: vec![Refused {
                message: problem.to_owned(),
                ..Refused::default()
            }],
        };
        vec![send(&report.to_message())]
    }
}

fn send(message: &Message) -> Effect {
    Effect::Send(Outgoing::Rpc(message.to_json()))
}
