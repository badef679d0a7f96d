//! Workers: one thread, one runtime, one set of listeners and one upstream pool for each core.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use http::HeaderValue;
use rustls::ClientConfig;
use sallyport_plugins::metrics::Metrics;
use sallyport_plugins::{Env, Exchange, Finished, Node};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet, LocalSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::calls::Connections;
use super::clock::now;
use super::forward::open;
use super::listeners::{Bound, Listeners, Socket};
use super::options::Options;
use super::pool::{Key, Pool};
use super::request_ids::RequestIds;
use super::spare::Spare;
use super::upstream::Upstream;
use super::{connection, stream};
use crate::balancer::{Balancers, Cursors};
use crate::certificates::ByName;
use crate::configuration::Configuration;
use crate::log_queue::Queues;
use crate::logs::{Lines, LocalTime};
use crate::rate_limit::Nodes;
use crate::redis::Links;
use crate::telemetry::Fold;

/// How often idle connections and old configurations are let go.
const TICK: Duration = Duration::from_secs(1);

/// What all workers of a gateway share.
pub(crate) struct Shared {
    configuration: ArcSwap<Configuration>,
    /// Grows with every swap, so that a worker sees one with a plain load.
    generation: AtomicU64,
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) options: Arc<Options>,
    pub(crate) balancers: Arc<Balancers>,
    certificates: ByName,
    /// Requests answered.
    pub(crate) requests: AtomicU64,
    /// Client connections accepted.
    pub(crate) accepted: AtomicU64,
    /// Client connections open now.
    pub(crate) open: AtomicU64,
    /// Requests under way now, about a second ago.
    pub(crate) under_way: AtomicI64,
    /// Workers that serve, and those there should be.
    workers: [AtomicUsize; 2],
}

impl Shared {
    /// With the configuration to start with, made with these balancers. Listeners show what is
    /// in the certificates given.
    pub(crate) fn new(
        options: Options,
        configuration: Configuration,
        balancers: Arc<Balancers>,
        (certificates, log_queues, nodes): (ByName, Queues, Nodes),
    ) -> Shared {
        balancers.put_in_force(&configuration.balancers);
        certificates.put_in_force(&configuration.named);
        warn_of_streams(&configuration, &options);
        let redis = Links::new(&options.tls_verified, &options.tls_unverified);
        let node = Node::new(
            Box::new(redis),
            Box::new(log_queues),
            options.cache_bytes_max,
            options.facts.clone(),
        )
        .counting_on(Box::new(nodes));
        Shared {
            configuration: ArcSwap::from_pointee(configuration),
            generation: AtomicU64::new(1),
            node: Arc::new(node),
            metrics: Arc::default(),
            options: Arc::new(options),
            balancers,
            certificates,
            requests: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            under_way: AtomicI64::new(0),
            workers: Default::default(),
        }
    }

    /// Serves `configuration` from the next request on; requests under way finish with theirs.
    pub(crate) fn swap(&self, configuration: Configuration) {
        let before = self.configuration.load();
        let same = before.balancers.is_same(&configuration.balancers);
        drop(before);
        if !same {
            self.balancers.put_in_force(&configuration.balancers);
        }
        self.certificates.put_in_force(&configuration.named);
        warn_of_streams(&configuration, &self.options);
        self.configuration.store(Arc::new(configuration));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// How many workers serve, and how many there should be. Each of them takes the configuration
    /// in force for its next request.
    pub(crate) fn workers_serving(&self) -> (usize, usize) {
        let [serving, all] = &self.workers;
        (serving.load(Ordering::Relaxed), all.load(Ordering::Relaxed))
    }

    /// The configuration in force.
    pub(crate) fn configuration(&self) -> Arc<Configuration> {
        self.configuration.load_full()
    }
}

/// Routes that nothing can reach are hardly what was meant.
fn warn_of_streams(configuration: &Configuration, options: &Options) {
    let routes = configuration.streams.len();
    if routes > 0 && !options.takes_streams {
        warn!(
            routes,
            "routes of streams are not served: stream_listen is off"
        );
    }
}

/// A configuration as one worker holds it: counted there, so that requests on different cores
/// do not write to one count.
pub(crate) struct Held(Arc<Configuration>);

impl std::ops::Deref for Held {
    type Target = Configuration;

