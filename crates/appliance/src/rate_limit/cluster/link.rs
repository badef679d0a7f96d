//! The connection to one other node: what this node forwards to it, in batches of whatever is
//! there when it can be written.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use rustls::ClientConfig;
use sallyport_runtime::{dial, tls};
use sallyport_wire::rate_limit::frame::RESPONSE_BYTES_MAX;
use sallyport_wire::rate_limit::{Body, Extra, Id, Method, Request, Response, split};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::lease::Leases;
use super::members::{Peer, Peers};
use super::pending::{Pending, To, Why};
use crate::rate_limit::Limits;
use crate::rate_limit::limits::count;
use crate::rate_limit::server::OwnedRequest;

/// How long a node may take for its part of a STATUS; then it is left out.
const PART_MAX: Duration = Duration::from_millis(300);
/// How often a node is asked whether it is there.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// A node that has said nothing for as long owns nothing any more; at least, and four times as
/// long as an answer may take.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// The pause before a node is dialled again.
const RETRY: Duration = Duration::from_millis(200);
/// How long connecting may take, with the handshake.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Requests without an answer at a time.
const PENDING_MAX: usize = 65_536;
/// Bytes that wait to be written.
const OUT_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Default)]
struct State {
    up: bool,
    out: Vec<u8>,
    next: i32,
    pending: HashMap<i32, Pending, RandomState>,
    /// When each is due that has to be answered soon; those answered are passed over.
    due: VecDeque<(Instant, i32)>,
    /// The same for parts of a STATUS.
    parts_due: VecDeque<(Instant, i32)>,
    heard: Option<Instant>,
}

/// The connection to one other node, up or down.
pub(super) struct Link {
    name: String,
    peer: Peer,
    tls: Arc<ClientConfig>,
    /// How long the node may take to answer; then the bucket type's policy does.
    answer_within: Duration,
    leases: Arc<Leases>,
    limits: Arc<Limits>,
    state: Mutex<State>,
    up: AtomicBool,
    /// An answer is late: nobody else is made to wait until something comes.
    silent: AtomicBool,
    /// There is something to write.
    written: Notify,
    /// There is something that may become late.
    armed: Notify,
}

impl Link {
    pub(super) fn new(
        name: &str,
        peer: &Peer,
        peers: &Peers,
        leases: Arc<Leases>,
        limits: Arc<Limits>,
    ) -> Link {
        Link {
            name: name.to_owned(),
            peer: peer.clone(),
            tls: peers.dial.clone(),
            answer_within: peers.answer_within,
            leases,
            limits,
            state: Mutex::default(),
            up: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            written: Notify::new(),
            armed: Notify::new(),
        }
    }

