//! The writer thread: writes that wait together are committed together, so that they share what a
//! commit costs, the wait for the disk above all. Each is one of its own all the same: it sees those
//! before it, takes its own step of its control plane's revision, and is
//! undone alone. Nobody hears of any before all of them are on the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::{connection, failure, now};
use crate::sql::{Op, Tx};
use crate::{Heads, StorageFailure, StoreError};

/// Writes that are committed together.
const TOGETHER_MAX: usize = 64;
/// No write joins a transaction that is older, so that the first one does not wait for long.
const TOGETHER_TIME_MAX: Duration = Duration::from_millis(20);

/// One write. It is handed the open transaction, or why there is none.
pub(super) type Job = Box<dyn FnOnce(Result<&mut Tx, StorageFailure>) -> Turn + Send>;

/// What a write came to inside the transaction.
pub(super) struct Turn {
    /// Whether what it wrote is to stay.
    stays: bool,
    /// The engine's failure, if it was that.
    failed: Option<StorageFailure>,
    /// Tells its caller what became of it, once the transaction has ended as said.
    end: End,
}

type End = Box<dyn FnOnce(Result<(), StorageFailure>) + Send>;

/// A write for the queue. Nobody waits any more if the caller was cancelled; it stands all the same.
pub(super) fn job<T: Send + 'static>(
    answer: oneshot::Sender<Result<T, StoreError>>,
    op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
) -> Job {
    Box::new(move |tx| {
        let outcome = match tx {
            Ok(tx) => now(op(tx)).map_err(StoreError::from),
            Err(failure) => Err(failure.into()),
        };
        Turn {
            stays: outcome.is_ok(),
            failed: match &outcome {
                Err(StoreError::Storage(failure)) => Some(failure.clone()),
                _ => None,
            },
            end: Box::new(move |committed| {
                // what was refused may have been refused because of a write that is undone now
                _ = answer.send(committed.map_err(StoreError::from).and(outcome));
            }),
        }
    })
}

/// Works until every sender is gone.
pub(super) fn work(mut tx: Tx, mut queue: mpsc::Receiver<Job>, heads: &watch::Sender<Heads>) {
    while let Some(first) = queue.blocking_recv() {
        together(&mut tx, first, &mut queue, heads);
    }
    if let Err(error) = connection(&tx).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "could not fold the write-ahead log into the database");
    }
}

/// One transaction, for a job and those that wait behind it.
fn together(
    tx: &mut Tx,
    first: Job,
    queue: &mut mpsc::Receiver<Job>,
    heads: &watch::Sender<Heads>,
) {
    if let Err(error) = run(tx, "BEGIN IMMEDIATE") {
        let Turn { end, .. } = first(Err(failure(&error)));
        return end(Err(failure(&error)));
    }
    let began = Instant::now();
    let (mut ends, mut announced) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    let mut outcome = Ok(());
    while let Some(job) = next.take() {
        let alone = ends.is_empty();
        match turn(tx, job, alone) {
            // With nothing before it, it took the transaction along.
            Ok(turn) if alone && !turn.stays => return (turn.end)(Ok(())),
            Ok(turn) => {
                ends.push(turn.end);
                if turn.stays {
                    announced.append(&mut tx.heads);
                }
            }
            Err(Lost { end, failure }) => {
                ends.extend(end);
                outcome = Err(failure);
                break;
            }
        }
        if ends.len() < TOGETHER_MAX && began.elapsed() < TOGETHER_TIME_MAX {
            next = queue.try_recv().ok();
        }
    }
    let outcome = outcome.and_then(|()| run(tx, "COMMIT").map_err(|error| failure(&error)));
    match &outcome {
        Ok(()) => tell(heads, announced),
        Err(_) => roll_back(tx),
    }
    for end in ends {
        end(outcome.clone());
    }
}

/// The transaction is gone, with all that was written in it.
struct Lost {
    /// Of the job that met this; a job that panicked has none.
    end: Option<End>,
    failure: StorageFailure,
}

