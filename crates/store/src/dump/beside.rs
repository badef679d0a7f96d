//! Reading a dump on one thread while another one writes it to a database.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{DumpError, Loaded, Other};

/// Pieces that were read and wait to be written; each is about a mebibyte.
const AHEAD_MAX: usize = 4;

/// How often a full channel is looked at; a piece takes some milliseconds to be written.
const LOOK: Duration = Duration::from_millis(1);

/// What a writer says whose reader gave up.
const ENDED: &str = "reading ended";

enum Sent {
    Piece(Loaded),
    /// All were right.
    End,
}

/// What comes from the thread that reads.
pub(super) struct Pieces(mpsc::Receiver<Sent>);

impl Pieces {
    /// The next piece; `None` once all of them were right.
    pub(super) async fn next(&mut self) -> Result<Option<Loaded>, DumpError> {
        found(self.0.recv().await)
    }

    /// As [`Pieces::next`], for a thread that may wait.
    pub(super) fn wait(&mut self) -> Result<Option<Loaded>, DumpError> {
        found(self.0.blocking_recv())
    }
}

fn found(sent: Option<Sent>) -> Result<Option<Loaded>, DumpError> {
    match sent {
        Some(Sent::Piece(piece)) => Ok(Some(piece)),
        Some(Sent::End) => Ok(None),
        // Not told to anybody: why the reader gave up is.
        None => Err(DumpError::Damaged(ENDED.to_owned())),
    }
}

/// Waits for room; whether somebody still takes pieces. The caller may be on a thread of a runtime,
/// where a channel's own way to wait is refused.
fn hand_over(give: &mpsc::Sender<Sent>, mut sent: Sent) -> bool {
    loop {
        match give.try_send(sent) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(back)) => sent = back,
        }
        thread::sleep(LOOK);
    }
}

/// Calls `next` on this thread until it has no more, and `write` on another one.
///
/// # Errors
/// That of `next`, or else that of `write`, which goes first if it is about what was read; after
/// either one the other ends soon.
pub(super) fn beside<T: Send>(
    next: &mut dyn FnMut() -> Result<Option<Loaded>, Other>,
    write: impl FnOnce(Pieces) -> Result<T, DumpError> + Send,
) -> Result<T, DumpError> {
    thread::scope(|scope| {
        let (give, take) = mpsc::channel(AHEAD_MAX);
        let writer = scope.spawn(|| write(Pieces(take)));
        let read = loop {
            let (sent, last) = match next() {
                Ok(Some(piece)) => (Sent::Piece(piece), false),
                Ok(None) => (Sent::End, true),
                Err(error) => break Err(DumpError::Other(error)),
            };
            if !hand_over(&give, sent) || last {
                break Ok(());
            }
        };
        drop(give);
        let written = writer.join().unwrap_or_else(|panic| resume_unwind(panic));
        match (read, written) {
            // What could not be written was read before the reader gave up.
            (Err(_), Err(DumpError::Damaged(what))) if what != ENDED => {
                Err(DumpError::Damaged(what))
            }
            (read, written) => read.and(written),
        }
    })
}
