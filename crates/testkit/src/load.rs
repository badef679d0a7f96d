//! Steady requests in the background while something else happens.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Deadline, eventually, http};

/// How many failures a report spells out; all are counted.
const FAILURES_KEPT: usize = 10;

/// A background requester: one thread, one request at a time, at a steady pace.
///
/// ```no_run
/// use std::time::Duration;
/// use sallyport_testkit::{Deadline, Load, http};
///
/// let load = Load::expect_status(http::get("http://127.0.0.1:8000/echo"), 200, Duration::from_millis(2));
/// // … change the configuration …
/// load.wait_for_more(100, Deadline::secs(20));
/// load.stop().assert_clean();
/// ```
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicUsize,
    failed: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// What a [`Load`] saw.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// How many requests were made.
    pub sent: usize,
    /// How many of them failed.
    pub failed: usize,
    /// The first failures, each with the number of its request.
    pub failures: Vec<String>,
}

impl LoadReport {
    /// Checks that there were requests and that none failed.
    ///
    /// # Panics
    /// When it was not so.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.sent > 0, "the load made no request");
        let (failed, sent) = (self.failed, self.sent);
        assert!(
            failed == 0,
            "{failed} of {sent} requests failed:\n{}",
            self.failures.join("\n")
        );
    }
}

impl Load {
    /// Calls `once` every `pace`, or without a rest when a call takes longer, until stopped.
    /// An `Err` counts as a failed request.
    pub fn start(
        pace: Duration,
        mut once: impl FnMut() -> Result<(), String> + Send + 'static,
    ) -> Load {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !for_thread.stop.load(Ordering::SeqCst) {
                let started = Instant::now();
                let outcome = once();
                for_thread.note(outcome);
                std::thread::sleep(pace.saturating_sub(started.elapsed()));
            }
        });
        Load {
            shared,
            thread: Some(thread),
        }
    }

    /// Sends `request` every `pace`; anything but this status is a failed request.
    pub fn expect_status(request: http::Request, status: u16, pace: Duration) -> Load {
        Load::start(pace, move || match request.send() {
            Ok(answer) if answer.status == status => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(error.to_string()),
        })
    }

    /// How many requests have ended so far.
    pub fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Waits until `requests` more have ended, so that some surely ran after what came before.
    ///
    /// # Panics
    /// When the deadline passes first.
    #[track_caller]
    pub fn wait_for_more(&self, requests: usize, deadline: Deadline) {
        let goal = self.sent() + requests;
        eventually(&format!("{requests} more requests"), deadline, || {
            self.sent() >= goal
        });
    }

    /// Stops after the request that is under way and reports.
    ///
    /// # Panics
    /// When the request closure panicked.
    #[track_caller]
    pub fn stop(mut self) -> LoadReport {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            panic!("the request of the load panicked");
        }
        LoadReport {
            sent: self.sent(),
            failed: self.shared.failed.load(Ordering::SeqCst),
            failures: self
                .shared
                .failures
                .lock()
                .expect("no holder panics")
                .clone(),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            _ = thread.join(); // only `stop` reports
        }
    }
}

impl Shared {
    fn note(&self, outcome: Result<(), String>) {
        if let Err(failure) = outcome {
            self.failed.fetch_add(1, Ordering::SeqCst);
            let mut failures = self.failures.lock().expect("no holder of this lock panics");
            if failures.len() < FAILURES_KEPT {
                failures.push(format!("#{}: {failure}", self.sent.load(Ordering::SeqCst)));
            }
        }
        self.sent.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Echo;

    #[test]
    fn counts_failures_among_successes() {
        let echo = Echo::start();
        let load = Load::expect_status(http::get(echo.url()), 200, Duration::from_millis(1));
        load.wait_for_more(3, Deadline::secs(20));
        echo.close_next(2);
        load.wait_for_more(5, Deadline::secs(20));
        echo.answer_with(500);
        load.wait_for_more(2, Deadline::secs(20));
        echo.answer_with(200);
        load.wait_for_more(2, Deadline::secs(20));
        let report = load.stop();
        assert!(
            report.failed >= 3 && report.failed < report.sent,
            "{report:?}"
        );
        assert!(
            report.failures[0].contains("closed without an answer"),
            "{report:?}"
        );
    }

    #[test]
    fn a_clean_report_needs_requests() {
        let echo = Echo::start();
        let load = Load::expect_status(http::get(echo.url()), 200, Duration::from_millis(1));
        load.wait_for_more(2, Deadline::secs(20));
        load.stop().assert_clean();
    }

    #[test]
    #[should_panic(expected = "1 of 1 requests failed:\n#0: boom")]
    fn a_failure_is_spelled_out() {
        let shared = Shared::default();
        shared.note(Err("boom".into()));
        let failures = shared.failures.lock().unwrap().clone();
        LoadReport {
            sent: 1,
            failed: 1,
            failures,
        }
        .assert_clean();
    }
}
