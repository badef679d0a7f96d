//! Starts and stops the control plane as the node's duty says.

use std::sync::Arc;
use std::time::Duration;

use sallyport_store::{Store, Wanted};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::authority::Authority;
use super::database::Fatal;
use super::plane::{Plane, RunningPlane};
use super::recorded::Record;
use super::state::State;

const AGAIN: Duration = Duration::from_secs(2);

/// Reconciles until `stop`: a control plane runs when the database was reached and the node is not
/// drained.
pub(super) async fn reconcile(
    state: Arc<State>,
    plane: Arc<dyn Plane>,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    let (mut duty, mut store) = (state.duty.subscribe(), state.store.subscribe());
    let mut running: Option<Box<dyn RunningPlane>> = None;
    let ended = loop {
        let drained = *duty.borrow_and_update() == Wanted::Drained;
        let there = store.borrow_and_update().clone();
        match (running.take(), there) {
            (Some(old), _) if drained => {
                state.plane.send_replace(None);
                state.record.send_replace(Record::default());
                old.stop().await;
                info!("drained");
            }
            (None, Some(there)) if !drained => match begin(&state, plane.as_ref(), there).await {
                Ok(new) => {
                    state.plane.send_replace(Some(new.address()));
                    state.record.send_replace(Record(Some(new.records())));
                    running = Some(new);
                }
                Err(error) if !state.clustered => break Err(Fatal::Part(format!("{error:#}"))),
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "the control plane does not start"
                    );
                    tokio::select! {
                        () = stop.cancelled() => break Ok(()),
                        () = sleep(AGAIN) => continue,
                    }
                }
            },
            (kept, _) => running = kept,
        }
        let failed = async {
            match &mut running {
                Some(running) => running.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            _ = duty.changed() => {}
            _ = store.changed() => {}
            what = failed => break Err(Fatal::Part(what)),
        }
    };
    state.plane.send_replace(None);
    state.record.send_replace(Record::default());
    if let Some(running) = running {
        running.stop().await;
    }
    ended
}

async fn begin(
    state: &State,
    plane: &dyn Plane,
    store: Store,
) -> anyhow::Result<Box<dyn RunningPlane>> {
    let cluster = store.cluster().await?;
    let cluster = cluster.ok_or_else(|| anyhow::anyhow!("the database holds no cluster"))?;
    let authority = Authority::open(&cluster, &state.identity.secret)?;
    plane.start(state, store, authority).await
}
