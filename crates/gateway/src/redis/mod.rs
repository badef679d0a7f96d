//! Connections to the Redis servers that plugins count in.
//!
//! One connection for each server and worker, kept open and pipelined: commands go out in order,
//! and answers come back in order. No task reads it. Whoever waits for an answer drives the
//! connection for all who wait; see [`link`].

mod link;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use sallyport_plugins::{Redis, RedisAnswer, RedisCommand, RedisServer};

use link::Link;

/// Servers that one worker keeps a connection to; past this, idle ones are dropped.
const LINKS_MAX: usize = 64;

/// The way to Redis servers from all workers of a gateway.
pub(crate) struct Links {
    /// Tells this gateway's links from those of another in the same process.
    id: u64,
    verified: Arc<ClientConfig>,
    unverified: Arc<ClientConfig>,
}

/// The links of one worker, by gateway and server.
type Known = HashMap<(u64, Arc<RedisServer>), Rc<Link>>;

thread_local! {
    /// A worker is a thread.
    static LINKS: RefCell<Known> = RefCell::default();
}

impl Links {
    /// No connections yet. The configurations are for servers whose certificate is verified, and
    /// for those whose is not.
    pub(crate) fn new(verified: &ClientConfig, unverified: &ClientConfig) -> Links {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let without_alpn = |config: &ClientConfig| {
            let mut config = config.clone();
            config.alpn_protocols.clear();
            Arc::new(config)
        };
        Links {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            verified: without_alpn(verified),
            unverified: without_alpn(unverified),
        }
    }

    fn link(&self, server: &Arc<RedisServer>) -> Rc<Link> {
        LINKS.with_borrow_mut(|links| {
            let key = (self.id, server.clone());
            if let Some(link) = links.get(&key) {
                return link.clone();
            }
            if links.len() >= LINKS_MAX {
                links.retain(|_, link| Rc::strong_count(link) > 1);
            }
            let tls = server.tls.as_ref().map(|tls| match tls.verify {
                true => self.verified.clone(),
                false => self.unverified.clone(),
            });
            let link = Rc::new(Link::new(server.clone(), tls));
            links.insert(key, link.clone());
            link
        })
    }
}

impl Redis for Links {
    fn ask(&self, server: &Arc<RedisServer>, command: RedisCommand) -> RedisAnswer {
        let link = self.link(server);
        Box::pin(async move { link.ask(&command).await })
    }

    fn tell(&self, server: &Arc<RedisServer>, command: RedisCommand) {
        self.link(server).tell(&command);
    }

    fn later(&self, after: Duration, task: Pin<Box<dyn Future<Output = ()>>>) {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            task.await;
        });
    }
}

#[cfg(test)]
mod tests;
