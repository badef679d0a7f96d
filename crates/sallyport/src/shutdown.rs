//! When to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for Ctrl-C, or for what a service manager sends.
///
/// # Panics
/// If the system gives no signal handlers, which leaves no way to stop cleanly.
pub(crate) async fn requested() {
    let handler = |kind| signal(kind).expect("signal handlers can be set");
    let mut interrupt = handler(SignalKind::interrupt());
    let mut terminate = handler(SignalKind::terminate());
    let mut quit = handler(SignalKind::quit());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = quit.recv() => {}
    }
}
