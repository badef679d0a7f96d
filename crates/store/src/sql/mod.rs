//! What the store does, in SQL that both engines run.
//!
//! Each operation is written once, over a [`Tx`]. The statements keep to what SQLite and PostgreSQL
//! share: `?1` placeholders, integers, text and bytes, no clock and no dice of the database's. What
//! differs is in two places only, [`Tx::lock_rows`] and [`Tx::lock_installation`]: SQLite has one
//! writer, PostgreSQL has as many as there are, so it locks the head of a control plane before it
//! looks at anything of it.

pub(crate) mod accounts;
pub(crate) mod around;
pub(crate) mod batch;
pub(crate) mod certificates;
pub(crate) mod change_log;
pub(crate) mod cluster;
pub(crate) mod control_planes;
pub(crate) mod delete;
pub(crate) mod drafts;
pub(crate) mod enrolment;
pub(crate) mod entities;
pub(crate) mod groups;
pub(crate) mod identity;
mod index;
pub(crate) mod ip_addresses;
pub(crate) mod kic;
pub(crate) mod list;
pub(crate) mod nodes;
pub(crate) mod past;
pub(crate) mod restore;
mod row;
pub(crate) mod teams;
pub(crate) mod tokens;

use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

pub(crate) use self::index::index_key;
pub(crate) use self::row::{Arg, Row};
use crate::postgres::Session;
use crate::{Head, StorageFailure, StoreError};

/// Why an operation inside a transaction ended; outside it is a [`StoreError`].
#[derive(Debug)]
pub(crate) enum Fail {
    Refused(StoreError),
    Sqlite(rusqlite::Error),
    Postgres(tokio_postgres::Error),
    /// A row that this build did not write.
    Damaged(String),
}

pub(crate) type Outcome<T> = Result<T, Fail>;

/// An operation at work in its transaction.
pub(crate) type Op<'t, T> = Pin<Box<dyn Future<Output = Outcome<T>> + Send + 't>>;

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Fail {
        Fail::Refused(error)
    }
}

impl From<StorageFailure> for Fail {
    fn from(failure: StorageFailure) -> Fail {
        Fail::Refused(failure.into())
    }
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Fail {
        Fail::Sqlite(error)
    }
}

impl From<tokio_postgres::Error> for Fail {
    fn from(error: tokio_postgres::Error) -> Fail {
        Fail::Postgres(error)
    }
}

impl From<Fail> for StoreError {
    fn from(fail: Fail) -> StoreError {
        let failure = match fail {
            Fail::Refused(error) => return error,
            Fail::Damaged(what) => StorageFailure::Engine(what),
            Fail::Sqlite(error) => crate::sqlite::failure(&error),
            Fail::Postgres(error) => crate::postgres::failure(&error),
        };
        StoreError::Storage(failure)
    }
}

/// Arguments of a statement.
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        &[$(crate::sql::Arg::from($value)),*]
    };
}
pub(crate) use args;

/// The connection below a transaction.
pub(crate) enum Conn {
    Sqlite(rusqlite::Connection),
    Postgres(Session),
}

/// A transaction, and what it will tell watchers once it is committed.
pub(crate) struct Tx {
    pub(crate) conn: Conn,
    pub(crate) heads: Vec<(Uuid, Option<Head>)>,
    /// The moment of the transaction, Unix microseconds.
    pub(crate) now_us: i64,
    /// The control plane whose head is locked, where to ask again is a round trip to the server.
    pub(crate) locked: Option<(Uuid, control_planes::Locked)>,
}

impl Tx {
    pub(crate) fn new(conn: Conn) -> Tx {
        Tx {
            conn,
            heads: Vec::new(),
            now_us: 0,
            locked: None,
        }
    }

    /// Remembers where a locked control plane stands, until the transaction ends or a part of it is
    /// undone. Only a [`Tx`] of PostgreSQL does, which is of one transaction.
    pub(crate) fn keep_locked(&mut self, cp: Uuid, locked: control_planes::Locked) {
        if let Conn::Postgres(_) = &self.conn {
            self.locked = Some((cp, locked));
        }
    }

