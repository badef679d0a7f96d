//! One publisher per control plane: where it stands, for all its links, and the newest payload for
//! those that take whole configurations.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sallyport_store::{Store, StoreError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};
use uuid::Uuid;

use super::answers::{Answered, Answers};
use super::payload::Payload;
use super::state::State;

/// Changes that come faster than this are sent together.
const STEP_PACE: Duration = Duration::from_millis(10);
/// Rows of the change log that are followed; with more to read, everything is read anew.
pub(super) const CHANGES_MAX: usize = 5_000;
/// Whole configurations are not made faster than this.
const PACE_MIN: Duration = Duration::from_millis(50);
/// However long a payload takes to build, changes wait no longer than this for the next one.
const PACE_MAX: Duration = Duration::from_secs(2);
/// Pause after the database failed.
const RETRY: Duration = Duration::from_secs(1);
/// How long a control plane that nobody follows is kept in memory: a reconnect finds it, and the
/// memory does not grow with every control plane that ever had a gateway.
const KEEP: Duration = Duration::from_secs(60);
/// How long a caller of [`Publishers::current`] waits.
const CURRENT_MAX: Duration = Duration::from_secs(5);

/// What links of a control plane see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// Where it stands; `None` until that is known.
    pub(crate) state: Option<Arc<State>>,
    /// Changes whenever links have to check again whether they may stay.
    pub(crate) trust: u64,
}

/// Payloads as they come; `None` until the first is built.
pub(crate) type Payloads = watch::Receiver<Option<Arc<Payload>>>;

/// A view of one control plane.
pub(crate) struct Subscription {
    pub(crate) published: watch::Receiver<Published>,
    /// Dropped by who takes no whole configurations, so that none is built for nobody.
    pub(crate) payloads: Payloads,
    /// Answers that links share.
    pub(crate) answers: Arc<Answers>,
}

/// A wish for one control plane.
pub(crate) struct Subscribe {
    cp: Uuid,
    answer: oneshot::Sender<Subscription>,
}

#[cfg(test)]
impl Subscribe {
    /// Answers as [`supervise`] does, with what the test publishes.
    pub(super) fn grant(self, store: &Store, published: &Outputs) {
        assert!(
            self.answer
                .send(published.subscribe(store, self.cp))
                .is_ok()
        );
    }
}

/// Hands out subscriptions; clones share the publishers.
#[derive(Clone)]
pub(crate) struct Publishers {
    ask: mpsc::Sender<Subscribe>,
    /// What all links answered.
    pub(crate) answered: Arc<Answered>,
}

impl Publishers {
    pub(super) fn new() -> (Publishers, mpsc::Receiver<Subscribe>) {
        let (ask, subscriptions) = mpsc::channel(64);
        let answered = Arc::default();
        (Publishers { ask, answered }, subscriptions)
    }

    /// A control plane as it changes; `None` while the process stops. The receivers end when that
    /// control plane is deleted.
    pub(crate) async fn subscribe(&self, cp: Uuid) -> Option<Subscription> {
        let (answer, wait) = oneshot::channel();
        self.ask.send(Subscribe { cp, answer }).await.ok()?;
        wait.await.ok()
    }

    /// Where a control plane stands, at `revision` or later, so that who has just written is not
    /// shown what was before; `None` if that is not known within seconds.
    pub(crate) async fn current(&self, cp: Uuid, revision: u64) -> Option<Arc<State>> {
        let mut published = self.subscribe(cp).await?.published;
        let recent = |state: &Arc<State>| state.revision >= revision;
        let found = published.wait_for(|published| published.state.as_ref().is_some_and(recent));
        let found = timeout(CURRENT_MAX, found).await.ok()?.ok()?;
        found.state.clone()
    }
}

/// Where a publisher writes to.
#[derive(Clone)]
pub(super) struct Outputs {
    pub(super) published: watch::Sender<Published>,
    pub(super) payloads: watch::Sender<Option<Arc<Payload>>>,
    answers: Arc<std::sync::OnceLock<Arc<Answers>>>,
    /// Somebody may want payloads.
    wished: Arc<Notify>,
}

