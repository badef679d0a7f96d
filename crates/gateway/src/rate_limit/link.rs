//! The one connection: to the first node that can be reached.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sallyport_plugins::CountError;
use sallyport_runtime::{dial, tls};
use sallyport_wire::rate_limit::frame::RESPONSE_BYTES_MAX;
use sallyport_wire::rate_limit::{Body, Counted, Id, Method, Request, Response, split};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::{Ask, Settings, Stats};

/// How long a failure stands before nodes are dialled again.
const FAILED: Duration = Duration::from_secs(1);
/// Questions that are sent together at most.
const BATCH_MAX: usize = 512;
/// Questions without an answer at a time.
const PENDING_MAX: usize = 10_000;
/// Buckets of gateways, apart from those that are configured.
const BUCKET: &[u8] = b"gateway";

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Keeps a connection and answers, until nobody asks any more.
pub(super) async fn keep(settings: Settings, mut asked: mpsc::Receiver<Ask>, stats: Arc<Stats>) {
    let mut first = 0;
    let mut told = false;
    loop {
        let mut failed = None;
        for at in (0..settings.nodes.len()).map(|at| (first + at) % settings.nodes.len()) {
            match connect(&settings, at).await {
                Ok(io) => {
                    let (host, port) = &settings.nodes[at];
                    info!(node = %format_args!("{host}:{port}"), "rate limits are counted on a node");
                    told = false;
                    stats.connected.store(true, Ordering::Relaxed);
                    let ended = serve(io, &settings, &mut asked).await;
                    stats.connected.store(false, Ordering::Relaxed);
                    let Err(error) = ended else { return };
                    warn!(node = %format_args!("{host}:{port}"), %error, "a node that counts rate limits is lost");
                    // the next one first: this one may hang
                    first = at + 1;
                    failed = None;
                    break;
                }
                Err(error) => failed = Some(error),
            }
        }
        let Some(error) = failed else { continue };
        if !told {
            told = true;
            warn!(%error, "no node that counts rate limits can be reached; requests go by fault_tolerant");
        }
        first = 0;
        if !refuse(&mut asked, &error.into()).await {
            return;
        }
    }
}

/// Answers for a while that no node is there; `false` once nobody asks any more.
async fn refuse(asked: &mut mpsc::Receiver<Ask>, why: &Arc<str>) -> bool {
    let until = Instant::now() + FAILED;
    loop {
        tokio::select! {
            () = sleep_until(until) => return true,
            ask = asked.recv() => match ask {
                Some(ask) => _ = ask.answer.send(Err(CountError::Unreachable(why.clone()))),
                None => return false,
            },
        }
    }
}

async fn connect(settings: &Settings, at: usize) -> Result<Box<dyn Io>, String> {
    let (host, port) = &settings.nodes[at];
    let stream = dial("rate_limit.gateway", host, *port, settings.timeout).await;
    let stream = stream.map_err(|error| error.to_string())?;
    _ = stream.set_nodelay(true);
    let Some(config) = &settings.tls else {
        return Ok(Box::new(stream));
    };
    let shaken = timeout(settings.timeout, tls::connect(config.clone(), host, stream)).await;
    let shaken = shaken.map_err(|_| format!("{host}:{port}: the TLS handshake takes too long"))?;
    Ok(Box::new(shaken.map_err(|error| error.to_string())?))
}

type Answer = oneshot::Sender<Result<Counted, CountError>>;

/// What is on its way.
#[derive(Default)]
struct Pending {
    next: i32,
    answers: HashMap<i32, Answer, ahash::RandomState>,
    due: VecDeque<(Instant, i32)>,
}

impl Pending {
    fn send(&mut self, ask: Ask, within: Duration, out: &mut Vec<u8>) {
        let mut id = self.next;
        while self.answers.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        self.next = id.wrapping_add(1);
        let mut windows = Vec::new();
        ask.windows.encode(&mut windows);
        let request = Request {
            id: Id::Number(id),
            bucket: BUCKET,
            key: &ask.key,
            method: Method::Count,
            count: None,
            all: false,
            skip_response: false,
            lease: 0,
            windows: &windows,
        };
        request.encode(out);
        self.due.push_back((Instant::now() + within, id));
        self.answers.insert(id, ask.answer);
    }

    fn answered(&mut self, response: Response<'_>) {
        let Id::Number(id) = response.id else { return };
        let Some(answer) = self.answers.remove(&id) else {
            return; // too late
        };
        _ = answer.send(match response.body {
            Body::Count(counted) => Ok(counted),
            _ => Err(CountError::Unreachable("its node is silent".into())),
        });
    }

    /// Gives up what is late; whether there was any.
    fn expire(&mut self, now: Instant) -> bool {
        let mut late = false;
        while let Some((_, id)) = self.due.pop_front_if(|(due, _)| *due <= now) {
            if let Some(answer) = self.answers.remove(&id) {
                late = true;
                _ = answer.send(Err(CountError::Timeout));
            }
        }
        late
    }

    fn next_due(&mut self) -> Option<Instant> {
        let answers = &self.answers;
        while self
            .due
            .pop_front_if(|(_, id)| !answers.contains_key(id))
            .is_some()
        {}
        self.due.front().map(|(due, _)| *due)
    }
}

/// Sends and receives until the connection ends or is silent; `Ok` once nobody asks any more.
async fn serve(
    io: Box<dyn Io>,
    settings: &Settings,
    asked: &mut mpsc::Receiver<Ask>,
) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(io);
    let mut pending = Pending::default();
    let (mut batch, mut out, mut sent, mut input) = (Vec::new(), Vec::new(), 0, Vec::new());
    let never = Instant::now() + Duration::from_secs(u32::MAX.into());
    let mut heard = Instant::now();
    loop {
        let due = pending.next_due();
        let room = out.is_empty() && pending.answers.len() < PENDING_MAX;
        input.reserve(16 * 1024);
        tokio::select! {
            came = asked.recv_many(&mut batch, BATCH_MAX), if room => {
                if came == 0 {
                    return Ok(());
                }
                if pending.answers.is_empty() {
                    heard = Instant::now(); // it had nothing to say
                }
                for ask in batch.drain(..) {
                    pending.send(ask, settings.timeout, &mut out);
                }
            }
            written = write.write(&out[sent..]), if sent < out.len() => {
                sent += written?;
                if sent == out.len() {
                    (sent, out) = (0, { out.clear(); out });
                    write.flush().await?;
                }
            }
            came = read.read_buf(&mut input) => {
                if came? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                heard = Instant::now();
                let mut done = 0;
                while let Some(frame) =
                    split(&input[done..], RESPONSE_BYTES_MAX).map_err(io::Error::other)?
                {
                    done += frame.bytes;
                    pending.answered(Response::decode(frame.body).map_err(io::Error::other)?);
                }
                input.drain(..done);
            }
            () = sleep_until(due.unwrap_or(never)), if due.is_some() => {
                let now = Instant::now();
                if pending.expire(now) && now - heard >= settings.timeout {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it is silent"));
                }
            }
        }
    }
}
