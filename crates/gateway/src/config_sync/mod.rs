//! The data plane's end of the hybrid protocol: gets configurations from a control plane.
//!
//! [`run`] dials `wss://<control plane>/v2/outlet`, says who the node is, and hands what changes
//! to an [`Apply`]. Where that protocol is not spoken it dials `/v1/outlet`: there every
//! configuration comes as a whole, and the hash in force goes back as the payload of each PING,
//! which is the only acknowledgement there is. On v1 it never answers a PING and sends no other
//! frame, because Kong's control plane drops a link on anything else; only one that says at the
//! upgrade that it wants them gets reports of what was refused. The rules of order
//! and time are in [`link`], a pure state machine; this file gives it a clock, a socket and dice.

mod connection;
mod down;
pub mod link;
mod node_id;
mod settings;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{Deltas, Refused, Report};
use sallyport_wire::config_sync::{ErrorReport, FrameError, Reconfigure};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use connection::{Activity, FromControlPlane};
pub(crate) use connection::{Place, reach};
pub use down::Down;
pub use link::Synced;
use link::{Changes, Effect, Event, Frame, Link, Outgoing};
pub use node_id::{NodeIdError, hostname, node_id};
pub use settings::{ClientSettings, ClusterTls, SettingsError, SyncProtocol, Through};
pub(crate) use settings::{proxy, warn_of_end};

/// From here on JSON is read on a thread of its own, so that it holds up nothing.
const LARGE_BYTES: usize = 64 * 1024;
/// Events waiting to be handled; a connection that produces more waits.
const EVENTS_MAX: usize = 8;
/// Frames waiting to be written; more means that the control plane does not read.
const OUTGOING_MAX: usize = 4;
/// How long tasks may take to end once the client is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What puts a configuration in force.
pub trait Apply: Send + Sync + 'static {
    /// Compiles, stores and swaps in a configuration, and returns the hash now in force: the
    /// payload's, zeros if it holds no entity but workspaces, or another if entities were refused.
    ///
    /// Calls never overlap. A payload whose hash is already in force is not passed on.
    ///
    /// # Errors
    /// The configuration cannot be used; the previous one must still be in force.
    fn apply(
        &self,
        payload: Reconfigure,
    ) -> impl Future<Output = Result<Applied, ApplyError>> + Send;

    /// The same for changes. Who does not take any has them refused.
    fn sync(&self, deltas: Deltas) -> impl Future<Output = Synced> + Send {
        let _ = deltas;
        async { Synced::Refused("this node takes whole configurations only".to_owned()) }
    }

    /// After [`Synced::InForce`] that says so: waits until all changes so far are kept, and gives
    /// what is to be told of them, unless somebody has told it.
    fn settle(&self) -> impl Future<Output = Option<Report>> + Send {
        async { None }
    }
}

/// A configuration that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The hash of what is served.
    pub hash: ConfigHash,
    /// What of it is not served as it came.
    pub refused: Vec<Refused>,
}

impl From<ConfigHash> for Applied {
    /// All of a configuration.
    fn from(hash: ConfigHash) -> Applied {
        Applied {
            hash,
            refused: Vec::new(),
        }
    }
}

/// Why a configuration was not put in force, with the entity and field it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ApplyError(pub String);

/// How the link is, for the Status API and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// Not connected yet.
    #[default]
    Starting,
    /// Connected.
    Up,
    /// Not connected, and why; another attempt follows.
    Down {
        /// What an operator reads in the log.
        reason: String,
    },
}

impl LinkState {
    /// Whether the control plane is connected.
    pub fn is_connected(&self) -> bool {
        matches!(self, LinkState::Up)
    }
}

/// Keeps the link up until `stop`, then closes it.
///
/// Needs a tokio runtime with I/O and time. Failures are never final: the client dials again.
pub async fn run<A: Apply>(
    settings: ClientSettings,
    apply: Arc<A>,
    state: watch::Sender<LinkState>,
    stop: CancellationToken,
) {
    let (events_in, mut events) = mpsc::channel(EVENTS_MAX);
    let seed = getrandom::u64().unwrap_or_else(|_| {
        // Without dice all nodes would come back at once; an id is as good as a die here.
        u64::from_le_bytes(
            Uuid::new_v4().as_bytes()[..8]
                .try_into()
                .expect("8 of 16 bytes"),
        )
    });
    let start = (settings.hash, settings.version);
    let link = Link::new(now(), settings.timings.clone(), start, seed);
    let mut driver = Driver {
        settings: Arc::new(settings),
        apply,
        link,
        tasks: JoinSet::new(),
        connection: None,
        applying: None,
        generation: 0,
        events_in,
        state,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = until(driver.link.deadline()) => driver.tick(),
            Some(happened) = events.recv() => driver.happened(happened),
            Some(ended) = driver.tasks.join_next() => driver.ended(ended),
        }
    }
    driver.connection = None; // the writer says goodbye
    drop(events); // nobody waits for a full queue
    let all = async { while driver.tasks.join_next().await.is_some() {} };
    if timeout(STOP_GRACE, all).await.is_err() {
        driver.tasks.shutdown().await;
    }
}

