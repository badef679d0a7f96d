//! Writes to one control plane, which would wait for each other at its head's lock: those that wait
//! in this process are committed together, each behind a savepoint of its own. So they share one
//! commit and one connection, and those of other control planes find theirs free. Nobody hears of
//! any before all of them are committed.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use super::OPERATION_MAX;
use super::keeper::Keeper;
use super::pool::Pool;
use super::session::{Mode, Session};
use crate::sql::{Conn, Op, Outcome, Tx};
use crate::{Head, StorageFailure, StoreError};

/// Writes that wait in all lanes; more callers wait to hand theirs in.
const WAITING_MAX: usize = 256;
/// Writes that are committed together. A server looks up faster what has no more than 64 savepoints.
const TOGETHER_MAX: usize = 32;
/// No write joins a transaction that is older, so that the first one does not wait for long.
const TOGETHER_TIME_MAX: Duration = Duration::from_millis(50);

/// One write. It is handed the open transaction, or why there is none.
type Work = Box<dyn for<'t> FnOnce(Result<&'t mut Tx, StorageFailure>) -> Running<'t, Turn> + Send>;
type Running<'t, T> = Pin<Box<dyn Future<Output = T> + Send + 't>>;

struct Job {
    work: Work,
    /// Its place among those that wait.
    _place: OwnedSemaphorePermit,
}

/// What a write came to inside the transaction.
struct Turn {
    state: TurnState,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TurnState {
    /// What it wrote is to stay.
    Stays,
    /// It was refused, or a statement failed: what it wrote is to be undone.
    Undone,
    /// It did not end in time, and a statement of it still runs.
    Late,
}

/// Tells a caller what became of its write, once the transaction has ended as said.
type End = Box<dyn FnOnce(Result<(), StorageFailure>) + Send>;

/// The lanes that somebody waits in, by control plane.
pub(super) struct Lanes {
    waiting: Mutex<HashMap<Uuid, VecDeque<Job>>>,
    room: Arc<Semaphore>,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes {
            waiting: Mutex::default(),
            room: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }
}

impl Lanes {
    /// Puts a write into the lane of its control plane. The first one there leads: it gets a task
    /// that works until nobody waits.
    pub(super) async fn enter<T: Send + 'static>(
        self: &Arc<Self>,
        cp: Uuid,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
        spawn: impl FnOnce(Lead),
    ) -> Result<T, StoreError> {
        let place = Arc::clone(&self.room).acquire_owned().await;
        let (answer, wait) = oneshot::channel();
        let job = Job {
            work: work(answer, op),
            _place: place.map_err(|_| StorageFailure::Closed)?,
        };
        let leads = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let leads = !waiting.contains_key(&cp);
            waiting.entry(cp).or_default().push_back(job);
            leads
        };
        if leads {
            let lanes = Arc::clone(self);
            spawn(Lead {
                lanes,
                cp,
                left: false,
            });
        }
        match wait.await {
            Ok(outcome) => outcome,
            Err(_) => Err(panicked()),
        }
    }
}

fn work<T: Send + 'static>(
    answer: oneshot::Sender<Result<T, StoreError>>,
    op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
) -> Work {
    Box::new(move |tx| {
        Box::pin(async move {
            let (outcome, state) = match tx {
                Err(failure) => (Err(failure.into()), TurnState::Undone),
                Ok(tx) => match timeout(OPERATION_MAX, caught(op(tx))).await {
                    Ok(Some(Ok(value))) => (Ok(value), TurnState::Stays),
                    Ok(Some(Err(fail))) => (Err(StoreError::from(fail)), TurnState::Undone),
                    Ok(None) => (Err(panicked()), TurnState::Undone),
                    Err(_) => (Err(late().into()), TurnState::Late),
                },
            };
            let end: End = Box::new(move |committed| {
                // what was refused may have been refused because of a write that is undone now
                _ = answer.send(committed.map_err(StoreError::from).and(outcome));
            });
            Turn { state, end }
        })
    })
}

