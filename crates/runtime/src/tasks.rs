//! A parent for tasks: every task has a name, is told to stop, and is waited for.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// A set of named tasks with one stop signal. Dropping it aborts what still runs.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

/// A task that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The name it was spawned with.
    pub name: &'static str,
    /// The message if it panicked.
    pub panic: Option<String>,
}

impl Tasks {
    /// An empty set whose tasks stop when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Tasks {
        Tasks {
            running: JoinSet::new(),
            names: HashMap::new(),
            stop,
        }
    }

    /// The stop signal, for tasks to watch.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task; `make` gets the stop signal it has to obey.
    pub fn spawn<F>(&mut self, name: &'static str, make: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = self.running.spawn(make(self.stop.clone())).id();
        self.names.insert(id, name);
    }

    /// Waits for the next task to end; `None` if none is left. May be dropped while waiting.
    /// A panic is logged here.
    pub async fn ended(&mut self) -> Option<Ended> {
        let ended = self.running.join_next_with_id().await?;
        Some(self.report(ended))
    }

    /// Tells all tasks to stop and waits for them, at most `grace`.
    ///
    /// Returns the names of those that had to be aborted.
    pub async fn finish(mut self, grace: Duration) -> Vec<&'static str> {
        self.stop.cancel();
        let deadline = Instant::now() + grace;
        while let Ok(Some(ended)) = timeout_at(deadline, self.running.join_next_with_id()).await {
            self.report(ended);
        }
        self.running.shutdown().await;
        let mut late: Vec<_> = self.names.into_values().collect();
        late.sort_unstable();
        late
    }

    fn report(&mut self, ended: Result<(Id, ()), JoinError>) -> Ended {
        let (id, panic) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(panic_message(error))),
        };
        let name = self.names.remove(&id).unwrap_or("unnamed");
        if let Some(message) = &panic {
            error!(task = name, message, "a task panicked");
        }
        Ended { name, panic }
    }
}

fn panic_message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload
                .downcast_ref::<&str>()
                .map_or_else(|| "panic without a message".to_owned(), ToString::to_string),
        },
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stops_all_and_names_the_late() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("obeys", |stop| async move { stop.cancelled().await });
        tasks.spawn("deaf", |_| std::future::pending());
        assert_eq!(tasks.finish(Duration::from_secs(1)).await, ["deaf"]);
    }

    #[tokio::test]
    async fn a_panic_is_reported_by_name() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("bad", |_| async { panic!("no {}", "way") });
        let want = Ended {
            name: "bad",
            panic: Some("no way".to_owned()),
        };
        assert_eq!(tasks.ended().await, Some(want));
        assert_eq!(tasks.ended().await, None);
    }
}