/// What the tasks report.
enum Happened {
    Connection {
        generation: u64,
        event: FromControlPlane,
    },
    /// What became of a whole configuration.
    Applied(Outcome),
    Synced(Synced),
    /// Changes that were in force before are kept now.
    Settled(Report),
}

/// What became of a whole configuration.
#[derive(Default)]
struct Outcome {
    /// The hash now in force, or `None` if nothing changed.
    hash: Option<ConfigHash>,
    /// What a control plane may want to know of it.
    report: Option<ErrorReport>,
}

impl Outcome {
    fn of(hash: ConfigHash) -> Outcome {
        Outcome {
            hash: Some(hash),
            report: None,
        }
    }

    /// None of the configuration with this hash is in force.
    fn refused(hash: ConfigHash, problem: &str) -> Outcome {
        Outcome {
            hash: None,
            report: Some(ErrorReport::on_all(hash, problem)),
        }
    }
}

struct Handle {
    task: Id,
    outgoing: mpsc::Sender<Outgoing>,
    activity: Activity,
}

struct Driver<A> {
    settings: Arc<ClientSettings>,
    apply: Arc<A>,
    link: Link,
    tasks: JoinSet<()>,
    connection: Option<Handle>,
    applying: Option<Id>,
    /// Counts connections, so that the last words of an old one are not taken for the new one's.
    generation: u64,
    events_in: mpsc::Sender<Happened>,
    state: watch::Sender<LinkState>,
}

/// Waits for a point in time, for ever if there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl<A: Apply> Driver<A> {
    fn tick(&mut self) {
        // A large payload on a slow line is not silence.
        let active = self
            .connection
            .as_ref()
            .map(|connection| &connection.activity);
        if active.is_some_and(|activity| activity.swap(false, Ordering::Relaxed)) {
            self.step(Event::Heard);
        }
        self.step(Event::Tick);
    }

    fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Connection { generation, event } => {
                if generation != self.generation || self.connection.is_none() {
                    return;
                }
                match event {
                    FromControlPlane::Connected { takes_errors } => {
                        info!(control_plane = %self.settings.control_plane, "control plane connected");
                        self.state.send_replace(LinkState::Up);
                        self.step(Event::Connected { takes_errors });
                    }
                    FromControlPlane::ConnectedRpc { own } => {
                        info!(control_plane = %self.settings.control_plane, protocol = 2, "control plane connected");
                        self.state.send_replace(LinkState::Up);
                        self.step(Event::ConnectedRpc { own });
                    }
                    FromControlPlane::Frame(frame) => {
                        if let Some(connection) = &self.connection {
                            connection.activity.store(false, Ordering::Relaxed);
                        }
                        self.step(Event::Received(frame));
                    }
                    FromControlPlane::Ended(down) => self.lost(down),
                }
            }
            Happened::Applied(Outcome { hash, report }) => {
                self.applying = None;
                if let Some(report) = report {
                    self.step(Event::Objected(Box::new(report)));
                }
                self.step(hash.map_or(Event::Refused, Event::Applied));
            }
            Happened::Synced(synced) => {
                self.applying = None;
                if let Synced::Refused(problem) = &synced {
                    warn!(
                        problem,
                        "changes refused, the previous configuration stays in force"
                    );
                }
                self.step(Event::Synced(synced));
            }
            Happened::Settled(report) => self.step(Event::Settled(report)),
        }
    }

    /// Only a panic is news here; everything else came as an event.
    fn ended(&mut self, ended: Result<(), JoinError>) {
        let Err(panic) = ended else { return };
        error!(%panic, "a task of the control plane link panicked");
        if self.applying == Some(panic.id()) {
            self.applying = None;
            self.step(Event::Refused);
            self.step(Event::Synced(Synced::Refused(
                "a bug, see the log".to_owned(),
            )));
        } else if self
            .connection
            .as_ref()
            .is_some_and(|handle| handle.task == panic.id())
        {
            self.lost(Down::Bug);
        }
    }

    fn lost(&mut self, down: Down) {
        self.connection = None;
        self.report(&down);
        self.step(Event::Lost);
    }

    /// Says why the link is down, once per change of reason.
    fn report(&mut self, down: &Down) {
        let reason = down.to_string();
        let known =
            matches!(&*self.state.borrow(), LinkState::Down { reason: old } if *old == reason);
        if known {
            debug!(control_plane = %self.settings.control_plane, reason, "still no control plane");
        } else {
            warn!(
                control_plane = %self.settings.control_plane,
                reason,
                "no control plane, the configuration stays in force"
            );
        }
        self.state.send_replace(LinkState::Down { reason });
    }

    fn step(&mut self, event: Event) {
        for effect in self.link.step(now(), event) {
            match effect {
                Effect::Dial => self.dial(),
                Effect::Send(outgoing) => self.send(outgoing),
                Effect::Apply(frame) => self.start_apply(frame),
                Effect::ApplyChanges(changes) => self.start_sync(changes),
                Effect::HangUp => {
                    self.connection = None;
                    self.report(&Down::Silent);
                }
            }
        }
    }

    fn dial(&mut self) {
        self.generation += 1;
        let (generation, events) = (self.generation, self.events_in.clone());
        let (outgoing, frames) = mpsc::channel(OUTGOING_MAX);
        let (settings, activity) = (self.settings.clone(), Activity::default());
        let watched = activity.clone();
        let tell = move |event| {
            let (events, happened) = (events.clone(), Happened::Connection { generation, event });
            async move { events.send(happened).await.is_ok() }
        };
        let task = self.tasks.spawn(async move {
            let down = connection::run(&settings, frames, watched, &tell).await;
            tell(FromControlPlane::Ended(down)).await;
        });
        self.connection = Some(Handle {
            task: task.id(),
            outgoing,
            activity,
        });
    }

    fn send(&mut self, outgoing: Outgoing) {
        let sent = self
            .connection
            .as_ref()
            .map(|handle| handle.outgoing.try_send(outgoing));
        if let Some(Err(_)) = sent {
            self.lost(Down::NotReading);
        }
    }

    fn start_apply(&mut self, frame: Vec<u8>) {
        let (apply, events, in_force) =
            (self.apply.clone(), self.events_in.clone(), self.link.hash());
        let bytes_max = self.settings.expanded_bytes_max();
        let task = self.tasks.spawn(async move {
            let outcome = apply_frame(&*apply, frame, bytes_max, in_force).await;
            // Nobody listens any more only when the client stops.
            let _ = events.send(Happened::Applied(outcome)).await;
        });
        self.applying = Some(task.id());
    }

    fn start_sync(&mut self, changes: Changes) {
        let (apply, events) = (self.apply.clone(), self.events_in.clone());
        let task = self.tasks.spawn(async move {
            let large = match &changes {
                Changes::Answer { result, .. } => result.get().len() > LARGE_BYTES,
                Changes::Push(params) => params.get().len() > LARGE_BYTES,
            };
            let deltas = match large {
                false => read(&changes),
                true => tokio::task::spawn_blocking(move || read(&changes))
                    .await
                    .unwrap_or_else(|panic| Err(panic.to_string())),
            };
            let synced = match deltas {
                Ok(deltas) => apply.sync(deltas).await,
                Err(problem) => Synced::Refused(problem),
            };
            let settles = matches!(synced, Synced::InForce { settles: true, .. });
            // Nobody listens any more only when the client stops.
            let _ = events.send(Happened::Synced(synced)).await;
            if settles && let Some(report) = apply.settle().await {
                let _ = events.send(Happened::Settled(report)).await;
            }
        });
        self.applying = Some(task.id());
    }
}