/// Runs one job, behind a savepoint unless it is the first of its transaction: there it would cost
/// a copy of each page that is written, which tells with a large write. A panic is a bug in one
/// operation: what it wrote is undone, the others go on.
fn turn(tx: &mut Tx, job: Job, alone: bool) -> Result<Turn, Lost> {
    tx.reset();
    let lost = |end, error: &rusqlite::Error| Lost {
        end,
        failure: failure(error),
    };
    if !alone && let Err(error) = run(tx, "SAVEPOINT one") {
        let Turn { end, .. } = job(Err(failure(&error)));
        return Err(lost(Some(end), &error));
    }
    let done = catch_unwind(AssertUnwindSafe(|| job(Ok(tx))));
    if done.is_err() {
        tracing::error!("a database write panicked and was undone");
    }
    let stays = done.as_ref().is_ok_and(|turn| turn.stays);
    // Some failures, as that of a full disk, end the transaction by themselves.
    if connection(tx).is_autocommit() {
        let undone = || StorageFailure::Engine("the transaction was undone".to_owned());
        let (end, failed) = done.map_or((None, None), |turn| (Some(turn.end), turn.failed));
        let failure = failed.unwrap_or_else(undone);
        return Err(Lost { end, failure });
    }
    let ended = match (stays, alone) {
        (true, true) => Ok(()),
        (false, true) => run(tx, "ROLLBACK"),
        (true, false) => run(tx, "RELEASE one"),
        (false, false) => run(tx, "ROLLBACK TO one").and_then(|()| run(tx, "RELEASE one")),
    };
    match (done, ended) {
        (Ok(turn), Ok(())) => Ok(turn),
        (Err(_), Ok(())) => Ok(Turn {
            stays: false,
            failed: None,
            end: Box::new(|_| {}),
        }),
        (done, Err(error)) => Err(lost(done.ok().map(|turn| turn.end), &error)),
    }
}

/// Tells watchers of what is committed.
fn tell(heads: &watch::Sender<Heads>, announced: Vec<(uuid::Uuid, Option<crate::Head>)>) {
    if announced.is_empty() {
        return;
    }
    heads.send_modify(|heads| {
        for (cp, head) in announced {
            match head {
                Some(head) => heads.0.insert(cp, head),
                None => heads.0.remove(&cp),
            };
        }
    });
}

fn run(tx: &Tx, sql: &str) -> rusqlite::Result<()> {
    connection(tx).prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Ends what is left of a transaction; SQLite may have ended it itself, as on a full disk.
fn roll_back(tx: &Tx) {
    if !connection(tx).is_autocommit()
        && let Err(error) = run(tx, "ROLLBACK")
    {
        tracing::error!(%error, "could not undo a database write");
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::args;
    use crate::sqlite::Engine;
    use crate::{StorageFailure, StoreError};

    /// Writes that are handed in while the writer is busy, so that they share one transaction: one
    /// stays, one is refused after it wrote, one panics after it wrote, one stays.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_of_several_in_one_transaction_is_undone_alone() {
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine::open(&directory.path().join("store.sqlite")).unwrap();
        let write = async |name: &'static str, outcome: fn() -> Result<(), StoreError>| {
            engine
                .write(move |tx| {
                    Box::pin(async move {
                        let sql =
                            "INSERT INTO setting (name, value, updated_ms) VALUES (?1, '1', 1)";
                        tx.run(sql, args![name]).await?;
                        Ok(outcome()?)
                    })
                })
                .await
        };
        let busy = engine.write(|_| {
            Box::pin(async {
                std::thread::sleep(std::time::Duration::from_millis(10));
                Ok(())
            })
        });
        let (busy, one, refused, panicked, other) = tokio::join!(
            busy,
            write("one", || Ok(())),
            write("refused", || Err(StoreError::NotFound)),
            write("panicked", || panic!("a bug")),
            write("other", || Ok(())),
        );
        assert_eq!((busy, one, other), (Ok(()), Ok(()), Ok(())));
        assert_eq!(refused, Err(StoreError::NotFound));
        let Err(StoreError::Storage(StorageFailure::Engine(said))) = panicked else {
            panic!("{panicked:?}");
        };
        assert_eq!(said, "the write was abandoned");
        // and so is one without any before it
        let refused = write("refused", || Err(StoreError::NotFound)).await;
        assert_eq!(refused, Err(StoreError::NotFound));
        assert!(write("panicked", || panic!("a bug")).await.is_err());
        assert_eq!(write("third", || Ok(())).await, Ok(()));
        let names = engine.read(|tx| {
            Box::pin(async {
                let sql = "SELECT name FROM setting ORDER BY name";
                tx.all(sql, &[], |row| row.text(0)).await
            })
        });
        assert_eq!(names.await.unwrap(), ["one", "other", "third"]);
        engine.close().await;
    }
}