/// The right to work for a lane, until nobody waits in it. Dropped early, as when the runtime ends,
/// it takes those that wait along: they hear that, and the next one leads.
pub(super) struct Lead {
    lanes: Arc<Lanes>,
    cp: Uuid,
    /// Whether the lane is another leader's by now, or nobody's.
    left: bool,
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.left {
            self.lock().remove(&self.cp);
        }
    }
}

impl Lead {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, VecDeque<Job>>> {
        let waiting = self.lanes.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one who waits.
    fn next(&self) -> Option<Job> {
        self.lock().get_mut(&self.cp)?.pop_front()
    }

    /// As [`Lead::next`]; when there is none the lane is free for another leader.
    fn next_or_leave(&mut self) -> Option<Job> {
        let mut waiting = self.lock();
        let next = waiting.get_mut(&self.cp).and_then(VecDeque::pop_front);
        if next.is_none() {
            waiting.remove(&self.cp);
            drop(waiting);
            self.left = true;
        }
        next
    }

    /// Works until nobody waits.
    pub(super) async fn work(mut self, pool: Arc<Pool>, keeper: Arc<Keeper>) {
        while let Some(first) = self.next_or_leave() {
            let (permit, session) = match connection(&pool).await {
                Ok(got) => got,
                Err(failure) => {
                    self.refuse_all(first, &failure).await;
                    continue;
                }
            };
            let mut tx = Tx::new(Conn::Postgres(session));
            let (ends, outcome) = self.together(&mut tx, first).await;
            let outcome = outcome.map(|announced| keeper.announce(announced));
            if let Conn::Postgres(session) = tx.conn {
                pool.give(session);
            }
            drop(permit);
            for end in ends {
                end(outcome.clone());
            }
        }
    }

    /// Without a connection nobody who waits now has to wait for another try.
    async fn refuse_all(&self, first: Job, failure: &StorageFailure) {
        let mut next = Some(first);
        while let Some(job) = next {
            let turn = (job.work)(Err(failure.clone())).await;
            (turn.end)(Ok(()));
            next = self.next();
        }
    }

