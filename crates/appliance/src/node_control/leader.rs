//! Who leads: the node that holds the lease row of the database, by the database's clock.
//!
//! A node asks for the lease only while it sees more than half of the nodes, witnesses included, and
//! acts as the leader only up to a moment on its own clock that lies before the lease's end. A paused
//! leader that wakes up finds that moment passed; whatever it still sends carries its epoch, which
//! the database refuses.

use std::sync::Arc;
use std::time::Duration;

use sallyport_store::{Lease, Member, NodeRole, Wanted};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::node::{Fatal, LeaseView, State};

/// How long a lease lasts, in milliseconds.
const LEASE_MS: u32 = 5_000;
/// By how much a holder stops before its end.
const MARGIN: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_secs(1);
/// For the database to answer; longer than that and the lease is as good as lost.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// Takes and keeps leadership where it may, until `stop`; then gives it back.
pub(crate) async fn lead(state: Arc<State>, stop: CancellationToken) -> Result<(), Fatal> {
    loop {
        tick(&state).await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(TICK) => {}
        }
    }
    if state.lease().mine().is_some()
        && let Some(store) = state.store()
    {
        let _ = timeout(ANSWER_TIME_MAX, store.resign(state.boot)).await;
    }
    Ok(())
}

/// Knows who leads from what nodes tell, for a node that never does. Until `stop`.
pub(crate) async fn follow_leader(state: Arc<State>, stop: CancellationToken) -> Result<(), Fatal> {
    loop {
        learn(&state, told(&state));
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(TICK) => {}
        }
    }
}

async fn tick(state: &State) {
    let before = state.lease();
    let Some(store) = state.store() else {
        return learn(state, told(state));
    };
    let asked = Instant::now();
    let may = may_lead(state);
    let answer = async {
        if may {
            return store.lead(state.identity.id, state.boot, LEASE_MS).await;
        }
        if before.mine().is_some() {
            store.resign(state.boot).await?;
        }
        store.leader().await
    };
    let view = match timeout(ANSWER_TIME_MAX, answer).await {
        Ok(Ok(lease)) => view(&lease, asked),
        // Unknown: what was granted before still holds, and nothing longer.
        Ok(Err(_)) | Err(_) if before.mine().is_some() => before,
        Ok(Err(_)) | Err(_) => told(state),
    };
    learn(state, view);
}

fn view(lease: &Lease, asked: Instant) -> LeaseView {
    let running = lease.until_us > lease.now_us;
    let granted = Duration::from_millis(u64::from(LEASE_MS)) - MARGIN;
    LeaseView {
        holder: lease.holder.filter(|_| running),
        epoch: lease.epoch,
        mine_until: lease.mine.then(|| asked + granted),
    }
}

/// The leader of whom gossip tells: what a witness knows, or a node without the database.
fn told(state: &State) -> LeaseView {
    let live = state.live();
    let leading = live
        .iter()
        .filter_map(|(id, facts)| Some((facts.leads?, *id)));
    let (epoch, holder) = match leading.max() {
        Some((epoch, id)) => (epoch, Some(id)),
        None => (state.lease().epoch, None),
    };
    LeaseView {
        holder,
        epoch,
        mine_until: None,
    }
}

fn learn(state: &State, view: LeaseView) {
    let before = state.lease();
    // By what was granted: a process that was paused finds its time over, and says so too.
    match (before.mine_until, view.mine_until) {
        (None, Some(_)) => info!(epoch = view.epoch, "this node leads"),
        (Some(_), Some(_)) if view.epoch != before.epoch => {
            warn!(
                epoch = view.epoch,
                "this node leads again, after a time in which it did not"
            );
        }
        (Some(_), None) => warn!(epoch = before.epoch, "this node does not lead any more"),
        _ => {}
    }
    if view != before {
        state.lease.send_replace(view);
    }
}

/// Whether this node may ask for the lease.
fn may_lead(state: &State) -> bool {
    let live = state.live();
    let working = |it: &Member| {
        let facts = live.get(&it.id);
        it.role == NodeRole::Data
            && facts.is_some_and(|facts| facts.state == Wanted::Active.as_str())
    };
    // Where every node is cordoned, one must still lead, or none could ever be released.
    let nobody_works = !state.members().iter().any(working);
    state.sees_majority() && (state.duty() == Wanted::Active || nobody_works)
}
