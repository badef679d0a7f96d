//! The membership of a node that has no others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::node::{Fatal, State};

/// Keeps what the node says about itself up to date, until `stop`.
pub(crate) async fn alone(state: Arc<State>, stop: CancellationToken) -> Result<(), Fatal> {
    loop {
        let live = BTreeMap::from([(state.identity.id, state.facts())]);
        state.live.send_if_modified(|known| {
            let changed = **known != live;
            if changed {
                *known = Arc::new(live);
            }
            changed
        });
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}
