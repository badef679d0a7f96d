//! Idle upstream connections of one worker.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use ahash::AHashMap;
use tokio::time::Instant;

use super::clock::recent;
use super::upstream::Upstream;
use crate::conf::UpstreamKeepalive;

/// What two requests must share to share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Where it leads.
    pub(crate) address: SocketAddr,
    /// For TLS: the server name, and by whose rules it is spoken.
    pub(crate) tls: Option<(Box<str>, u64)>,
}

/// Idle upstream connections of one worker, the last used on top.
pub(crate) struct Pool {
    #[expect(clippy::vec_box, reason = "they move between requests all the time")]
    idle: RefCell<AHashMap<Key, Vec<Box<Upstream>>>>,
    keepalive: UpstreamKeepalive,
}

impl Pool {
    /// An empty pool with these limits.
    pub(crate) fn new(keepalive: UpstreamKeepalive) -> Pool {
        Pool {
            idle: RefCell::default(),
            keepalive,
        }
    }

    /// An idle connection that is still open, if there is one.
    pub(crate) async fn take(&self, key: &Key) -> Option<Box<Upstream>> {
        // a task that has used up its turn is told that nothing is ready: a closed connection
        // would look open
        tokio::task::coop::unconstrained(poll_fn(|cx| {
            loop {
                let Some(mut upstream) = self.pop(key) else {
                    return Poll::Ready(None);
                };
                if upstream.is_open(cx) {
                    return Poll::Ready(Some(upstream));
                }
            }
        }))
        .await
    }

    fn pop(&self, key: &Key) -> Option<Box<Upstream>> {
        self.idle.borrow_mut().get_mut(key)?.pop()
    }

    /// Keeps a connection for later, if it can be used again and within the limits.
    pub(crate) fn put(&self, mut upstream: Box<Upstream>) {
        upstream.lease = None;
        let UpstreamKeepalive {
            pool_size,
            max_requests,
            ..
        } = self.keepalive;
        if pool_size == 0
            || !upstream.is_reusable()
            || max_requests.is_some_and(|max| upstream.requests >= max)
        {
            return;
        }
        upstream.idle_since = recent();
        let mut idle = self.idle.borrow_mut();
        match idle.get_mut(&upstream.key) {
            Some(kept) => {
                if kept.len() >= pool_size {
                    kept.remove(0);
                }
                kept.push(upstream);
            }
            None => _ = idle.insert(upstream.key.clone(), vec![upstream]),
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self) {
        let Some(idle_max) = self.keepalive.idle_timeout else {
            return;
        };
        let now = Instant::now();
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|upstream| now - upstream.idle_since < idle_max);
            !kept.is_empty()
        });
    }
}
