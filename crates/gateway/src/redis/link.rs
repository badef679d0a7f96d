//! One connection to one server: made when it is needed, shared by all who ask.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustls::ClientConfig;
use sallyport_plugins::{RedisCommand, RedisError, RedisServer, RedisValue};
use sallyport_runtime::{dial, tls};
use sallyport_wire::redis::{Reply, decode, encode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

/// How long a failure stands before the server is dialled again.
const FAILED: Duration = Duration::from_secs(1);
/// Commands that may wait for an answer at a time.
const WAITING_MAX: usize = 10_000;
/// Bytes that may wait to be sent when nobody waits for their answer.
const UNSENT_MAX: usize = 1 << 20;

trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// The way to one server from one worker.
pub(super) struct Link {
    server: Arc<RedisServer>,
    /// How the connection is encrypted, if it is.
    tls: Option<Arc<ClientConfig>>,
    state: RefCell<State>,
    /// Told whenever dialling ends.
    dialled: Notify,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    dialling: bool,
    /// The latest failure, until a connection stands again.
    failed: Option<(Instant, RedisError)>,
}

/// An open connection.
struct Open {
    io: Box<dyn Io>,
    unsent: Vec<u8>,
    unread: Vec<u8>,
    /// Who waits, in the order of the commands.
    waiting: VecDeque<Rc<Slot>>,
    /// Answers that came.
    answers: u64,
}

/// The place of one answer.
#[derive(Default)]
struct Slot(RefCell<Waiting>);

#[derive(Default)]
struct Waiting {
    answer: Option<Result<Reply, RedisError>>,
    waker: Option<Waker>,
}

impl Slot {
    fn answer(&self, answer: Result<Reply, RedisError>) {
        let mut waiting = self.0.borrow_mut();
        waiting.answer = Some(answer);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }
}

/// Somebody who waits. When it is gone, answered or not, another who waits takes over the
/// connection: only the waker that looked last is woken by the system.
struct Asking<'a> {
    link: &'a Link,
    slot: Rc<Slot>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.slot.0.borrow_mut().waker = None;
        let state = self.link.state.borrow();
        if let Some(open) = &state.open {
            open.wake_one();
        }
    }
}

