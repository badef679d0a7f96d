//! One publisher per control plane: the newest payload for all its links.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sallyport_store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};
use uuid::Uuid;

use super::payload::Payload;

/// Changes that come faster than this are sent together.
const PACE_MIN: Duration = Duration::from_millis(50);
/// However long a payload takes to build, changes wait no longer than this for the next one.
const PACE_MAX: Duration = Duration::from_secs(2);
/// Pause after the database failed.
const RETRY: Duration = Duration::from_secs(1);
/// How long the payload of a control plane is kept for nobody: a reconnect finds it, and the memory
/// does not grow with every control plane that ever had a gateway.
const KEEP: Duration = Duration::from_secs(60);
/// How long a caller of [`Publishers::current`] waits.
const CURRENT_MAX: Duration = Duration::from_secs(5);

/// What links of a control plane see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// The newest payload; `None` until the first is built.
    pub(crate) payload: Option<Arc<Payload>>,
    /// Changes whenever links have to check again whether they may stay.
    pub(crate) trust: u64,
}

/// A wish for the payloads of one control plane.
pub(crate) struct Subscribe {
    cp: Uuid,
    answer: oneshot::Sender<watch::Receiver<Published>>,
}

#[cfg(test)]
impl Subscribe {
    /// Answers as [`supervise`] does, with payloads of the test's own.
    pub(super) fn grant(self, sender: &watch::Sender<Published>) {
        assert!(self.answer.send(sender.subscribe()).is_ok());
    }
}

/// Hands out payloads; clones share the publishers.
#[derive(Clone)]
pub(crate) struct Publishers(mpsc::Sender<Subscribe>);

impl Publishers {
    pub(super) fn new() -> (Publishers, mpsc::Receiver<Subscribe>) {
        let (ask, subscriptions) = mpsc::channel(64);
        (Publishers(ask), subscriptions)
    }

    /// The payloads of a control plane as they come; `None` while the control plane stops. The
    /// receiver ends when that control plane is deleted.
    pub(crate) async fn subscribe(&self, cp: Uuid) -> Option<watch::Receiver<Published>> {
        let (answer, wait) = oneshot::channel();
        self.0.send(Subscribe { cp, answer }).await.ok()?;
        wait.await.ok()
    }

    /// The newest payload of a control plane, of `revision` or later, so that who has just written
    /// is not shown what was before; `None` if there is none within seconds.
    pub(crate) async fn current(&self, cp: Uuid, revision: u64) -> Option<Arc<Payload>> {
        let mut published = self.subscribe(cp).await?;
        let recent = |payload: &Arc<Payload>| payload.revision >= revision;
        let found = published.wait_for(|published| published.payload.as_ref().is_some_and(recent));
        let found = timeout(CURRENT_MAX, found).await.ok()?.ok()?;
        found.payload.clone()
    }
}

/// Starts a publisher at the first wish for a control plane, and is the parent of all of them.
pub(crate) async fn supervise(
    store: Store,
    mut subscriptions: mpsc::Receiver<Subscribe>,
    stop: CancellationToken,
) {
    let mut tasks: JoinSet<Uuid> = JoinSet::new();
    let mut known: HashMap<Uuid, watch::Sender<Published>> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = tasks.join_next() => match ended {
                Ok(cp) => {
                    // Who subscribed while it ended waits for payloads all the same.
                    let wanted = known.get(&cp).is_some_and(|sender| sender.receiver_count() > 0);
                    match known.get(&cp) {
                        Some(sender) if wanted && store.watch().borrow().get(cp).is_some() => {
                            start(&mut tasks, &store, &stop, cp, sender.clone());
                        }
                        _ => drop(known.remove(&cp)),
                    }
                }
                Err(error) => error!(%error, "a publisher of configurations ended with a panic"),
            },
            wish = subscriptions.recv() => {
                let Some(Subscribe { cp, answer }) = wish else { break };
                let sender = known.entry(cp).or_insert_with(|| {
                    let (sender, _) = watch::channel(Published::default());
                    start(&mut tasks, &store, &stop, cp, sender.clone());
                    sender
                });
                // The asker may be gone; that is its own affair.
                let _ = answer.send(sender.subscribe());
            }
        }
    }
    drop(known);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a publisher of configurations ended with a panic");
        }
    }
}

