//! Lines of the gateway's own log, for a plugin that sends them on.
//!
//! The log is one for the whole process, so these lines are too. They wait until the log phase of a
//! request comes by: of the request that they tell of, or of any if they tell of none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Lines that wait; later ones are dropped. Source: `MAX_WORKER_LOGS` of Kong.
const WAITING_MAX: usize = 1_000;
/// How long a line waits for the log phase of its own request.
const OWN_NS: u64 = 10_000_000_000;

/// How bad it is. Source: `SeverityNumber` of OTLP, as Kong maps nginx's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of nginx's levels")]
pub enum Severity {
    Debug = 5,
    Info = 9,
    Notice = 11,
    Warn = 13,
    Error = 17,
}

impl Severity {
    /// The level's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Debug => "DEBUG",
            Severity::Info => "INFO",
            Severity::Notice => "NOTICE",
            Severity::Warn => "WARN",
            Severity::Error => "ERR",
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What it says.
    pub message: String,
    /// Its fields.
    pub fields: Vec<(&'static str, String)>,
    /// The request that it tells of.
    pub request_id: Option<String>,
}

/// Lines that wait to be sent.
#[derive(Debug, Default)]
pub struct LogLines {
    wanted: AtomicBool,
    waiting: Mutex<VecDeque<LogLine>>,
}

impl LogLines {
    /// Those of this process.
    pub fn of_process() -> &'static Arc<LogLines> {
        static LINES: OnceLock<Arc<LogLines>> = OnceLock::new();
        LINES.get_or_init(Arc::default)
    }

    /// Whether somebody sends them; nothing is kept otherwise.
    pub fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Keeps lines from here on.
    pub(crate) fn want(&self) {
        if !self.are_wanted() {
            self.wanted.store(true, Ordering::Relaxed);
        }
    }

    /// One more line.
    pub fn add(&self, line: LogLine) {
        let mut waiting = self.waiting();
        if waiting.len() < WAITING_MAX {
            waiting.push_back(line);
        }
    }

    /// Takes the lines of a request, and those of none; after a while also those of others.
    pub(crate) fn take(&self, request_id: &str, now_ns: u64) -> Vec<LogLine> {
        let mut waiting = self.waiting();
        let mut taken = Vec::new();
        waiting.retain(|line| {
            let is_mine = line.request_id.as_deref().is_none_or(|id| id == request_id);
            let is_left = line.time_ns.saturating_add(OWN_NS) <= now_ns;
            if is_mine || is_left {
                taken.push(line.clone());
            }
            !(is_mine || is_left)
        });
        taken
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<LogLine>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_waits_for_its_own_request() {
        let lines = LogLines::default();
        for (time_ns, id) in [(1, None), (2, Some("a")), (3, Some("b"))] {
            lines.add(LogLine {
                time_ns,
                severity: Severity::Warn,
                message: "m".to_owned(),
                fields: Vec::new(),
                request_id: id.map(str::to_owned),
            });
        }
        let times = |id, now_ns| -> Vec<u64> {
            let taken = lines.take(id, now_ns);
            taken.iter().map(|line| line.time_ns).collect()
        };
        assert_eq!(times("a", 10), [1, 2]);
        assert!(times("c", 10).is_empty());
        assert_eq!(times("c", OWN_NS + 3), [3], "its own never came");
    }

    #[test]
    fn what_does_not_fit_is_dropped() {
        let lines = LogLines::default();
        for time_ns in 0..WAITING_MAX as u64 + 5 {
            lines.add(LogLine {
                time_ns,
                severity: Severity::Info,
                message: String::new(),
                fields: Vec::new(),
                request_id: None,
            });
        }
        let taken = lines.take("", 0);
        assert_eq!((taken.len(), taken[0].time_ns), (WAITING_MAX, 0));
    }
}