impl Link {
    pub(super) fn new(server: Arc<RedisServer>, tls: Option<Arc<ClientConfig>>) -> Link {
        Link {
            server,
            tls,
            state: RefCell::default(),
            dialled: Notify::new(),
        }
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn ask(&self, command: &RedisCommand) -> Result<RedisValue, RedisError> {
        let mut again = true;
        loop {
            self.open().await?;
            let Some((slot, used)) = self.push(command)? else {
                continue; // it broke while others were woken
            };
            let asking = Asking { link: self, slot };
            let answered = poll_fn(|cx| self.poll_answer(cx, &asking.slot));
            let answer = match timeout(self.server.timeout, answered).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.fail(RedisError::Timeout);
                    return Err(RedisError::Timeout);
                }
            };
            drop(asking);
            match answer {
                // the server closes connections that are idle for long, and this may be one
                Err(RedisError::Connection(_)) if used && again => again = false,
                Err(error) => return Err(error),
                Ok(reply) => return value(reply),
            }
        }
    }

    /// Sends a command if there is a connection, and lets its answer go.
    pub(super) fn tell(&self, command: &RedisCommand) {
        let mut state = self.state.borrow_mut();
        let Some(open) = &mut state.open else {
            return;
        };
        if open.unsent.len() > UNSENT_MAX || open.waiting.len() >= WAITING_MAX {
            return;
        }
        encode(command, &mut open.unsent);
        open.waiting.push_back(Rc::default());
        let mut cx = Context::from_waker(Waker::noop());
        if open.poll_send(&mut cx).is_pending() {
            open.wake_one();
        }
    }

    /// Makes sure that there is a connection; one caller dials for all.
    async fn open(&self) -> Result<(), RedisError> {
        loop {
            {
                let mut state = self.state.borrow_mut();
                if state.open.is_some() {
                    return Ok(());
                }
                if !state.dialling {
                    match &state.failed {
                        Some((when, error)) if when.elapsed() < FAILED => {
                            return Err(error.clone());
                        }
                        _ => state.dialling = true,
                    }
                    break;
                }
            }
            self.dialled.notified().await;
        }
        let dialling = Dialling(self);
        let made = match timeout(self.server.timeout, self.connect()).await {
            Ok(made) => made,
            Err(_) => Err(RedisError::Timeout),
        };
        let result = match made {
            Ok(io) => {
                let mut state = self.state.borrow_mut();
                if state.failed.take().is_some() {
                    info!(server = ?self.server, "Redis is back");
                }
                state.open = Some(Open {
                    io,
                    unsent: Vec::new(),
                    unread: Vec::new(),
                    waiting: VecDeque::new(),
                    answers: 0,
                });
                Ok(())
            }
            Err(error) => {
                self.fail(error.clone());
                Err(error)
            }
        };
        drop(dialling);
        result
    }

    /// Dials and logs in.
    async fn connect(&self) -> Result<Box<dyn Io>, RedisError> {
        let server = &*self.server;
        let gone = |error: &dyn std::fmt::Display| RedisError::Connection(error.to_string().into());
        let stream = dial("redis", &server.host, server.port, server.timeout)
            .await
            .map_err(|error| gone(&error))?;
        let mut io: Box<dyn Io> = match (&server.tls, &self.tls) {
            (Some(tls), Some(config)) => {
                let stream = tls::connect(config.clone(), &tls.server_name, stream);
                Box::new(stream.await.map_err(|error| gone(&error))?)
            }
            _ => Box::new(stream),
        };
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        let database = server.database.to_string();
        if let Some(password) = &server.password {
            let user = server.username.iter().map(String::as_bytes);
            let login = [&b"AUTH"[..]].into_iter().chain(user);
            commands.push(login.chain([password.as_bytes()]).collect());
        }
        if server.database != 0 {
            commands.push(vec![b"SELECT", database.as_bytes()]);
        }
        let mut open = Open {
            io,
            unsent: Vec::new(),
            unread: Vec::new(),
            waiting: VecDeque::new(),
            answers: 0,
        };
        for command in commands {
            encode(&command, &mut open.unsent);
            let slot: Rc<Slot> = Rc::default();
            open.waiting.push_back(slot.clone());
            let answer = poll_fn(|cx| {
                let driven = open.poll_drive(cx);
                let answer = slot.0.borrow_mut().answer.take();
                match (answer, driven) {
                    (Some(answer), _) => Poll::Ready(answer),
                    (None, Poll::Ready(error)) => Poll::Ready(Err(error)),
                    (None, Poll::Pending) => Poll::Pending,
                }
            });
            value(answer.await?)?;
        }
        io = open.io;
        Ok(io)
    }

    /// Puts a command in line. With the place of its answer comes whether the connection has
    /// served before; `None` if there is no connection.
    fn push(&self, command: &RedisCommand) -> Result<Option<(Rc<Slot>, bool)>, RedisError> {
        let mut state = self.state.borrow_mut();
        let Some(open) = &mut state.open else {
            return Ok(None);
        };
        if open.waiting.len() >= WAITING_MAX {
            let reason = "too many commands wait for an answer";
            return Err(RedisError::Connection(reason.into()));
        }
        encode(command, &mut open.unsent);
        let slot: Rc<Slot> = Rc::default();
        open.waiting.push_back(slot.clone());
        Ok(Some((slot, open.answers > 0)))
    }

    fn poll_answer(
        &self,
        cx: &mut Context<'_>,
        slot: &Rc<Slot>,
    ) -> Poll<Result<Reply, RedisError>> {
        if slot.0.borrow().answer.is_none() {
            let driven = match &mut self.state.borrow_mut().open {
                Some(open) => open.poll_drive(cx),
                None => Poll::Pending,
            };
            if let Poll::Ready(error) = driven {
                self.fail(error);
            }
        }
        let mut waiting = slot.0.borrow_mut();
        match waiting.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Closes the connection; nobody who waits gets an answer.
    fn fail(&self, error: RedisError) {
        let open = {
            let mut state = self.state.borrow_mut();
            let open = state.open.take();
            // a connection that served and ended may be made again at once
            let served = open.as_ref().is_some_and(|open| open.answers > 0);
            if !served || error == RedisError::Timeout {
                if state.failed.is_none() {
                    warn!(server = ?self.server, %error, "Redis is gone");
                }
                state.failed = Some((Instant::now(), error.clone()));
            }
            open
        };
        for slot in open.iter().flat_map(|open| &open.waiting) {
            slot.answer(Err(error.clone()));
        }
    }
}

/// Somebody who dials. When it is gone, connected or not, others may.
struct Dialling<'a>(&'a Link);

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().dialling = false;
        self.0.dialled.notify_waiters();
    }
}

impl Open {
    /// Sends and receives as much as goes now; ready only when the connection is lost.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<RedisError> {
        match self.try_drive(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(error) => Poll::Ready(RedisError::Connection(error.to_string().into())),
        }
    }

    fn try_drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(error);
        }
        loop {
            let mut part = [0; 4096];
            let mut part = ReadBuf::new(&mut part);
            if let Err(error) = ready!(Pin::new(&mut *self.io).poll_read(cx, &mut part)) {
                return Poll::Ready(error);
            }
            if part.filled().is_empty() {
                return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend_from_slice(part.filled());
            if let Err(error) = self.deliver() {
                return Poll::Ready(error);
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut *self.io).poll_write(cx, &self.unsent))?;
            self.unsent.drain(..sent);
        }
        // what TLS holds back
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn deliver(&mut self) -> io::Result<()> {
        let mut taken = 0;
        loop {
            match decode(&self.unread[taken..]) {
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                Ok(None) => break,
                Ok(Some((reply, bytes))) => {
                    taken += bytes;
                    let Some(slot) = self.waiting.pop_front() else {
                        return Err(io::Error::other("an answer that nobody asked for"));
                    };
                    self.answers += 1;
                    slot.answer(Ok(reply));
                }
            }
        }
        self.unread.drain(..taken);
        Ok(())
    }

    fn wake_one(&self) {
        let waker = self
            .waiting
            .iter()
            .find_map(|slot| slot.0.borrow_mut().waker.take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn value(reply: Reply) -> Result<RedisValue, RedisError> {
    Ok(match reply {
        Reply::Error(reason) => return Err(RedisError::Refused(reason.into())),
        Reply::Nil => RedisValue::Nil,
        Reply::Integer(number) => RedisValue::Integer(number),
        Reply::Bytes(bytes) => RedisValue::Bytes(bytes),
        Reply::List(list) => {
            RedisValue::List(list.into_iter().map(value).collect::<Result<_, _>>()?)
        }
    })
}