    /// Whether the node takes part.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Sends a request; `false` if the node is not to be asked now. Its answer, or itself, comes
    /// back to where it is from.
    pub(super) fn send(&self, pending: Pending) -> bool {
        let silent = self.silent.load(Ordering::Relaxed);
        let refused = |pending: Pending| {
            if let To::Part(gathered) = pending.to {
                gathered.part(Vec::new());
            }
            false
        };
        if silent && matches!(pending.to, To::Client(_)) {
            return refused(pending);
        }
        let mut state = self.state();
        let full = state.pending.len() >= PENDING_MAX || state.out.len() >= OUT_BYTES_MAX;
        if !state.up || full {
            drop(state);
            return refused(pending);
        }
        let mut id = state.next;
        while state.pending.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        state.next = id.wrapping_add(1);
        let mut request = pending.request.get();
        request.id = Id::Number(id);
        request.lease = pending.lease.map_or(0, |(_, more)| more);
        request.encode(&mut state.out);
        if !request.skip_response {
            if let To::Client(outbox) = &pending.to {
                outbox.owe();
            }
            let now = Instant::now();
            let was_idle = state.due.is_empty() && state.parts_due.is_empty();
            match request.method {
                // Who waits for tokens waits for them at the owner.
                Method::Wait => {}
                Method::Status => state.parts_due.push_back((now + PART_MAX, id)),
                _ => state.due.push_back((now + self.answer_within, id)),
            }
            if was_idle {
                self.armed.notify_one();
            }
            state.pending.insert(id, pending);
        }
        drop(state);
        self.written.notify_one();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_up(&self) {
        let mut state = self.state();
        state.up = true;
        state.out.clear();
        state.heard = Some(Instant::now());
        self.silent.store(false, Ordering::Relaxed);
        self.up.store(true, Ordering::Release);
    }

    /// Everything on its way goes back, to be asked elsewhere.
    fn set_down(&self) {
        self.up.store(false, Ordering::Release);
        let mut state = self.state();
        state.up = false;
        state.out = Vec::new();
        state.due.clear();
        state.parts_due.clear();
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        for (_, pending) in pending {
            pending.come_back(Why::Gone);
        }
    }

    fn answered(&self, response: Response<'_>) {
        let Id::Number(id) = response.id else { return };
        let Some(pending) = self.state().pending.remove(&id) else {
            return; // too late
        };
        if let (Some((name, _)), Body::Take(taken)) = (pending.lease, &response.body) {
            let count = count(&pending.request.get()).unwrap_or(0);
            let ms = self.limits.now().ms;
            self.leases
                .answered(name, count, *taken, response.extra, ms);
        }
        match (pending.to, response.body) {
            (To::Client(outbox), body) => {
                let id = pending.request.id.get();
                let extra = Extra::default();
                outbox.pay(|out| Response { id, body, extra }.encode(out));
            }
            (To::Part(gathered), Body::Status(items)) => gathered.part(items),
            (To::Part(gathered), _) => gathered.part(Vec::new()),
            (To::Nobody, _) => {}
        }
    }

    /// Gives back what is late at `now`; says when the next one will be.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let State {
            pending,
            due,
            parts_due,
            ..
        } = &mut *state;
        let late = overdue(due, pending, now);
        let parts_late = overdue(parts_due, pending, now);
        let fronts = [due.front(), parts_due.front()];
        let next = fronts.into_iter().flatten().map(|(due, _)| *due).min();
        drop(state);
        if !late.is_empty() && !self.silent.swap(true, Ordering::Relaxed) {
            warn!(
                node = self.name,
                "node is silent, its keys are answered here"
            );
        }
        for pending in late.into_iter().chain(parts_late) {
            pending.come_back(Why::Silent);
        }
        next
    }

    fn heard(&self) {
        self.state().heard = Some(Instant::now());
        if self.silent.swap(false, Ordering::Relaxed) {
            info!(node = self.name, "node answers again");
        }
    }

    async fn connect(&self) -> Result<impl AsyncRead + AsyncWrite + use<>, String> {
        let Peer {
            host,
            port,
            certified,
        } = &self.peer;
        let stream = dial("rate_limit", host, *port, CONNECT_MAX).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let shaken = tls::connect(self.tls.clone(), certified, stream);
        let shaken = timeout(CONNECT_MAX, shaken).await;
        let stream = shaken.map_err(|_| "the TLS handshake takes too long".to_owned())?;
        stream.map_err(|error| error.to_string())
    }

    /// Reads answers until the connection ends.
    async fn read<R: AsyncRead + Unpin>(&self, mut stream: R) -> io::Result<()> {
        let mut input = Vec::new();
        loop {
            input.reserve(16 * 1024);
            let closed =
                || io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
            match stream.read_buf(&mut input).await {
                Ok(0) => return Err(closed()),
                // by TLS without a word of goodbye
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(closed()),
                read => _ = read?,
            }
            self.heard();
            let mut done = 0;
            while let Some(frame) =
                split(&input[done..], RESPONSE_BYTES_MAX).map_err(io::Error::other)?
            {
                done += frame.bytes;
                self.answered(Response::decode(frame.body).map_err(io::Error::other)?);
            }
            input.drain(..done);
        }
    }

    /// Writes whatever there is until the connection ends.
    async fn write<W: AsyncWrite + Unpin>(&self, mut stream: W) -> io::Result<()> {
        let mut batch = Vec::new();
        loop {
            self.written.notified().await;
            std::mem::swap(&mut batch, &mut self.state().out);
            if !batch.is_empty() {
                stream.write_all(&batch).await?;
                stream.flush().await?;
                batch.clear();
            }
        }
    }

    /// Asks whether the node is there, until it has not said so for too long.
    async fn probe(&self) -> io::Result<()> {
        let silence_max = SILENCE_MAX.max(4 * self.answer_within);
        let mut before = Instant::now();
        loop {
            let nothing: &[u8] = b"";
            self.send(Pending {
                to: To::Nobody,
                request: OwnedRequest::from(&Request {
                    id: Id::Number(0),
                    bucket: nothing,
                    key: nothing,
                    method: Method::Ping,
                    count: None,
                    all: false,
                    skip_response: false,
                    lease: 0,
                    windows: b"",
                }),
                lease: None,
            });
            sleep(PROBE_EVERY).await;
            let now = Instant::now();
            let mut state = self.state();
            if now - before > SILENCE_MAX / 2 {
                // It was this process that slept, and answers may lie unread.
                state.heard = Some(now);
            }
            before = now;
            if state.heard.is_none_or(|heard| now - heard > silence_max) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it is silent"));
            }
        }
    }

    /// Gives back what is late.
    async fn watch(&self) -> io::Result<()> {
        loop {
            match self.expire(Instant::now()) {
                Some(due) => sleep_until(due).await,
                None => self.armed.notified().await,
            }
        }
    }
}

/// Takes out what was due by `now` and is not answered yet.
fn overdue(
    queue: &mut VecDeque<(Instant, i32)>,
    pending: &mut HashMap<i32, Pending, RandomState>,
    now: Instant,
) -> Vec<Pending> {
    let mut late = Vec::new();
    while let Some((_, id)) = queue.pop_front_if(|(due, _)| *due <= now) {
        late.extend(pending.remove(&id));
    }
    late
}

/// Keeps the connection up until `stop`.
pub(super) async fn run(link: Arc<Link>, stop: CancellationToken) {
    let mut told = false;
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = link.connect() => connected,
        };
        match connected {
            Ok(stream) => {
                told = false;
                link.set_up();
                info!(node = link.name, "node reached");
                let (read, write) = tokio::io::split(stream);
                let ended = tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    ended = link.read(read) => ended,
                    ended = link.write(write) => ended,
                    ended = link.probe() => ended,
                    ended = link.watch() => ended,
                };
                link.set_down();
                if let Err(error) = ended {
                    warn!(node = link.name, %error, "node lost, its keys belong to others");
                }
            }
            Err(error) if !told => {
                told = true;
                warn!(
                    node = link.name,
                    error, "node cannot be reached, trying again"
                );
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(RETRY) => {}
        }
    }
}