    /// Forgets the transaction before; the next one is now.
    pub(crate) fn reset(&mut self) {
        self.heads.clear();
        self.now_us = now_us();
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.now_us / 1_000
    }

    /// Tells watchers where a control plane stands, or that it is gone.
    pub(crate) fn announce(&mut self, cp: Uuid, head: Option<Head>) {
        self.heads.push((cp, head));
    }

    /// What to put behind a SELECT so that its rows of `table` wait for other writers.
    pub(crate) fn lock_rows(&self, table: &str) -> String {
        match &self.conn {
            Conn::Sqlite(_) => String::new(),
            Conn::Postgres(_) => format!(" FOR UPDATE OF {table}"),
        }
    }

    /// As [`Tx::lock_rows`], but only keeps the rows from going away.
    pub(crate) fn keep_rows(&self) -> &'static str {
        match &self.conn {
            Conn::Sqlite(_) => "",
            Conn::Postgres(_) => " FOR KEY SHARE",
        }
    }

    /// The database's clock, Unix microseconds: of SQLite that of this process, which is its only
    /// one. It goes on within a transaction.
    pub(crate) async fn clock_us(&mut self) -> Outcome<i64> {
        match &self.conn {
            Conn::Sqlite(_) => Ok(now_us()),
            Conn::Postgres(_) => {
                let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT";
                self.only(sql, &[], |row| row.int(0)).await
            }
        }
    }

    /// Lets one writer at a time change what belongs to no control plane, and names of these.
    pub(crate) async fn lock_installation(&mut self) -> Outcome<()> {
        if let Conn::Postgres(_) = &self.conn {
            self.first("SELECT version FROM schema_version FOR UPDATE", &[], |_| {
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Runs a statement without an answer; how many rows it touched.
    pub(crate) async fn run(&mut self, sql: &str, args: &[Arg<'_>]) -> Outcome<u64> {
        row::check(args)?;
        match &mut self.conn {
            Conn::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                let touched = statement.execute(rusqlite::params_from_iter(args))?;
                Ok(u64::try_from(touched).unwrap_or(u64::MAX))
            }
            Conn::Postgres(session) => session.run(sql, args).await,
        }
    }

    /// Hands each row of the answer to `each`, without holding them all.
    pub(crate) async fn each(
        &mut self,
        sql: &str,
        args: &[Arg<'_>],
        mut each: impl FnMut(&Row<'_>) -> Outcome<()> + Send,
    ) -> Outcome<()> {
        row::check(args)?;
        match &mut self.conn {
            Conn::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(args))?;
                while let Some(row) = rows.next()? {
                    each(&Row::Sqlite(row))?;
                }
                Ok(())
            }
            Conn::Postgres(session) => session.each(sql, args, each).await,
        }
    }

    /// Every row of the answer.
    pub(crate) async fn all<T: Send>(
        &mut self,
        sql: &str,
        args: &[Arg<'_>],
        mut read: impl FnMut(&Row<'_>) -> Outcome<T> + Send,
    ) -> Outcome<Vec<T>> {
        let mut found = Vec::new();
        self.each(sql, args, |row| {
            found.push(read(row)?);
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// The first row of an answer that has few.
    pub(crate) async fn first<T: Send>(
        &mut self,
        sql: &str,
        args: &[Arg<'_>],
        mut read: impl FnMut(&Row<'_>) -> Outcome<T> + Send,
    ) -> Outcome<Option<T>> {
        let mut found = None;
        self.each(sql, args, |row| {
            if found.is_none() {
                found = Some(read(row)?);
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// The one row that a statement such as `INSERT … RETURNING` answers with.
    pub(crate) async fn only<T: Send>(
        &mut self,
        sql: &str,
        args: &[Arg<'_>],
        read: impl FnMut(&Row<'_>) -> Outcome<T> + Send,
    ) -> Outcome<T> {
        let found = self.first(sql, args, read).await?;
        found.ok_or_else(|| Fail::Damaged(format!("no answer to: {sql}")))
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain values with string keys are always JSON")
}

/// Integers of SQL are signed; revisions count single changes and never reach the sign.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
