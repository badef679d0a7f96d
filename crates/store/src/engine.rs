//! The two engines behind one interface: a write is a transaction, and so is a read.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use uuid::Uuid;

use crate::sql::{Op, Tx};
use crate::{Heads, StoreError, postgres, sqlite};

/// What a [`crate::Store`] runs on, and how often it was asked.
pub(crate) struct Engine {
    pub(crate) on: On,
    operations: AtomicU64,
}

/// The two engines.
pub(crate) enum On {
    Sqlite(sqlite::Engine),
    Postgres(postgres::Engine),
}

impl Engine {
    pub(crate) fn new(on: On) -> Engine {
        Engine {
            on,
            operations: AtomicU64::new(0),
        }
    }

    /// Reads and writes that were handed in so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// The engine, for one more operation.
    fn asked(&self) -> &On {
        self.operations.fetch_add(1, Ordering::Relaxed);
        &self.on
    }

    /// Runs `op` in a write transaction; commits if it succeeds, undoes everything otherwise. It
    /// goes on when the caller does not wait for it any more.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.asked() {
            On::Sqlite(engine) => engine.write(op).await,
            On::Postgres(engine) => engine.write(op).await,
        }
    }

    /// As [`Engine::write`], for what locks the head of this control plane first: of those that
    /// wait, several are committed together, each undone alone if it is refused.
    pub(crate) async fn write_to<T: Send + 'static>(
        &self,
        cp: Uuid,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.asked() {
            On::Sqlite(engine) => engine.write(op).await,
            On::Postgres(engine) => engine.write_to(cp, op).await,
        }
    }

    /// Runs `op` in a read transaction, which sees one state of the database.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.asked() {
            On::Sqlite(engine) => engine.read(op).await,
            On::Postgres(engine) => engine.read(op).await,
        }
    }

    /// Runs `op` to look something up: its statements need not see one state.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.asked() {
            On::Sqlite(engine) => engine.read(op).await,
            On::Postgres(engine) => engine.look(op).await,
        }
    }

    /// As [`Engine::look`], for a few rows that are found by their keys, once in each request.
    pub(crate) async fn glance<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.asked() {
            On::Sqlite(engine) => engine.glance(op).await,
            On::Postgres(engine) => engine.look(op).await,
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Heads> {
        match &self.on {
            On::Sqlite(engine) => engine.watch(),
            On::Postgres(engine) => engine.watch(),
        }
    }

    pub(crate) async fn close(&self) {
        match &self.on {
            On::Sqlite(engine) => engine.close().await,
            On::Postgres(engine) => engine.close().await,
        }
    }
}