impl Default for Outputs {
    fn default() -> Outputs {
        Outputs {
            published: watch::channel(Published::default()).0,
            payloads: watch::channel(None).0,
            answers: Arc::default(),
            wished: Arc::default(),
        }
    }
}

impl Outputs {
    fn subscribe(&self, store: &Store, cp: Uuid) -> Subscription {
        let payloads = self.payloads.subscribe();
        self.wished.notify_one();
        let answers = self
            .answers
            .get_or_init(|| Arc::new(Answers::new(store.clone(), cp)));
        Subscription {
            published: self.published.subscribe(),
            payloads,
            answers: answers.clone(),
        }
    }

    fn is_wanted(&self) -> bool {
        self.published.receiver_count() > 0
    }

    /// Waits until nobody has followed for [`KEEP`].
    async fn forgotten(&self) {
        loop {
            self.published.closed().await;
            sleep(KEEP).await;
            if self.published.is_closed() {
                return;
            }
        }
    }
}

/// Starts a publisher at the first wish for a control plane, and is the parent of all of them.
pub(crate) async fn supervise(
    store: Store,
    mut subscriptions: mpsc::Receiver<Subscribe>,
    stop: CancellationToken,
) {
    let mut tasks: JoinSet<Uuid> = JoinSet::new();
    let mut known: HashMap<Uuid, Outputs> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = tasks.join_next() => match ended {
                Ok(cp) => {
                    // Who subscribed while it ended waits for what comes all the same.
                    match known.get(&cp) {
                        Some(outputs)
                            if outputs.is_wanted() && store.watch().borrow().get(cp).is_some() =>
                        {
                            start(&mut tasks, &store, &stop, cp, outputs.clone());
                        }
                        _ => drop(known.remove(&cp)),
                    }
                }
                Err(error) => error!(%error, "a publisher of configurations ended with a panic"),
            },
            wish = subscriptions.recv() => {
                let Some(Subscribe { cp, answer }) = wish else { break };
                let outputs = known.entry(cp).or_insert_with(|| {
                    let outputs = Outputs::default();
                    start(&mut tasks, &store, &stop, cp, outputs.clone());
                    outputs
                });
                // The asker may be gone; that is its own affair.
                let _ = answer.send(outputs.subscribe(&store, cp));
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
    outputs: Outputs,
) {
    let (store, stop) = (store.clone(), stop.clone());
    tasks.spawn(async move {
        publish(&store, cp, &outputs, &stop).await;
        cp
    });
}

type Building = Pin<Box<dyn Future<Output = Result<Payload, StoreError>> + Send>>;

/// Keeps `outputs` at the newest revision until the control plane is deleted, nobody wants it any
/// more, or `stop`.
async fn publish(store: &Store, cp: Uuid, outputs: &Outputs, stop: &CancellationToken) {
    let mut heads = store.watch();
    let mut forgotten = std::pin::pin!(outputs.forgotten());
    let mut state: Option<Arc<State>> = None;
    let mut next_step = Instant::now();
    // of the newest payload
    let mut built: Option<u64> = None;
    let mut building: Option<(Instant, Building)> = None;
    let mut next_payload = Instant::now();
    loop {
        let Some(head) = heads.borrow_and_update().get(cp) else {
            return;
        };
        outputs.published.send_if_modified(|published| {
            std::mem::replace(&mut published.trust, head.trust) != head.trust
        });
        if state
            .as_ref()
            .is_none_or(|state| state.revision < head.revision)
        {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(next_step) => {}
            }
            next_step = Instant::now() + STEP_PACE;
            match advance(store, cp, state.as_deref(), head.revision).await {
                Ok(newer) => {
                    let newer = Arc::new(newer);
                    debug!(%cp, revision = newer.revision, "configuration has changed");
                    state = Some(newer.clone());
                    outputs
                        .published
                        .send_modify(|published| published.state = Some(newer));
                    if let Some(state) = &state
                        && state.revision < head.revision
                    {
                        // The database lost what it had acknowledged, as after a failover to a
                        // standby that was behind; what comes next is followed from there.
                        error!(%cp, revision = state.revision, known = head.revision,
                            "the database went back to an earlier version of a control plane");
                        next_step = Instant::now() + RETRY;
                    }
                }
                Err(StoreError::NoControlPlane(_)) => return,
                Err(error) => {
                    error!(%cp, %error, "could not read what has changed, trying again");
                    next_step = Instant::now() + RETRY;
                    continue;
                }
            }
        }
        let revision = state.as_ref().map_or(0, |state| state.revision);
        let wanted = outputs.payloads.receiver_count() > 0
            && building.is_none()
            && built.is_none_or(|built| built < revision);
        if wanted && Instant::now() >= next_payload {
            building = Some((Instant::now(), Box::pin(build(store.clone(), cp))));
        }
        let behind = state
            .as_ref()
            .is_some_and(|state| state.revision < head.revision);
        tokio::select! {
            () = stop.cancelled() => return,
            () = &mut forgotten => return,
            changed = heads.changed() => if changed.is_err() { return },
            () = outputs.wished.notified() => {}
            () = sleep_until(next_payload), if wanted && building.is_none() => {}
            () = sleep_until(next_step), if behind => {}
            (began, made) = async {
                match &mut building {
                    Some((began, made)) => (*began, made.await),
                    None => std::future::pending().await,
                }
            } => {
                building = None;
                match made {
                    Ok(payload) => {
                        let took = began.elapsed();
                        next_payload = began + (2 * took).clamp(PACE_MIN, PACE_MAX);
                        let (revision, bytes) = (payload.revision, payload.frame.len());
                        debug!(%cp, revision, bytes, took_us = took.as_micros(), "configuration built");
                        if built.is_none_or(|built| built < revision) {
                            built = Some(revision);
                            outputs.payloads.send_replace(Some(Arc::new(payload)));
                        }
                    }
                    Err(StoreError::NoControlPlane(_)) => return,
                    Err(error) => {
                        error!(%cp, %error, "could not read the configuration to send, trying again");
                        next_payload = Instant::now() + RETRY;
                    }
                }
            }
        }
    }
}