    fn deref(&self) -> &Configuration {
        &self.0
    }
}

/// The part of a gateway that runs on one core.
pub(super) struct Worker {
    shared: Arc<Shared>,
    pub(super) options: Arc<Options>,
    pub(super) node: Arc<Node>,
    pub(super) metrics: Arc<Metrics>,
    /// The access log's lines; `None` if it is off.
    pub(super) access: Option<Lines>,
    /// What is counted here; `None` if nobody wants to know.
    pub(super) telemetry: Option<RefCell<Fold>>,
    /// The same of streams.
    pub(super) stream_access: Option<Lines>,
    local_time: RefCell<LocalTime>,
    pub(super) pool: Rc<Pool>,
    pub(super) spare: Spare,
    pub(super) calls: Connections,
    pub(super) balancers: Arc<Balancers>,
    pub(super) cursors: Cursors,
    configuration: RefCell<(u64, Rc<Held>)>,
    ids: RequestIds,
    /// Whether connections end with the request under way.
    stopping: Cell<bool>,
    date: RefCell<(u64, HeaderValue)>,
    /// One moment by both clocks, renewed on each tick.
    moment: Cell<(Instant, u64)>,
    // counted here and published on each tick: a shared line would bounce between cores
    requests: Cell<u64>,
    under_way: Cell<i64>,
    under_way_published: Cell<i64>,
}

impl Worker {
    fn new(shared: Arc<Shared>, seed: [u64; 2]) -> Worker {
        let current = Rc::new(Held(shared.configuration()));
        Worker {
            options: shared.options.clone(),
            node: shared.node.clone(),
            metrics: shared.metrics.clone(),
            access: shared.options.access_log.clone().map(Lines::new),
            telemetry: shared
                .options
                .telemetry
                .clone()
                .map(|inbox| RefCell::new(Fold::new(inbox))),
            stream_access: shared.options.stream_access_log.clone().map(Lines::new),
            local_time: RefCell::default(),
            pool: Rc::new(Pool::new(shared.options.keepalive)),
            spare: Spare::default(),
            calls: Connections::new(shared.options.keepalive),
            balancers: shared.balancers.clone(),
            cursors: Cursors::new(seed[0] ^ seed[1]),
            configuration: RefCell::new((0, current)),
            ids: RequestIds::new(seed),
            stopping: Cell::new(false),
            date: RefCell::new((0, HeaderValue::from_static(""))),
            moment: Cell::new(both_clocks()),
            requests: Cell::new(0),
            under_way: Cell::new(0),
            under_way_published: Cell::new(0),
            shared,
        }
    }

    /// Milliseconds since the Unix epoch at a moment about now.
    pub(super) fn unix_ms(&self, at: Instant) -> u64 {
        let (moment, unix_ms) = self.moment.get();
        unix_ms + at.saturating_duration_since(moment).as_millis() as u64
    }

    /// Nanoseconds since the Unix epoch at a moment about now or before.
    pub(super) fn unix_ns(&self, at: Instant) -> u64 {
        let (moment, unix_ms) = self.moment.get();
        let unix_ns = unix_ms * 1_000_000;
        match at.checked_duration_since(moment) {
            Some(since) => unix_ns + since.as_nanos() as u64,
            None => unix_ns.saturating_sub((moment - at).as_nanos() as u64),
        }
    }

    /// A time as access logs tell it.
    pub(super) fn with_local_time(&self, unix_ms: u64, then: impl FnOnce(&str)) {
        then(self.local_time.borrow_mut().at(unix_ms));
    }

