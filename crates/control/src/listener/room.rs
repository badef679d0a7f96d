//! Room for connections, in which those that are not done with their handshake give way.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Room for so many connections.
///
/// When it is full, a newcomer takes the place of the oldest connection whose handshake is not over:
/// connections that say nothing cost those that are served nothing, and shut nobody out for longer
/// than a handshake takes. With no such connection it waits until one ends.
pub(super) struct Room {
    places: Arc<Semaphore>,
    unfinished: Arc<Unfinished>,
}

#[derive(Default)]
struct Unfinished(Mutex<Queue>);

/// By the order in which they came.
#[derive(Default)]
struct Queue {
    came: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

impl Unfinished {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, until it is dropped.
pub(super) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    unfinished: Arc<Unfinished>,
    number: u64,
    pushed_out: CancellationToken,
}

impl Room {
    pub(super) fn new(places: usize) -> Room {
        Room {
            places: Arc::new(Semaphore::new(places)),
            unfinished: Arc::default(),
        }
    }

    /// A place for a connection that was accepted.
    pub(super) async fn enter(&self) -> Place {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                self.push_out();
                // it is never closed
                Arc::clone(&self.places).acquire_owned().await.ok()
            }
        };
        let pushed_out = CancellationToken::new();
        let mut queue = self.unfinished.queue();
        let number = queue.came;
        queue.came += 1;
        queue.waiting.insert(number, pushed_out.clone());
        drop(queue);
        Place {
            _permit: permit,
            unfinished: Arc::clone(&self.unfinished),
            number,
            pushed_out,
        }
    }

    fn push_out(&self) {
        if let Some((_, oldest)) = self.unfinished.queue().waiting.pop_first() {
            oldest.cancel();
        }
    }
}

impl Place {
    /// The end of `handshake`; `None` if another connection needed the place before.
    pub(super) async fn unless_pushed_out<T>(
        &self,
        handshake: impl Future<Output = T>,
    ) -> Option<T> {
        let pushed_out: WaitForCancellationFuture<'_> = self.pushed_out.cancelled();
        let done = tokio::select! {
            () = pushed_out => return None,
            done = handshake => done,
        };
        self.unfinished.queue().waiting.remove(&self.number);
        Some(done)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unfinished.queue().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::{Duration, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_unfinished_handshake_gives_way_and_nothing_else() {
        let room = Room::new(3);
        let served = room.enter().await;
        assert_eq!(served.unless_pushed_out(ready(7)).await, Some(7));
        let mut silent = Vec::new();
        for _ in 0..2 {
            let place = room.enter().await;
            silent.push(tokio::spawn(async move {
                place.unless_pushed_out(pending::<()>()).await
            }));
        }
        // it is full: each newcomer pushes out the one that came first
        for at in 0..2 {
            let newcomer = room.enter().await;
            let told = (&mut silent[at]).await.unwrap();
            assert_eq!(told, None, "the oldest is {at}");
            assert_eq!(newcomer.unless_pushed_out(ready(at)).await, Some(at));
            silent.push(tokio::spawn(async move {
                // served now, however long it takes
                pending::<()>().await;
                drop(newcomer);
                None
            }));
        }
        assert_eq!(room.unfinished.queue().waiting.len(), 0);
        // nobody is left who could give way
        let enter = timeout(Duration::from_secs(3_600), room.enter()).await;
        assert!(enter.is_err(), "who is served was pushed out");
        drop(served);
        let last = room.enter().await;
        assert_eq!(room.unfinished.queue().waiting.len(), 1);
        drop(last);
        assert_eq!(room.unfinished.queue().waiting.len(), 0);
        for task in silent {
            task.abort();
        }
    }
}
