//! When to stop, and what else an operator signals.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for Ctrl-C, and for what a service manager sends.
///
/// Made before a role starts, so that a signal is neither deadly nor lost, however early it comes.
pub(crate) struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
}

impl Shutdown {
    /// Starts to listen.
    ///
    /// # Panics
    /// If the system gives no signal handlers, which leaves no way to stop cleanly; or outside a
    /// tokio runtime.
    pub(crate) fn listen() -> Shutdown {
        let handler = |kind| signal(kind).expect("signal handlers can be set");
        Shutdown {
            interrupt: handler(SignalKind::interrupt()),
            terminate: handler(SignalKind::terminate()),
            quit: handler(SignalKind::quit()),
        }
    }

    /// Waits for a signal that was not waited for yet.
    pub(crate) async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// What an operator asks for without stopping anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Read files anew (SIGHUP).
    Reload,
    /// Open log files anew (SIGUSR1).
    Reopen,
}

/// Listens for hints; made early, as [`Shutdown`].
pub(crate) struct Hints {
    hangup: Signal,
    user: Signal,
}

impl Hints {
    /// Starts to listen.
    ///
    /// # Panics
    /// As [`Shutdown::listen`].
    pub(crate) fn listen() -> Hints {
        let handler = |kind| signal(kind).expect("signal handlers can be set");
        Hints {
            hangup: handler(SignalKind::hangup()),
            user: handler(SignalKind::user_defined1()),
        }
    }

    /// Waits for a hint that was not waited for yet.
    pub(crate) async fn next(&mut self) -> Hint {
        tokio::select! {
            _ = self.hangup.recv() => Hint::Reload,
            _ = self.user.recv() => Hint::Reopen,
        }
    }
}
