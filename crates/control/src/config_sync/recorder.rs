//! Contacts with data planes, on their way to the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sallyport_store::{NodeSeen, Store};
use tokio::sync::mpsc;
use tracing::warn;
use uuid::Uuid;

/// Contacts that may wait; links wait for room beyond that.
const QUEUE_MAX: usize = 1024;

/// Takes contacts.
#[derive(Clone)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<NodeSeen>,
    links: Arc<Mutex<Links>>,
}

/// Which link of a data plane is the newest.
#[derive(Default)]
struct Links {
    begun: u64,
    newest: HashMap<Key, u64>,
}

/// A control plane and one of its data planes.
type Key = (Uuid, Uuid);

/// Where contacts arrive.
pub(crate) type Inbox = mpsc::Receiver<NodeSeen>;

impl Recorder {
    pub(super) fn new() -> (Recorder, Inbox) {
        let (sender, inbox) = mpsc::channel(QUEUE_MAX);
        let links = Arc::default();
        (Recorder { sender, links }, inbox)
    }

    /// For a link that begins.
    pub(super) fn link(&self) -> Contacts {
        let mut links = self.links();
        links.begun += 1;
        Contacts {
            recorder: self.clone(),
            serial: links.begun,
            key: None,
        }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The contacts of one link. A data plane that came back may have an older link that nobody closed
/// yet: what still arrives there tells nothing any more.
pub(super) struct Contacts {
    recorder: Recorder,
    serial: u64,
    key: Option<Key>,
}

impl Contacts {
    pub(super) async fn seen(&mut self, node: NodeSeen) {
        let key = (node.control_plane, node.id);
        self.key = Some(key);
        let is_newest = {
            let mut links = self.recorder.links();
            let newest = links.newest.entry(key).or_insert(self.serial);
            *newest = (*newest).max(self.serial);
            *newest == self.serial
        };
        if is_newest {
            // Only fails when the control plane stops; the next contact will tell the same.
            let _ = self.recorder.sender.send(node).await;
        }
    }
}

impl Drop for Contacts {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut links = self.recorder.links();
        if links.newest.get(&key) == Some(&self.serial) {
            links.newest.remove(&key);
        }
    }
}

/// Stores contacts until every [`Recorder`] and all [`Contacts`] are gone. What arrives during one write goes into the
/// next as a whole, so ten thousand data planes cost a few transactions a second.
pub(crate) async fn record(store: Store, mut inbox: Inbox) {
    let mut batch = Vec::new();
    while inbox.recv_many(&mut batch, QUEUE_MAX).await > 0 {
        let count = batch.len();
        if let Err(error) = store.record_nodes(std::mem::take(&mut batch)).await {
            warn!(%error, count, "could not store contacts with data planes");
        }
    }
}
