//! Reading a dump on one thread while another one writes it to a database.

use std::panic::resume_unwind;
use std::thread;

use tokio::sync::mpsc;

use super::{DumpError, Loaded, Other};

/// Pieces that were read and wait to be written; each is about a mebibyte.
const AHEAD_MAX: usize = 4;

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
        None => Err(DumpError::Damaged("reading ended".to_owned())),
    }
}

/// Calls `next` on this thread until it has no more, and `write` on another one.
///
/// # Errors
/// That of `next`, or else that of `write`; after either one the other ends soon.
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
            if give.blocking_send(sent).is_err() || last {
                break Ok(());
            }
        };
        drop(give);
        let written = writer.join().unwrap_or_else(|panic| resume_unwind(panic));
        read.and(written)
    })
}