    /// The configuration in force, without touching what other cores write.
    pub(super) fn configuration(&self) -> Rc<Held> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let mut held = self.configuration.borrow_mut();
        if held.0 != generation {
            *held = (generation, Rc::new(Held(self.shared.configuration())));
        }
        held.1.clone()
    }

    /// A fresh request id: 32 hex digits, unique in practice, not a secret.
    pub(super) fn request_id(&self) -> HeaderValue {
        self.requests.set(self.requests.get() + 1);
        self.ids.next()
    }

    /// The log phase of the handlers that were chosen.
    pub(super) fn tell_logs(
        &self,
        configuration: &Configuration,
        chosen: &[u32],
        exchange: &mut Exchange,
        finished: &Finished<'_>,
    ) {
        let env = Env {
            identities: &configuration.identities,
            node: &self.node,
            metrics: &self.metrics,
            arriving: None,
        };
        let handlers = chosen
            .iter()
            .map(|&index| configuration.handlers.get(index));
        for handler in handlers.filter(|handler| handler.logs()) {
            handler.log(exchange, finished, &env);
        }
    }

    /// A request begins (1) or ends (-1).
    pub(super) fn counts_under_way(&self, change: i64) {
        self.under_way.set(self.under_way.get() + change);
    }

    /// Whether connections end with the request under way.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// The value of `Date`, made once a second.
    pub(super) fn with_date<T>(&self, then: impl FnOnce(&HeaderValue) -> T) -> T {
        let now = SystemTime::now();
        let second = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != second {
            let text = httpdate::fmt_http_date(now);
            *date = (
                second,
                HeaderValue::try_from(text).expect("a date is ASCII"),
            );
        }
        then(&date.1)
    }

    /// A new connection to an upstream.
    pub(super) async fn connect(
        &self,
        key: Key,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Box<Upstream>> {
        Ok(Box::new(Upstream::new(open(&key, tls).await?, key)))
    }

    fn tick(&self) {
        self.moment.set(both_clocks());
        self.pool.sweep();
        self.calls.sweep();
        drop(self.configuration());
        self.shared
            .requests
            .fetch_add(self.requests.take(), Ordering::Relaxed);
        for access in [&self.access, &self.stream_access].into_iter().flatten() {
            access.hand_in();
        }
        if let Some(telemetry) = &self.telemetry {
            telemetry.borrow_mut().hand_in();
        }
        let under_way = self.under_way.get();
        let before = self.under_way_published.replace(under_way);
        if under_way != before {
            let more = under_way - before;
            self.shared.under_way.fetch_add(more, Ordering::Relaxed);
        }
    }
}

/// Now, by the clock that only runs and in milliseconds since the Unix epoch.
fn both_clocks() -> (Instant, u64) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    (now(), since.map_or(0, |since| since.as_millis() as u64))
}

/// The running workers of a gateway.
pub(crate) struct Workers(Vec<JoinHandle<()>>);

impl Workers {
    /// Starts one worker for each set of listeners. They stop accepting at `stop` and then give
    /// open requests `grace` to finish.
    ///
    /// # Errors
    /// The system gives no thread, no runtime or no randomness.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        listeners: Vec<Listeners>,
        stop: &CancellationToken,
        grace: Duration,
    ) -> io::Result<Workers> {
        let mut threads = Vec::new();
        shared.workers[1].store(listeners.len(), Ordering::Relaxed);
        for (n, listeners) in listeners.into_iter().enumerate() {
            let mut seed = [0; 16];
            getrandom::fill(&mut seed).map_err(io::Error::other)?;
            let (low, high) = seed.split_at(8);
            let half = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
            let seed = [half(low), half(high)];
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (shared, stop) = (shared.clone(), stop.clone());
            let thread = std::thread::Builder::new()
                .name(format!("proxy-{n}"))
                .spawn(move || {
                    let worker = Rc::new(Worker::new(shared, seed));
                    LocalSet::new().block_on(&runtime, run(worker, listeners, stop, grace));
                })?;
            threads.push(thread);
        }
        Ok(Workers(threads))
    }

    /// Waits until every worker has stopped. Blocks.
    pub(crate) fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                warn!("a worker panicked");
            }
        }
    }
}