fn start(
    tasks: &mut JoinSet<Uuid>,
    store: &Store,
    stop: &CancellationToken,
    cp: Uuid,
    sender: watch::Sender<Published>,
) {
    let (store, stop) = (store.clone(), stop.clone());
    tasks.spawn(async move {
        publish(&store, cp, &sender, &stop).await;
        cp
    });
}

/// Waits until nobody has wanted the payloads for [`KEEP`].
async fn forgotten(sender: &watch::Sender<Published>) {
    loop {
        sender.closed().await;
        sleep(KEEP).await;
        if sender.is_closed() {
            return;
        }
    }
}

/// Keeps `sender` at the newest revision until the control plane is deleted, nobody wants it any
/// more, or `stop`.
async fn publish(
    store: &Store,
    cp: Uuid,
    sender: &watch::Sender<Published>,
    stop: &CancellationToken,
) {
    let mut heads = store.watch();
    let mut forgotten = std::pin::pin!(forgotten(sender));
    let mut built: Option<u64> = None;
    let mut not_before = Instant::now();
    loop {
        let Some(head) = heads.borrow_and_update().get(cp) else {
            return;
        };
        sender.send_if_modified(|published| {
            std::mem::replace(&mut published.trust, head.trust) != head.trust
        });
        if built.is_some_and(|built| built >= head.revision) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut forgotten => return,
                changed = heads.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(not_before) => {}
        }
        let began = Instant::now();
        match build(store, cp).await {
            Ok(payload) => {
                let took = began.elapsed();
                not_before = began + (2 * took).clamp(PACE_MIN, PACE_MAX);
                if payload.revision < head.revision {
                    // The database lost what it had acknowledged, as after a failover to a standby
                    // that was behind. No gateway is sent back; the next changes come through.
                    error!(%cp, revision = payload.revision, known = head.revision,
                        "the database went back to an earlier version of a control plane");
                    not_before = began + RETRY;
                    if built.is_some_and(|built| payload.revision < built) {
                        continue;
                    }
                }
                built = Some(payload.revision);
                let (revision, bytes) = (payload.revision, payload.frame.len());
                debug!(%cp, revision, bytes, took_us = took.as_micros(), "configuration built");
                sender.send_modify(|published| published.payload = Some(Arc::new(payload)));
            }
            Err(StoreError::NoControlPlane(_)) => return,
            Err(error) => {
                error!(%cp, %error, "could not read the configuration to send, trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(RETRY) => {}
                }
            }
        }
    }
}

async fn build(store: &Store, cp: Uuid) -> Result<Payload, StoreError> {
    let snapshot = store.snapshot(cp).await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let built = tokio::task::spawn_blocking(move || Payload::build(&snapshot, now_ms)).await;
    built.map_err(|error| {
        info!(%error, "building a configuration was abandoned");
        sallyport_store::StorageFailure::Engine("building was abandoned".to_owned()).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_payload_that_nobody_wants_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
        let made = crate::bootstrap(&store, "test", None).await.unwrap();
        let cp = made.control_plane.id;
        let (publishers, subscriptions) = Publishers::new();
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(store, subscriptions, stop.clone()));
        let payload = publishers.current(cp, 0).await.unwrap();
        let kept = Arc::downgrade(&payload);
        drop(payload);
        sleep(KEEP / 2).await;
        let again = publishers.current(cp, 0).await.unwrap();
        assert!(
            kept.upgrade()
                .is_some_and(|kept| Arc::ptr_eq(&kept, &again))
        );
        drop(again);
        sleep(KEEP * 3).await;
        assert!(kept.upgrade().is_none());
        assert!(
            publishers.current(cp, 0).await.is_some(),
            "it is built again"
        );
        stop.cancel();
        supervisor.await.unwrap();
    }
}