/// The newest state: out of the change log where that is short, else out of everything. That of a
/// group which leaves something out is read as a whole at each change; what its data planes get is in
/// proportion to the change all the same.
async fn advance(
    store: &Store,
    cp: Uuid,
    state: Option<&State>,
    head: u64,
) -> Result<State, StoreError> {
    if let Some(state) = state.filter(|state| state.is_of_group()) {
        if state.is_of_whole_group()
            && let Some((to, changes)) =
                store.group_changes(cp, state.revision, CHANGES_MAX).await?
            && to > state.revision
        {
            return Ok(state.after_members(cp, (to, &changes), now_ms() / 1_000));
        }
        // the logs of its members do not tell what the group leaves out
        let (state, snapshot) = (state.clone(), store.group_snapshot(cp).await?);
        return blocking(move || state.after_snapshot(cp, &snapshot, now_ms() / 1_000)).await;
    }
    if let Some(state) = state {
        let changes = store.changes(cp, state.revision, CHANGES_MAX).await?;
        let follows = changes
            .first()
            .is_some_and(|first| first.revision == state.revision + 1);
        if follows && changes.len() < CHANGES_MAX {
            return Ok(state.after(cp, &changes, now_ms() / 1_000));
        }
        info!(%cp, revision = state.revision, head, "the configuration is read as a whole");
    }
    let is_group = !store.group_members(cp).await?.is_empty();
    if is_group {
        let snapshot = store.group_snapshot(cp).await?;
        return blocking(move || State::of_group(&snapshot, now_ms() / 1_000)).await;
    }
    let snapshot = store.snapshot(cp).await?;
    blocking(move || State::of(&snapshot, now_ms() / 1_000)).await
}

async fn build(store: Store, cp: Uuid) -> Result<Payload, StoreError> {
    let snapshot = store.snapshot(cp).await?;
    blocking(move || Payload::build(snapshot, now_ms())).await
}

/// Runs what takes long on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        info!(%error, "building a configuration was abandoned");
        sallyport_store::StorageFailure::Engine("building was abandoned".to_owned()).into()
    })
}

fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use sallyport_model::Kind;
    use sallyport_store::{Actor, IfExists, Put};
    use sallyport_wire::config_sync::edits::CLASSES;
    use serde_json::json;

    use super::*;

    /// Only reached when something is broken.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A control plane with its publisher.
    struct Lab {
        store: Store,
        publishers: Publishers,
        cp: Uuid,
        stop: CancellationToken,
        supervisor: tokio::task::JoinHandle<()>,
        _directory: tempfile::TempDir,
    }

    impl Lab {
        async fn start() -> Lab {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
            let made = crate::bootstrap(&store, "test", None).await.unwrap();
            let (publishers, subscriptions) = Publishers::new();
            let stop = CancellationToken::new();
            let running = supervise(store.clone(), subscriptions, stop.clone());
            Lab {
                store,
                publishers,
                cp: made.control_plane.id,
                stop,
                supervisor: tokio::spawn(running),
                _directory: directory,
            }
        }

        async fn stop(self) {
            self.stop.cancel();
            self.supervisor.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_follows_is_forgotten() {
        let lab = Lab::start().await;
        let (publishers, cp) = (&lab.publishers, lab.cp);
        let state = publishers.current(cp, 0).await.unwrap();
        let kept = Arc::downgrade(&state);
        drop(state);
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
        lab.stop().await;
    }

    /// However many data planes follow: what is compressed is compressed once.
    #[tokio::test]
    async fn links_of_a_control_plane_share_the_very_same_bytes() {
        let lab = Lab::start().await;
        let (publishers, cp, store) = (&lab.publishers, lab.cp, &lab.store);
        let mut links = Vec::new();
        for _ in 0..3 {
            links.push(publishers.subscribe(cp).await.unwrap());
        }
        let first = publishers.current(cp, 0).await.unwrap().revision;
        let id = Uuid::from_u128(1);
        let put = Put {
            kind: Kind::Service,
            id,
            body: json!({"id": id, "name": "s", "host": "upstream.test", "created_at": 1}),
            unique: Vec::new(),
            foreign: Vec::new(),
            tags: Vec::new(),
            if_exists: IfExists::Refuse,
        };
        let actor = Actor("test".to_owned());
        let revision = store.put(cp, &actor, put).await.unwrap().revision;

        // protocol v1: the whole, and what each older class gets of it
        let mut payloads = Vec::new();
        for link in &mut links {
            let newest =
                |it: &Option<Arc<Payload>>| it.as_ref().is_some_and(|it| it.revision == revision);
            let found = timeout(PATIENCE, link.payloads.wait_for(newest)).await;
            payloads.push(found.unwrap().unwrap().clone().unwrap());
        }
        for class in 1..CLASSES {
            let together = std::sync::Barrier::new(payloads.len());
            let edited: Vec<_> = std::thread::scope(|scope| {
                let ask = |payload: &Arc<Payload>| {
                    together.wait();
                    payload.edited(class)
                };
                let asking = payloads
                    .iter()
                    .map(|payload| scope.spawn(move || ask(payload)));
                let asking: Vec<_> = asking.collect();
                asking.into_iter().map(|it| it.join().unwrap()).collect()
            });
            for other in &edited {
                assert!(
                    Arc::ptr_eq(&edited[0], other),
                    "class {class} was made twice"
                );
                assert_eq!(edited[0].frame.as_ptr(), other.frame.as_ptr());
            }
            assert!(!edited[0].frame.is_empty());
        }
        for payload in &payloads {
            assert!(Arc::ptr_eq(&payloads[0], payload));
            assert_eq!(payloads[0].frame.as_ptr(), payload.frame.as_ptr());
        }

        // protocol v2: what is pushed, and what is answered
        let state = publishers.current(cp, revision).await.unwrap();
        let step = |link: &Subscription| {
            let state = link.published.borrow().state.clone().unwrap();
            state.steps_from(first).unwrap()[0].clone()
        };
        let pushed = step(&links[0]);
        let asked =
            async |link: &Subscription, from| link.answers.get(0, from, &state).await.unwrap();
        for from in [None, Some(first)] {
            let answer = asked(&links[0], from).await;
            for link in &links {
                assert_eq!(
                    asked(link, from).await.frame.as_ptr(),
                    answer.frame.as_ptr()
                );
            }
        }
        for link in &links {
            assert!(Arc::ptr_eq(&pushed, &step(link)));
        }
        lab.stop().await;
    }
}