/// Reads changes.
fn read(changes: &Changes) -> Result<Deltas, String> {
    match changes {
        Changes::Answer { from, result } => {
            let mut deltas = Deltas::from_raw(result)?;
            deltas.from = (!deltas.full).then_some(*from);
            // Kong names no version when nothing is new
            if deltas.list.is_empty() && deltas.hash.is_none() && !deltas.full {
                deltas.version = *from;
            }
            Ok(deltas)
        }
        Changes::Push(params) => Deltas::from_params(params),
    }
}

/// Decodes a frame and puts it in force.
async fn apply_frame<A: Apply>(
    apply: &A,
    frame: Vec<u8>,
    bytes_max: usize,
    in_force: ConfigHash,
) -> Outcome {
    let started = Instant::now();
    let bytes = frame.len();
    // Megabytes of JSON must not hold up the thread that serves requests.
    let decoded = tokio::task::spawn_blocking(move || {
        Reconfigure::decode(&frame, bytes_max).map(|payload| (payload.hash(), payload))
    });
    let (hash, payload) = match decoded.await {
        Ok(Ok(decoded)) => decoded,
        Ok(Err(FrameError::OtherType { found, .. })) => {
            debug!(found, "a frame of another type was ignored");
            return Outcome::default();
        }
        Ok(Err(problem)) => {
            warn!(%problem, bytes, "a configuration cannot be read, the previous one stays in force");
            return Outcome::refused(ConfigHash::ZERO, &problem.to_string());
        }
        Err(panic) => {
            error!(%panic, bytes, "reading a configuration panicked");
            return Outcome::refused(ConfigHash::ZERO, "a bug, see the gateway's log");
        }
    };
    if hash == in_force && !hash.is_zero() {
        debug!(%hash, "the configuration is already in force");
        return Outcome::of(hash);
    }
    match apply.apply(payload).await {
        Ok(Applied {
            hash: in_force,
            refused,
        }) => {
            let took_ms = started.elapsed().as_millis();
            info!(hash = %in_force, bytes, took_ms, "configuration applied");
            let told = !refused.is_empty();
            Outcome {
                hash: Some(in_force),
                report: told.then(|| ErrorReport::on_entities(hash, &refused)),
            }
        }
        Err(problem) => {
            warn!(%hash, %problem, "configuration refused, the previous one stays in force");
            Outcome::refused(hash, &problem.0)
        }
    }
}

impl From<Frame> for FromControlPlane {
    fn from(frame: Frame) -> FromControlPlane {
        FromControlPlane::Frame(frame)
    }
}
