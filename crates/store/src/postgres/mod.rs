//! The engine of several processes: PostgreSQL, 14 or newer.
//!
//! An operation runs in a task of its own, so that a caller who goes away leaves neither half a
//! transaction nor a connection in the middle of one. Writers and readers have connections of
//! their own, so that writers who wait for each other leave the readers alone.

pub(crate) mod address;
pub(crate) mod dial;
mod keeper;
mod lanes;
pub(crate) mod migrations;
mod pool;
mod session;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::address::Address;
use self::dial::Dialler;
use self::keeper::Keeper;
use self::lanes::{Lanes, Lead};
use self::pool::Pool;
use self::session::Mode;
pub(crate) use self::session::Session;
use crate::sql::{Conn, Fail, Op, Outcome, Tx};
use crate::{Heads, OpenError, StorageFailure, StoreError};

/// Writes and reads that run at once; more wait.
const WRITERS: usize = 8;
const READERS: usize = 8;
/// The longest an operation may take, waiting for other writers included.
const OPERATION_MAX: Duration = Duration::from_secs(60);

/// What an error of PostgreSQL means for the caller.
pub(crate) fn failure(error: &tokio_postgres::Error) -> StorageFailure {
    let Some(said) = error.as_db_error() else {
        // Without an answer of the server it is the connection, or a value of ours.
        return StorageFailure::Unavailable(told(error));
    };
    let code = said.code();
    let again = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::QUERY_CANCELED,
    ];
    if *code == SqlState::DISK_FULL {
        StorageFailure::Full
    } else if again.contains(code) {
        StorageFailure::Unavailable(said.message().to_owned())
    } else {
        StorageFailure::Engine(format!("{} ({})", said.message(), code.code()))
    }
}

/// An error with its causes, which the library does not print by itself.
pub(crate) fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The connections, and the task that hears of other processes' writes.
pub(crate) struct Engine {
    writers: Arc<Pool>,
    readers: Arc<Pool>,
    lanes: Arc<Lanes>,
    keeper: Arc<Keeper>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Engine {
    pub(crate) async fn connect(url: &str) -> Result<Engine, OpenError> {
        let address = Address::parse(url).map_err(OpenError::Address)?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let dialler = Arc::new(Dialler::new(address, tasks.clone())?);
        let mut first = dialler.connect().await?;
        migrations::migrate(&mut first, &dialler.address().shown).await?;
        let keeper = Arc::new(Keeper::default());
        let listening = keeper.start(Arc::clone(&dialler), stop.clone());
        tasks.spawn(listening.await?);
        let writers = Arc::new(Pool::new(Arc::clone(&dialler), WRITERS));
        writers.give(first);
        Ok(Engine {
            writers,
            readers: Arc::new(Pool::new(dialler, READERS)),
            lanes: Arc::default(),
            keeper,
            tasks,
            stop,
        })
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Heads> {
        self.keeper.watch()
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let pool = Arc::clone(&self.writers);
        let keeper = Arc::clone(&self.keeper);
        self.run(pool, Mode::Write, Some(keeper), op).await
    }

    /// As [`Engine::write`], together with others that wait to write to this control plane.
    pub(crate) async fn write_to<T: Send + 'static>(
        &self,
        cp: Uuid,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.stop.is_cancelled() {
            return Err(StorageFailure::Closed.into());
        }
        let lead = |lead: Lead| {
            let (pool, keeper) = (Arc::clone(&self.writers), Arc::clone(&self.keeper));
            self.tasks.spawn(lead.work(pool, keeper));
        };
        self.lanes.enter(cp, op, lead).await
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(Arc::clone(&self.readers), Mode::Read, None, op)
            .await
    }

    pub(crate) async fn look<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(Arc::clone(&self.readers), Mode::Look, None, op)
            .await
    }

    async fn run<T: Send + 'static>(
        &self,
        pool: Arc<Pool>,
        mode: Mode,
        keeper: Option<Arc<Keeper>>,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.stop.is_cancelled() {
            return Err(StorageFailure::Closed.into());
        }
        let work = async move {
            let permit = timeout(OPERATION_MAX, pool.permit()).await;
            let busy = || StorageFailure::Unavailable("too many wait for it".to_owned());
            let permit = permit.map_err(|_| busy())??;
            let mut tx = Tx::new(Conn::Postgres(pool.take(mode).await?));
            tx.reset();
            // At the limit the connection goes, and the server undoes what was not committed.
            let late = || StorageFailure::Unavailable("it did not answer in time".to_owned());
            let outcome = timeout(OPERATION_MAX, perform(&mut tx, mode, op)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(late().into()));
            let Tx { conn, heads, .. } = tx;
            if let (Ok(_), Some(keeper)) = (&outcome, keeper) {
                keeper.announce(heads);
            }
            if let Conn::Postgres(session) = conn {
                pool.give(session);
            }
            drop(permit);
            Ok(outcome?)
        };
        match self.tasks.spawn(work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StorageFailure::Engine("the operation panicked".to_owned()).into()),
        }
    }

    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.writers.close().await;
        self.readers.close().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The connections end with their clients; the task that listens has to be told.
        self.stop.cancel();
    }
}

/// Runs an operation in a transaction and ends that.
async fn perform<T: Send>(
    tx: &mut Tx,
    mode: Mode,
    op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send,
) -> Outcome<T> {
    let outcome = op(&mut *tx).await;
    let announced: Vec<Uuid> = tx.heads.iter().map(|(cp, _)| *cp).collect();
    let Conn::Postgres(session) = &mut tx.conn else {
        unreachable!("this engine makes transactions on PostgreSQL only")
    };
    match outcome {
        Ok(value) => {
            session.commit(mode, &announced).await?;
            Ok(value)
        }
        Err(fail) => {
            session.roll_back().await;
            Err(fail)
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> StoreError {
        Fail::Postgres(error).into()
    }
}
