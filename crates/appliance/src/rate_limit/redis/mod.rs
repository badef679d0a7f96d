//! Buckets and counts in a Redis or Valkey server instead of this process (contract entry
//! `rate_limit.redis`).
//!
//! One pipelined connection for all clients; each request is one script, so deciding and counting
//! are one step there. While the server is gone or late, requests are answered as their bucket type
//! says for an owner that cannot be asked.

mod script;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use sallyport_runtime::{dial, tls};
use sallyport_wire::rate_limit::{Method, Request, Response};
use sallyport_wire::redis::{Reply, decode, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::bucket::Now;
use super::cluster::Why;
use super::config::RedisSection;
use super::limits::count;
use super::server::{Outbox, OwnedRequest};
use super::types::Types;
use script::{Asked, Said};

/// How long connecting may take, with logging in.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The pause before the server is dialled again.
const RETRY: Duration = Duration::from_millis(500);
/// Requests without an answer at a time.
const PENDING_MAX: usize = 65_536;
/// Bytes that wait to be written.
const OUT_BYTES_MAX: usize = 16 * 1024 * 1024;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A request on its way.
struct Pending {
    due: Instant,
    asked: Asked,
    /// `None` for what nobody waits for.
    to: Option<(OwnedRequest, Arc<Outbox>)>,
}

#[derive(Default)]
struct State {
    up: bool,
    out: Vec<u8>,
    pending: VecDeque<Pending>,
}

/// The connection to the server, up or down.
pub(super) struct Redis {
    section: RedisSection,
    tls: Option<Arc<ClientConfig>>,
    state: Mutex<State>,
    /// There is something to write.
    written: Notify,
    told: AtomicBool,
}

/// What becomes of a request.
pub(super) enum Sent {
    /// The answer will be in the outbox.
    Asked,
    /// It is none for the server.
    Here,
    /// The server is not there.
    Silent,
}

impl Redis {
    pub(super) fn new(section: RedisSection, tls: Option<Arc<ClientConfig>>) -> Redis {
        Redis {
            section,
            tls,
            state: Mutex::default(),
            written: Notify::new(),
            told: AtomicBool::new(false),
        }
    }

    /// Asks the server what a client asked; the answer comes to its outbox.
    pub(super) fn ask(
        &self,
        types: &Types,
        request: &Request<'_>,
        now: Now,
        outbox: &Arc<Outbox>,
    ) -> Sent {
        let command = match (request.method, types.get(request.bucket)) {
            (Method::Count, _) => script::windows(request, now.unix_ms),
            (_, None) => None,
            (_, Some(known)) => {
                let limit = known.of.limit(known.of.select(request.key, now.unix_ms));
                match limit.unlimited {
                    true => None,
                    false => script::step(request, &limit.rule),
                }
            }
        };
        let Some((command, asked)) = command else {
            return Sent::Here;
        };
        let to = Some((OwnedRequest::from(request), outbox.clone()));
        match self.send(&command, asked, to) {
            true => Sent::Asked,
            false => Sent::Silent,
        }
    }

    /// Gives back what a WAIT had taken.
    pub(super) fn give_up(&self, types: &Types, request: &Request<'_>, now: Now) {
        let put = Request {
            method: Method::Put,
            all: false,
            count: count(request).and_then(|count| i32::try_from(count).ok()),
            ..*request
        };
        let Some(known) = types.get(put.bucket) else {
            return;
        };
        let limit = known.of.limit(known.of.select(put.key, now.unix_ms));
        if let Some((command, asked)) = script::step(&put, &limit.rule) {
            self.send(&command, asked, None);
        }
    }

    fn send(
        &self,
        command: &[Vec<u8>],
        asked: Asked,
        to: Option<(OwnedRequest, Arc<Outbox>)>,
    ) -> bool {
        let mut state = self.state();
        let full = state.pending.len() >= PENDING_MAX || state.out.len() >= OUT_BYTES_MAX;
        if !state.up || full {
            return false;
        }
        encode(command, &mut state.out);
        if let Some((_, outbox)) = &to {
            outbox.owe();
        }
        let due = Instant::now() + self.section.answer_within;
        state.pending.push_back(Pending { due, asked, to });
        drop(state);
        self.written.notify_one();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything on its way goes back.
    fn set_down(&self) {
        let State { pending, .. } = std::mem::take(&mut *self.state());
        for (request, outbox) in pending.into_iter().filter_map(|it| it.to) {
            outbox.give_back(request, Why::Silent);
        }
    }

    fn answered(&self, reply: &Reply) -> io::Result<()> {
        let Some(Pending { asked, to, .. }) = self.state().pending.pop_front() else {
            return Err(io::Error::other("an answer that nobody asked for"));
        };
        let Some((request, outbox)) = to else {
            return Ok(());
        };
        match script::said(asked, reply) {
            Some(Said::Now(body)) => {
                let skip = request.get().skip_response;
                outbox.pay(|out| {
                    if !skip {
                        Response::new(request.id.get(), body).encode(out);
                    }
                });
            }
            Some(Said::Later(ms, body)) => outbox.later(request, ms, body),
            None => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    warn!(?reply, "Redis does not do what it is asked");
                }
                outbox.give_back(request, Why::Silent);
            }
        }
        Ok(())
    }

    async fn connect(&self) -> io::Result<Box<dyn Io>> {
        let RedisSection { host, port, .. } = &self.section;
        let stream = dial("rate_limit.redis", host, *port, CONNECT_MAX).await;
        let stream = stream.map_err(io::Error::other)?;
        stream.set_nodelay(true)?;
        let mut stream: Box<dyn Io> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let secured = tls::connect(config.clone(), host, stream).await;
                Box::new(secured.map_err(io::Error::other)?)
            }
        };
        let database = self.section.database.to_string();
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        if let Some(password) = &self.section.password {
            let user = self.section.username.iter().map(String::as_bytes);
            let words = [&b"AUTH"[..]].into_iter().chain(user);
            commands.push(words.chain([password.0.as_bytes()]).collect());
        }
        commands.push(vec![b"SELECT", database.as_bytes()]);
        let mut out = Vec::new();
        for command in &commands {
            encode(command, &mut out);
        }
        stream.write_all(&out).await?;
        stream.flush().await?;
        let mut input = Vec::new();
        for _ in commands {
            loop {
                if let Some((reply, bytes)) = decode(&input).map_err(io::Error::other)? {
                    input.drain(..bytes);
                    match reply {
                        Reply::Error(why) => return Err(io::Error::other(why)),
                        _ => break,
                    }
                }
                if stream.read_buf(&mut input).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Ok(stream)
    }

    async fn read<R: AsyncRead + Unpin>(&self, mut stream: R) -> io::Result<()> {
        let mut input = Vec::new();
        loop {
            if stream.read_buf(&mut input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut done = 0;
            while let Some((reply, bytes)) = decode(&input[done..]).map_err(io::Error::other)? {
                done += bytes;
                self.answered(&reply)?;
            }
            input.drain(..done);
        }
    }

    async fn write<W: AsyncWrite + Unpin>(&self, mut stream: W) -> io::Result<()> {
        let mut batch = Vec::new();
        loop {
            self.written.notified().await;
            std::mem::swap(&mut batch, &mut self.state().out);
            stream.write_all(&batch).await?;
            stream.flush().await?;
            batch.clear();
        }
    }

    /// Ends when an answer is late: answers come in order, so all after it are late as well.
    async fn watch(&self) -> io::Result<()> {
        loop {
            let first = self.state().pending.front().map(|it| it.due);
            match first {
                Some(due) if due <= Instant::now() => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it is silent"));
                }
                Some(due) => sleep_until(due).await,
                // the first one that comes is not due before
                None => sleep(self.section.answer_within).await,
            }
        }
    }
}

/// Keeps the connection up until `stop`.
pub(super) async fn run(redis: Arc<Redis>, stop: CancellationToken) {
    let server = format!("{}:{}", redis.section.host, redis.section.port);
    let mut told = false;
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = timeout(CONNECT_MAX, redis.connect()) => connected,
        };
        match connected {
            Ok(Ok(stream)) => {
                told = false;
                redis.told.store(false, Ordering::Relaxed);
                redis.state().up = true;
                info!(server, "buckets are in Redis");
                let (read, write) = tokio::io::split(stream);
                let ended = tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    ended = redis.read(read) => ended,
                    ended = redis.write(write) => ended,
                    ended = redis.watch() => ended,
                };
                redis.set_down();
                if let Err(error) = ended {
                    warn!(server, %error, "Redis is gone, buckets are answered for as their types say");
                }
            }
            failed => {
                if !told {
                    told = true;
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "it does not answer".to_owned(),
                    };
                    warn!(server, error, "Redis cannot be reached, trying again");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(RETRY) => {}
        }
    }
}
