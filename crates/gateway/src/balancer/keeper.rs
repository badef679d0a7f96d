//! The tasks of the balancers in force: names are resolved again and targets are probed, once per
//! node, as long as their configuration is in force.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Balancers;
use super::probe::{ProbeTls, probe_for_ever};
use super::upstream::{Balancer, Resolved};
use crate::dns::Names;

/// The least time between two looks at the names of an upstream.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// How long until the next look if nothing says when.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps what is in force up to date, until `stop`.
pub(crate) async fn keep(balancers: Arc<Balancers>, tls: ProbeTls, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut running: HashMap<u32, CancellationToken> = HashMap::new();
    let look_ups = balancers.names.clone().run(stop.child_token());
    tasks.spawn(look_ups);
    loop {
        reconcile(&balancers, &mut running, |balancer| {
            let stop = stop.child_token();
            let (names, tls) = (balancers.names.clone(), tls.clone());
            tasks.spawn(tend(balancer, names, tls, stop.clone()));
            stop
        });
        tokio::select! {
            () = stop.cancelled() => break,
            () = balancers.changed.notified() => {}
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a balancer's task panicked");
                }
            }
        }
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            warn!(%error, "a balancer's task panicked");
        }
    }
}

/// Stops the tasks of balancers that are no longer in force, and starts those that are missing.
fn reconcile(
    balancers: &Balancers,
    running: &mut HashMap<u32, CancellationToken>,
    mut start: impl FnMut(Arc<Balancer>) -> CancellationToken,
) {
    let mut wanted: HashMap<_, _> = balancers
        .all()
        .into_iter()
        .filter(|balancer| balancer.needs_care())
        .map(|balancer| (balancer.slot.number(), balancer))
        .collect();
    running.retain(|number, stop| {
        let stays = wanted.remove(number).is_some();
        if !stays {
            stop.cancel();
        }
        stays
    });
    for (number, balancer) in wanted {
        running.insert(number, start(balancer));
    }
}

/// Holds the balancer, so that its number stays its own while the task runs.
async fn tend(balancer: Arc<Balancer>, names: Arc<Names>, tls: ProbeTls, stop: CancellationToken) {
    let resolving = async {
        if !balancer.is_fixed() {
            resolve_for_ever(&balancer, &names).await;
        }
    };
    let probing = async {
        if balancer.checks.is_active() {
            probe_for_ever(&balancer, &tls).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = async { tokio::join!(resolving, probing) } => {}
    }
}

async fn resolve_for_ever(balancer: &Balancer, names: &Arc<Names>) {
    let mut resolved: Vec<Resolved> = balancer.resolved_without_waiting();
    loop {
        let mut asked = JoinSet::new();
        for (at, target) in balancer.targets.iter().enumerate() {
            if let Some(name) = target.name.clone() {
                let names = names.clone();
                asked.spawn(async move { (at, names.find_fresh(&name).await) });
            }
        }
        while let Some(Ok((at, found))) = asked.join_next().await {
            resolved[at] = found.ok();
            balancer.resolved(&resolved, asked.is_empty());
        }
        let now = Instant::now();
        let next = balancer
            .targets
            .iter()
            .filter_map(|target| target.name.as_ref()?.known().changes_at(now))
            .min();
        sleep_until(next.unwrap_or(now + PAUSE).max(now + PAUSE_MIN)).await;
    }
}
