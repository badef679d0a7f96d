//! Connections to gRPC upstreams of one worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ahash::AHashMap;
use bytes::Bytes;
use h2::client::SendRequest;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use crate::conf::UpstreamKeepalive;
use crate::proxy::clock::recent;
use crate::proxy::forward::open;
use crate::proxy::http1::head::HEAD_BYTES_MAX;
use crate::proxy::pool::Key;

/// Most calls that share a connection, even if the upstream allows more; then another is opened.
const CALLS_MAX: usize = 100;
/// What an upstream may send of one response, and of all responses of a connection, before the
/// client takes it, bytes.
const CALL_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// What waits in memory to be sent on one connection, bytes.
const SEND_BUFFER: usize = 256 * 1024;

/// Open HTTP/2 connections of one worker, by where they lead.
pub(crate) struct Connections {
    lanes: RefCell<AHashMap<Key, Rc<Lane>>>,
    /// One task for each connection; they end with this.
    drivers: RefCell<JoinSet<()>>,
    keepalive: UpstreamKeepalive,
}

/// The connections to one place.
#[derive(Default)]
struct Lane {
    open: RefCell<Vec<Open>>,
    /// Whether somebody opens another one; the others wait for it instead of opening their own.
    is_opening: Cell<bool>,
    opened: Notify,
}

struct Open {
    sender: SendRequest<Bytes>,
    calls: u64,
    active: Rc<Cell<usize>>,
    used: Instant,
    ended: Rc<Cell<bool>>,
}

/// A call's place on its connection, until this is dropped.
pub(crate) struct Seat(Rc<Cell<usize>>);

impl Seat {
    fn take(active: &Rc<Cell<usize>>) -> Seat {
        active.set(active.get() + 1);
        Seat(active.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A connection for one call.
pub(crate) struct Chosen {
    pub(crate) sender: SendRequest<Bytes>,
    pub(crate) seat: Seat,
    /// Whether it had carried a call before.
    pub(crate) reused: bool,
}

impl Connections {
    /// None, with these limits.
    pub(crate) fn new(keepalive: UpstreamKeepalive) -> Connections {
        Connections {
            lanes: RefCell::default(),
            drivers: RefCell::default(),
            keepalive,
        }
    }

    /// A connection with room for one more call, opened if there is none.
    ///
    /// # Errors
    /// It cannot be opened, or the other end does not speak HTTP/2.
    pub(crate) async fn choose(
        &self,
        key: &Key,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Chosen> {
        let lane = self
            .lanes
            .borrow_mut()
            .entry(key.clone())
            .or_default()
            .clone();
        loop {
            if let Some(chosen) = lane.ready(self.keepalive.max_requests) {
                return Ok(chosen);
            }
            if !lane.is_opening.get() {
                break;
            }
            lane.opened.notified().await;
        }
        let _opening = Opening::new(&lane);
        let stream = open(key, tls).await?;
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(io::Error::other)?;
        let active = Rc::default();
        let seat = Seat::take(&active);
        let ended = Rc::new(Cell::new(false));
        let flag = ended.clone();
        let mut drivers = self.drivers.borrow_mut();
        while drivers.try_join_next().is_some() {}
        drivers.spawn_local(async move {
            if let Err(error) = connection.await {
                debug!(%error, "an upstream's HTTP/2 connection ended");
            }
            flag.set(true);
        });
        if self.keepalive.pool_size > 0 {
            lane.open.borrow_mut().push(Open {
                sender: sender.clone(),
                calls: 1,
                active,
                used: recent(),
                ended,
            });
        }
        Ok(Chosen {
            sender,
            seat,
            reused: false,
        })
    }

    /// Lets go what has been idle for too long, or is closed.
    pub(crate) fn sweep(&self) {
        let idle_max = self.keepalive.idle_timeout;
        let now = Instant::now();
        self.lanes.borrow_mut().retain(|_, lane| {
            lane.open.borrow_mut().retain_mut(|open| {
                if open.active.get() > 0 {
                    open.used = now;
                }
                !open.ended.get() && idle_max.is_none_or(|idle_max| now - open.used < idle_max)
            });
            lane.is_opening.get() || !lane.open.borrow().is_empty()
        });
        let mut drivers = self.drivers.borrow_mut();
        while drivers.try_join_next().is_some() {}
    }
}

impl Lane {
    /// A connection that can take a call now.
    fn ready(&self, requests_max: Option<u64>) -> Option<Chosen> {
        let mut open = self.open.borrow_mut();
        // what was used up carries on with the calls it has, and closes behind them
        open.retain(|open| {
            !open.ended.get() && requests_max.is_none_or(|requests_max| open.calls < requests_max)
        });
        open.iter_mut().rev().find_map(|open| {
            let mut sender = open.sender.clone();
            let room = sender.current_max_send_streams().min(CALLS_MAX);
            if open.active.get() >= room {
                return None;
            }
            match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(())) => {
                    open.calls += 1;
                    open.used = recent();
                    Some(Chosen {
                        sender,
                        seat: Seat::take(&open.active),
                        reused: true,
                    })
                }
                Poll::Ready(Err(_)) => {
                    // it is going away
                    open.ended.set(true);
                    None
                }
                Poll::Pending => None,
            }
        })
    }
}

/// Somebody opens a connection, until this is dropped.
struct Opening<'a>(&'a Lane);

impl Opening<'_> {
    fn new(lane: &Lane) -> Opening<'_> {
        lane.is_opening.set(true);
        Opening(lane)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.is_opening.set(false);
        self.0.opened.notify_waiters();
    }
}
