//! Pushing telemetry on: to Prometheus by remote write, to OpenTelemetry collectors by OTLP.
//!
//! Each destination has a task, a feed with a bound and a queue with a bound of its own, so none that
//! is away or slow holds up the others or the database.

mod otlp;
mod remote_write;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sallyport_model::Kind;
use sallyport_plugins::metrics::{Exposition, Family, Kind as MetricKind};
use sallyport_runtime::backoff;
use sallyport_store::Store;
use sallyport_wire::telemetry::Dimensions;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::Added;
use super::settings::{Destination, Form};
use crate::post::{Answer, Post, REQUEST_TIME_MAX, post};

/// Additions that wait for a destination's task.
const FEED_MAX: usize = 64;
/// Requests that wait for a destination, and their bytes.
const QUEUE_MAX: usize = 1_000;
const QUEUE_BYTES_MAX: usize = 64 << 20;
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// For what is left at the end.
const LAST_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a name is believed.
const NAME_TIME_MAX: Duration = Duration::from_secs(60);

/// What became of exports to one destination.
pub(super) struct Counters {
    url: String,
    form: Form,
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    /// Records that the task had no room for.
    missed: AtomicU64,
    waiting: AtomicU64,
}

/// A request that waits.
struct Request {
    headers: &'static [(&'static str, &'static str)],
    more: Option<(&'static str, String)>,
    body: Bytes,
}

/// What makes requests out of additions.
enum Maker {
    RemoteWrite(remote_write::State),
    Otlp(otlp::State),
}

/// An attempt to send a request.
type Sending = Pin<Box<dyn Future<Output = Result<Answer, String>> + Send>>;

async fn ended(sending: &mut Option<Sending>) -> Result<Answer, String> {
    match sending {
        Some(sending) => sending.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Where what is new is handed in for a destination.
pub(super) struct Feed {
    sender: mpsc::Sender<Added>,
    counters: Arc<Counters>,
}

impl Feed {
    /// Hands in what was added, or counts it as missed.
    pub(super) fn add(&self, added: &Added) {
        if self.sender.try_send(Arc::clone(added)).is_err() {
            let missed = added.len() as u64;
            self.counters.missed.fetch_add(missed, Ordering::Relaxed);
        }
    }
}

/// The task of one destination.
pub(super) struct Exporter {
    to: Destination,
    feed: mpsc::Receiver<Added>,
    maker: Maker,
    names: Names,
    queue: VecDeque<Request>,
    /// Of the queue.
    bytes: usize,
    /// What is being sent, or will be sent again.
    current: Option<Request>,
    counters: Arc<Counters>,
    failures: u32,
    not_before: Instant,
    dropping: bool,
}

impl Exporter {
    /// A destination's task, and where to hand in what is new.
    pub(super) fn new(to: Destination, store: Store) -> (Feed, Exporter) {
        let (sender, feed) = mpsc::channel(FEED_MAX);
        let counters = Arc::new(Counters {
            url: to.url.clone(),
            form: to.form,
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        });
        let maker = match to.form {
            Form::RemoteWrite => Maker::RemoteWrite(remote_write::State::default()),
            Form::Otlp => Maker::Otlp(otlp::State::new(unix_ns())),
        };
        let exporter = Exporter {
            to,
            feed,
            maker,
            names: Names {
                store,
                known: HashMap::new(),
            },
            queue: VecDeque::new(),
            bytes: 0,
            current: None,
            counters,
            failures: 0,
            not_before: Instant::now(),
            dropping: false,
        };
        let counters = Arc::clone(&exporter.counters);
        (Feed { sender, counters }, exporter)
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Pushes until `stop`, or until nobody hands in more; then what is left.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(self.to.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sending: Option<Sending> = None;
        loop {
            let is_sending = sending.is_some();
            let is_due = !is_sending && self.waiting() > 0;
            let due = self.not_before.max(Instant::now());
            tokio::select! {
                () = stop.cancelled() => break,
                added = self.feed.recv() => match added {
                    Some(added) => self.add(&added),
                    None => break,
                },
                _ = ticks.tick() => self.make().await,
                ended = ended(&mut sending), if is_sending => {
                    sending = None;
                    self.ended(ended);
                }
                () = tokio::time::sleep_until(due), if is_due => sending = self.send(),
            }
            let waiting = self.waiting() as u64;
            self.counters.waiting.store(waiting, Ordering::Relaxed);
        }
        while let Ok(added) = self.feed.try_recv() {
            self.add(&added);
        }
        self.make().await;
        let rest = async {
            while let Some(current) = sending.take().or_else(|| self.send()) {
                self.ended(current.await);
                if self.failures > 0 {
                    break;
                }
            }
        };
        if timeout(LAST_TIME_MAX, rest).await.is_err() {
            debug!("an export of telemetry did not end in time");
        }
    }

    fn add(&mut self, added: &Added) {
        for (control_plane, record) in added.iter() {
            match &mut self.maker {
                Maker::RemoteWrite(state) => state.add(*control_plane, record),
                Maker::Otlp(state) => state.add(*control_plane, record),
            }
        }
    }

    /// Makes requests of what was added.
    async fn make(&mut self) {
        let (names, instance) = (&mut self.names, self.to.instance.as_str());
        let made = match &mut self.maker {
            Maker::RemoteWrite(state) => state.make(names, instance, unix_ns()).await,
            Maker::Otlp(state) => state.make(unix_ns()),
        };
        for request in made {
            self.bytes += request.body.len();
            self.queue.push_back(request);
        }
        while self.queue.len() > QUEUE_MAX || self.bytes > QUEUE_BYTES_MAX {
            _ = self.pop();
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut self.dropping, true) {
                warn!(
                    to = self.to.url,
                    "an export of telemetry waits for too long, the oldest is given up"
                );
            }
        }
    }

    fn waiting(&self) -> usize {
        self.queue.len() + usize::from(self.current.is_some())
    }

    fn pop(&mut self) -> Option<Request> {
        let request = self.queue.pop_front()?;
        self.bytes -= request.body.len();
        Some(request)
    }

    /// Sends the oldest request.
    fn send(&mut self) -> Option<Sending> {
        if self.current.is_none() {
            self.current = self.pop();
        }
        let request = self.current.as_ref()?;
        let (fixed, more) = (request.headers, request.more.clone());
        let (to, body) = (self.to.clone(), request.body.clone());
        Some(Box::pin(async move {
            let mut headers: Vec<(&str, &str)> = fixed.to_vec();
            if let Some((name, value)) = &more {
                headers.push((name, value));
            }
            let request = Post {
                id: "telemetry.export",
                uri: &to.uri,
                headers: &headers,
                authorization: &to.authorization,
                body,
            };
            let tls = || to.tls.clone().ok_or_else(|| "no TLS".to_owned());
            let sent = timeout(REQUEST_TIME_MAX, post(request, tls)).await;
            sent.unwrap_or_else(|_| Err("no answer in time".to_owned()))
        }))
    }

    /// An attempt to send the oldest request is over.
    fn ended(&mut self, sent: Result<Answer, String>) {
        let (reason, again, after) = match sent {
            Ok(answer) if answer.status.is_success() => {
                self.current = None;
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
                if self.failures > 0 {
                    info!(to = self.to.url, "an export of telemetry is taken again");
                }
                (self.failures, self.dropping) = (0, false);
                return;
            }
            Ok(Answer {
                status,
                retry_after,
                text,
            }) => {
                let again = status.is_server_error() || status.as_u16() == 429;
                (format!("answered {status} {text}"), again, retry_after)
            }
            Err(reason) => (reason, true, None),
        };
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        if self.failures == 0 {
            warn!(
                to = self.to.url,
                reason, again, "an export of telemetry is not taken"
            );
        }
        if !again {
            // it will never be taken
            self.current = None;
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.failures = self.failures.saturating_add(1);
        let mut dice = [0; 2];
        // without randomness the pause is the shortest, which is as good
        _ = getrandom::fill(&mut dice);
        let pause = backoff::pause(self.failures, u16::from_le_bytes(dice), PAUSE_MAX);
        self.not_before = Instant::now() + pause.max(after.unwrap_or_default().min(PAUSE_MAX));
    }
}

fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// What entities are called, as far as it is known.
struct Names {
    store: Store,
    known: HashMap<(Uuid, Uuid), (String, Instant)>,
}

/// Names of a series' parts.
struct Named {
    control_plane: String,
    service: String,
    route: String,
    consumer: String,
}

impl Names {
    async fn of(&mut self, control_plane: Uuid, of: &Dimensions) -> Named {
        if of.overflow {
            let rest = || "overflow".to_owned();
            return Named {
                control_plane: self.control_plane(control_plane).await,
                service: rest(),
                route: rest(),
                consumer: rest(),
            };
        }
        Named {
            control_plane: self.control_plane(control_plane).await,
            service: self.entity(control_plane, Kind::Service, of.service).await,
            route: self.entity(control_plane, Kind::Route, of.route).await,
            consumer: self
                .entity(control_plane, Kind::Consumer, of.consumer)
                .await,
        }
    }

    fn fresh(&self, control_plane: Uuid, id: Uuid) -> Option<&String> {
        let (name, since) = self.known.get(&(control_plane, id))?;
        Some(name).filter(|_| since.elapsed() < NAME_TIME_MAX)
    }

    async fn control_plane(&mut self, id: Uuid) -> String {
        if let Some(name) = self.fresh(id, id) {
            return name.clone();
        }
        let found = self.store.control_plane(id).await;
        let name = found.map_or_else(|_| id.to_string(), |found| found.name);
        self.known.insert((id, id), (name.clone(), Instant::now()));
        name
    }

    async fn entity(&mut self, control_plane: Uuid, kind: Kind, id: Option<Uuid>) -> String {
        let Some(id) = id else {
            return String::new();
        };
        if let Some(name) = self.fresh(control_plane, id) {
            return name.clone();
        }
        let found = self.store.get(control_plane, kind, id).await.ok().flatten();
        let name = found.as_ref().and_then(name_of).map(str::to_owned);
        let name = name.unwrap_or_else(|| id.to_string());
        self.known
            .insert((control_plane, id), (name.clone(), Instant::now()));
        name
    }
}

/// What an entity is called: its `name`, or a consumer's `username` or `custom_id`.
pub(super) fn name_of(entity: &Value) -> Option<&str> {
    ["name", "username", "custom_id"]
        .into_iter()
        .find_map(|field| entity[field].as_str())
}

const fn family(name: &'static str, help: &'static str, kind: MetricKind) -> Family {
    Family {
        name,
        help,
        kind,
        labels: &["kind", "url"],
    }
}

static SENT: Family = family(
    "sallyport_telemetry_export_requests_total",
    "Requests with telemetry that a destination took",
    MetricKind::Counter,
);
static FAILED: Family = family(
    "sallyport_telemetry_export_failures_total",
    "Attempts that a destination did not take",
    MetricKind::Counter,
);
static DROPPED: Family = family(
    "sallyport_telemetry_export_dropped_requests_total",
    "Requests with telemetry that were given up",
    MetricKind::Counter,
);
static MISSED: Family = family(
    "sallyport_telemetry_export_missed_records_total",
    "Records that a destination does not get, as its task fell behind",
    MetricKind::Counter,
);
static WAITING: Family = family(
    "sallyport_telemetry_export_waiting_requests",
    "Requests with telemetry that wait to be taken",
    MetricKind::Gauge,
);

/// Writes the metrics of all destinations.
pub(super) fn metrics(all: &[Arc<Counters>], out: &mut Exposition) {
    type Of = fn(&Counters) -> &AtomicU64;
    let families: [(&'static Family, Of); 5] = [
        (&SENT, |it| &it.sent),
        (&FAILED, |it| &it.failed),
        (&DROPPED, |it| &it.dropped),
        (&MISSED, |it| &it.missed),
        (&WAITING, |it| &it.waiting),
    ];
    for (family, of) in families {
        for counters in all {
            let labels = [counters.form.as_str(), counters.url.as_str()];
            out.value(family, &labels, super::load(of(counters)));
        }
    }
}
