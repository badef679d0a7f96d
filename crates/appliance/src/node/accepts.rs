//! Keeps up to date where this node listens for others, which gossip tells them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::database::Fatal;
use super::plane::Plane;
use super::state::State;

const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Looks until `stop`.
pub(super) async fn follow(
    state: Arc<State>,
    plane: Arc<dyn Plane>,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    loop {
        let (own, looking) = (Arc::clone(&state), Arc::clone(&plane));
        match tokio::task::spawn_blocking(move || looking.accepts(&own)).await {
            Ok(accepts) => {
                state.accepts.send_if_modified(|known| {
                    let changed = *known != accepts;
                    *known = accepts;
                    changed
                });
            }
            Err(error) => warn!(%error, "could not look where this node listens"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(LOOK_EVERY) => {}
        }
    }
}
