//! The two engines behind one interface: a write is a transaction, and so is a read.

use tokio::sync::watch;
use uuid::Uuid;

use crate::sql::{Op, Tx};
use crate::{Heads, StoreError, postgres, sqlite};

/// What a [`crate::Store`] runs on.
pub(crate) enum Engine {
    Sqlite(sqlite::Engine),
    Postgres(postgres::Engine),
}

impl Engine {
    /// Runs `op` in a write transaction; commits if it succeeds, undoes everything otherwise. It
    /// goes on when the caller does not wait for it any more.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Engine::Sqlite(engine) => engine.write(op).await,
            Engine::Postgres(engine) => engine.write(op).await,
        }
    }

    /// As [`Engine::write`], for what locks the head of this control plane first: of those that
    /// wait, several are committed together, each undone alone if it is refused.
    pub(crate) async fn write_to<T: Send + 'static>(
        &self,
        cp: Uuid,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Engine::Sqlite(engine) => engine.write(op).await,
            Engine::Postgres(engine) => engine.write_to(cp, op).await,
        }
    }

    /// Runs `op` in a read transaction, which sees one state of the database.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Engine::Sqlite(engine) => engine.read(op).await,
            Engine::Postgres(engine) => engine.read(op).await,
        }
    }

    /// Runs `op` to look something up: its statements need not see one state.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Engine::Sqlite(engine) => engine.read(op).await,
            Engine::Postgres(engine) => engine.look(op).await,
        }
    }

    /// As [`Engine::look`], for a few rows that are found by their keys, once in each request.
    pub(crate) async fn glance<T: Send + 'static>(
        &self,
        op: impl for<'t> FnOnce(&'t mut Tx) -> Op<'t, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Engine::Sqlite(engine) => engine.glance(op).await,
            Engine::Postgres(engine) => engine.look(op).await,
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Heads> {
        match self {
            Engine::Sqlite(engine) => engine.watch(),
            Engine::Postgres(engine) => engine.watch(),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Engine::Sqlite(engine) => engine.close().await,
            Engine::Postgres(engine) => engine.close().await,
        }
    }
}