    /// One transaction, for a job and those that wait behind it: how to tell them, and what to tell
    /// watchers if it was committed.
    async fn together(
        &self,
        tx: &mut Tx,
        first: Job,
    ) -> (Vec<End>, Result<Vec<(Uuid, Option<Head>)>, StorageFailure>) {
        let began = Instant::now();
        let (mut ends, mut announced) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(job) = next.take() {
            let alone = ends.is_empty();
            if !alone {
                session(tx).mark();
            }
            tx.reset();
            let Turn { state, end } = (job.work)(Ok(&mut *tx)).await;
            ends.push(end);
            match state {
                TurnState::Stays => announced.append(&mut tx.heads),
                TurnState::Late => return (ends, Err(late())),
                // With nothing before it, it takes the transaction along.
                TurnState::Undone if alone => {
                    session(tx).roll_back().await;
                    return (ends, Ok(announced));
                }
                TurnState::Undone => {
                    tx.locked = None;
                    if let Err(error) = session(tx).undo().await {
                        return (ends, Err(super::failure(&error)));
                    }
                }
            }
            if ends.len() < TOGETHER_MAX && began.elapsed() < TOGETHER_TIME_MAX {
                next = self.next();
            }
        }
        let mut changed: Vec<Uuid> = announced.iter().map(|(cp, _)| *cp).collect();
        changed.sort_unstable();
        changed.dedup();
        let committing = session(tx).commit(Mode::Write, &changed);
        let committed = match timeout(OPERATION_MAX, committing).await {
            Ok(committed) => committed.map_err(|fail| match StoreError::from(fail) {
                StoreError::Storage(failure) => failure,
                other => StorageFailure::Engine(other.to_string()),
            }),
            Err(_) => Err(late()),
        };
        (ends, committed.map(|()| announced))
    }
}

fn panicked() -> StoreError {
    StorageFailure::Engine("the operation panicked".to_owned()).into()
}

/// Runs an operation to its end; `None` if it panics, which is a bug in that one only.
async fn caught<T>(mut op: Op<'_, T>) -> Option<Outcome<T>> {
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| op.as_mut().poll(cx)));
        match polled {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

fn late() -> StorageFailure {
    StorageFailure::Unavailable("it did not answer in time".to_owned())
}

/// A connection with a transaction that begins with its first statement.
async fn connection(pool: &Pool) -> Result<(SemaphorePermit<'_>, Session), StorageFailure> {
    let taken = async {
        let permit = pool.permit().await?;
        Ok((permit, pool.take(Mode::Write).await?))
    };
    let taken: Result<_, StoreError> = match timeout(OPERATION_MAX, taken).await {
        Ok(taken) => taken,
        Err(_) => {
            let busy = "too many wait for it".to_owned();
            return Err(StorageFailure::Unavailable(busy));
        }
    };
    taken.map_err(|error| match error {
        StoreError::Storage(failure) => failure,
        other => StorageFailure::Engine(other.to_string()),
    })
}

fn session(tx: &mut Tx) -> &mut Session {
    match &mut tx.conn {
        Conn::Postgres(session) => session,
        Conn::Sqlite(_) => unreachable!("this engine makes transactions on PostgreSQL only"),
    }
}

#[cfg(test)]
mod tests {
    use sallyport_testkit::Postgres;
    use uuid::Uuid;

    use crate::StoreError;
    use crate::postgres::Engine;
    use crate::sql::args;

    /// Writes of one lane, which share a transaction: one is refused after it wrote, one after a
    /// statement failed; the others stay. One that panics is told so, and the lane goes on.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_of_several_in_one_transaction_is_undone_alone() {
        let Some(server) = Postgres::shared() else {
            return;
        };
        let engine = Engine::connect(&server.database()).await.unwrap();
        let cp = Uuid::from_u128(1);
        let write = async |name: &'static str, then: &'static str| {
            engine
                .write_to(cp, move |tx| {
                    Box::pin(async move {
                        let sql =
                            "INSERT INTO setting (name, value, updated_ms) VALUES (?1, '1', 1)";
                        tx.run(sql, args![name]).await?;
                        match then {
                            "refuse" => Err(StoreError::NotFound.into()),
                            "panic" => panic!("a bug"),
                            "" => Ok(()),
                            sql => tx.run(sql, &[]).await.map(|_| ()),
                        }
                    })
                })
                .await
        };
        for round in 0..3 {
            let (first, refused, one, failed, other) = tokio::join!(
                write(["first 0", "first 1", "first 2"][round], ""),
                write("refused", "refuse"),
                write(["one 0", "one 1", "one 2"][round], ""),
                write("failed", "SELECT 1 / 0"),
                write(["other 0", "other 1", "other 2"][round], ""),
            );
            assert_eq!((first, one, other), (Ok(()), Ok(()), Ok(())));
            assert_eq!(refused, Err(StoreError::NotFound));
            let failed = failed.unwrap_err().to_string();
            assert!(failed.contains("division by zero"), "{failed}");
            let panicked = write("panicked", "panic").await.unwrap_err().to_string();
            assert!(panicked.contains("panicked"), "{panicked}");
        }
        let names = engine.read(|tx| {
            Box::pin(async {
                let sql = "SELECT name FROM setting ORDER BY name";
                tx.all(sql, &[], |row| row.text(0)).await
            })
        });
        let expected = [
            "first 0", "first 1", "first 2", "one 0", "one 1", "one 2", "other 0", "other 1",
            "other 2",
        ];
        assert_eq!(names.await.unwrap(), expected);
        engine.close().await;
    }
}