async fn run(worker: Rc<Worker>, listeners: Listeners, stop: CancellationToken, grace: Duration) {
    let _serving = Serving::new(&worker.shared);
    let mut accepting = JoinSet::new();
    for (bound, socket) in listeners {
        let (worker, stop) = (worker.clone(), stop.clone());
        match socket {
            Socket::Tcp(listener) => {
                accepting.spawn_local(accept(worker, bound, listener, stop, grace));
            }
            Socket::Udp(socket) => {
                let address = worker.options.outside(bound.address);
                accepting.spawn_local(stream::udp::run(worker, socket, address, stop, grace));
            }
        }
    }
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = tick.tick() => worker.tick(),
            () = lines_due(&worker.access) => {}
            () = lines_due(&worker.stream_access) => {}
            ended = accepting.join_next() => match ended {
                None => break,
                Some(Err(error)) => warn!(%error, "a listener ended"),
                Some(Ok(())) => {}
            },
        }
    }
    worker.tick();
}

/// Hands in log lines that waited long enough.
async fn lines_due(access: &Option<Lines>) {
    match access {
        Some(access) => access.hand_in_soon().await,
        None => std::future::pending().await,
    }
}

/// Accepts until `stop`, then lets open connections finish within `grace`.
async fn accept(
    worker: Rc<Worker>,
    bound: Bound,
    listener: std::net::TcpListener,
    stop: CancellationToken,
    grace: Duration,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, address = %bound.address, "listener lost"),
    };
    let mut connections = JoinSet::new();
    let mut open: HashMap<Id, Open> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    worker.shared.accepted.fetch_add(1, Ordering::Relaxed);
                    let counted = Counted::new(&worker.shared);
                    let (worker, bound, stop) = (worker.clone(), bound.clone(), stop.clone());
                    let busy = Rc::new(Cell::new(true));
                    let seen = busy.clone();
                    let task = connections.spawn_local(async move {
                        let _counted = counted;
                        connection::serve(&worker, &bound, stream, peer, stop, &busy).await;
                    });
                    open.insert(task.id(), Open { busy: seen, task });
                }
                // out of file descriptors, most likely: wait for some to come back
                Err(error) => {
                    warn!(%error, address = %bound.address, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(ended) = connections.join_next_with_id() => report(&mut open, ended),
        }
    }
    drop(listener);
    worker.stopping.set(true);
    for Open { busy, task } in open.values() {
        if !busy.get() {
            task.abort();
        }
    }
    let finish = async {
        while let Some(ended) = connections.join_next_with_id().await {
            report(&mut open, ended);
        }
    };
    if timeout(grace, finish).await.is_err() {
        warn!(open = connections.len(), "grace period over, closing");
        connections.shutdown().await;
    }
}

/// A worker in the count of those that serve, however it ends.
struct Serving(Arc<Shared>);

impl Serving {
    fn new(shared: &Arc<Shared>) -> Serving {
        shared.workers[0].fetch_add(1, Ordering::Relaxed);
        Serving(shared.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.workers[0].fetch_sub(1, Ordering::Relaxed);
    }
}

/// One open connection in the count of them, however it ends.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Counted {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Counted(shared.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is being served.
struct Open {
    /// Whether a request is under way on it.
    busy: Rc<Cell<bool>>,
    task: AbortHandle,
}

fn report(open: &mut HashMap<Id, Open>, ended: Result<(Id, ()), JoinError>) {
    match ended {
        Ok((id, ())) => _ = open.remove(&id),
        Err(error) => {
            open.remove(&error.id());
            if error.is_panic() {
                warn!(%error, "a connection's task panicked");
            }
        }
    }
}
