//! Contacts with data planes, on their way to the database.

use sallyport_store::{NodeSeen, Store};
use tokio::sync::mpsc;
use tracing::warn;

/// Contacts that may wait; links wait for room beyond that.
const QUEUE_MAX: usize = 1024;

/// Takes contacts.
#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<NodeSeen>);

/// Where contacts arrive.
pub(crate) type Inbox = mpsc::Receiver<NodeSeen>;

impl Recorder {
    pub(super) fn new() -> (Recorder, Inbox) {
        let (sender, inbox) = mpsc::channel(QUEUE_MAX);
        (Recorder(sender), inbox)
    }

    pub(super) async fn seen(&self, node: NodeSeen) {
        // Only fails when the control plane stops; the next contact will tell the same.
        let _ = self.0.send(node).await;
    }
}

/// Stores contacts until every [`Recorder`] is gone. What arrives during one write goes into the
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
