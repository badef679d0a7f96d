//! Log queues: what log plugins tell waits here until its sink takes it, so that no request waits
//! for a sink.
//!
//! [`core`] decides, without a clock; the gateway empties the queues, see [`LogQueues`]. This crate
//! opens no socket and no file.

mod core;
mod custom_fields;
mod entry;
mod settings;
mod sink;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

pub use self::core::{Limits, Pushed, Queue, Step, Tries};
pub(crate) use self::custom_fields::CustomFields;
pub(crate) use self::entry::{array, custom_fields_by_lua, lines};
pub(crate) use self::settings::{QueueConfig, milliseconds, queue_field, queue_limits};
pub use self::sink::{Destination, Encode, HttpSink, Sink};

use crate::exchange::Env;

/// A queue as a plugin asks for it.
#[derive(Clone)]
pub struct QueueSpec {
    /// The plugin.
    pub plugin: &'static str,
    /// Queues of a plugin with one name are one queue. May hold parts of URLs: not for logs.
    pub name: String,
    /// What it may hold.
    pub limits: Limits,
    /// Where it is emptied to.
    pub destination: Arc<Destination>,
}

/// The queues of a gateway. Whoever implements it sends what is in them, and says in the log and
/// in metrics what was lost.
pub trait LogQueues: Send + Sync {
    /// The queue of this name. If it is there already, it goes on with these limits and this
    /// destination.
    fn open(&self, spec: &QueueSpec) -> Arc<dyn LogQueue>;
}

/// One queue.
pub trait LogQueue: Send + Sync {
    /// Takes an entry in and returns at once, whatever the sink does.
    fn push(&self, entry: Bytes);
}

/// A queue that is opened when its first entry comes.
pub(crate) struct Outlet {
    spec: QueueSpec,
    queue: OnceLock<Arc<dyn LogQueue>>,
}

impl Outlet {
    pub(crate) fn new(spec: QueueSpec) -> Outlet {
        Outlet {
            spec,
            queue: OnceLock::new(),
        }
    }

    pub(crate) fn push(&self, entry: impl Into<Bytes>, env: &Env<'_>) {
        let queue = self
            .queue
            .get_or_init(|| env.node.log_queues.open(&self.spec));
        queue.push(entry.into());
    }
}

/// Keeps nothing.
pub(crate) struct NoQueues;

impl LogQueues for NoQueues {
    fn open(&self, _: &QueueSpec) -> Arc<dyn LogQueue> {
        struct Nowhere;
        impl LogQueue for Nowhere {
            fn push(&self, _: Bytes) {}
        }
        Arc::new(Nowhere)
    }
}
