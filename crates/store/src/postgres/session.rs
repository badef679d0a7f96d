//! One connection, its prepared statements, and the transaction on it.

use std::collections::HashMap;
use std::pin::pin;

use tokio_postgres::{Client, RowStream, Statement};
use uuid::Uuid;

use crate::sql::{Arg, Outcome, Row};

/// Statements that are kept prepared on a connection; lists have many forms.
const STATEMENTS_MAX: usize = 256;
/// The channel on which processes tell each other what they changed.
pub(super) const CHANNEL: &str = "sallyport_heads";

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Sees what others commit before it takes its lock, which is why each write locks first.
    Write,
    /// Sees one state from beginning to end.
    Read,
    /// Is one statement, or several that do not depend on each other: no transaction at all, and
    /// so one round trip instead of two.
    Look,
}

impl Mode {
    fn begin(self) -> &'static str {
        match self {
            Mode::Write => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Mode::Read | Mode::Look => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// Where the transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none.
    Idle,
    /// There is none and none is wanted.
    Bare,
    /// It begins with the first statement, in the same packet.
    Wanted(Mode),
    Begun,
    /// It has begun, and a savepoint goes ahead of the next statement, in the same packet.
    Marking,
    /// Nobody knows: the connection is not used again.
    Broken,
}

/// A connection to the database.
pub(crate) struct Session {
    pub(crate) client: Client,
    statements: HashMap<String, Statement>,
    state: State,
    /// Whether the transaction has a savepoint.
    marked: bool,
}

impl Session {
    pub(super) fn new(client: Client) -> Session {
        Session {
            client,
            statements: HashMap::new(),
            state: State::Idle,
            marked: false,
        }
    }

    /// Begins a transaction with the next statement.
    pub(super) fn begin(&mut self, mode: Mode) {
        self.marked = false;
        self.state = match mode {
            Mode::Look => State::Bare,
            mode => State::Wanted(mode),
        };
    }

    /// Whether the next transaction may use it.
    pub(super) fn is_usable(&self) -> bool {
        self.state == State::Idle && !self.client.is_closed()
    }

    /// What is written from here on can be undone by itself, until the next mark.
    pub(super) fn mark(&mut self) {
        if self.state == State::Begun {
            self.state = State::Marking;
        }
    }

    /// Undoes what was written since the mark.
    pub(super) async fn undo(&mut self) -> Result<(), tokio_postgres::Error> {
        if self.state != State::Marking {
            self.state = State::Broken;
            let sql = "ROLLBACK TO SAVEPOINT one";
            self.client.batch_execute(sql).await?;
        }
        self.state = State::Begun;
        Ok(())
    }

    /// Ends the transaction. For a write, the one notification of the commit goes with it, with
    /// the ids of the control planes that changed.
    pub(super) async fn commit(&mut self, mode: Mode, announced: &[Uuid]) -> Outcome<()> {
        if let State::Wanted(_) | State::Bare = self.state {
            self.state = State::Idle;
            return Ok(());
        }
        self.state = State::Broken;
        let end = match (mode, announced) {
            (Mode::Write, ids) if !ids.is_empty() => {
                // A payload holds 8,000 bytes; without ids it means "look at everything".
                let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
                let ids = if ids.len() > 100 {
                    "".to_owned()
                } else {
                    ids.join(",")
                };
                &format!("NOTIFY {CHANNEL}, '{ids}'; COMMIT")
            }
            _ => "COMMIT",
        };
        self.client.batch_execute(end).await?;
        self.state = State::Idle;
        Ok(())
    }

    /// Undoes the transaction; if that fails the server does it when the connection ends.
    pub(super) async fn roll_back(&mut self) {
        if let State::Wanted(_) | State::Bare = self.state {
            self.state = State::Idle;
            return;
        }
        self.state = State::Broken;
        if self.client.batch_execute("ROLLBACK").await.is_ok() {
            self.state = State::Idle;
        }
    }

    pub(crate) async fn run(&mut self, sql: &str, args: &[Arg<'_>]) -> Outcome<u64> {
        let stream = self.start(sql, args).await?;
        let mut stream = pin!(stream);
        while next(&mut stream).await?.is_some() {}
        Ok(stream.rows_affected().unwrap_or(0))
    }

    pub(crate) async fn each(
        &mut self,
        sql: &str,
        args: &[Arg<'_>],
        mut each: impl FnMut(&Row<'_>) -> Outcome<()> + Send,
    ) -> Outcome<()> {
        let stream = self.start(sql, args).await?;
        let mut stream = pin!(stream);
        while let Some(row) = next(&mut stream).await? {
            each(&Row::Postgres(&row))?;
        }
        Ok(())
    }

    async fn start(&mut self, sql: &str, args: &[Arg<'_>]) -> Outcome<RowStream> {
        let statement = self.prepared(sql).await?;
        let args = args.iter().copied();
        let ahead = match self.state {
            State::Wanted(mode) => mode.begin(),
            State::Marking if self.marked => "RELEASE SAVEPOINT one; SAVEPOINT one",
            State::Marking => "SAVEPOINT one",
            _ => return Ok(self.client.query_raw(&statement, args).await?),
        };
        self.marked |= self.state == State::Marking;
        self.state = State::Broken;
        // Both go out together: a transaction costs no round trip of its own.
        let (begun, stream) = tokio::join!(
            self.client.batch_execute(ahead),
            self.client.query_raw(&statement, args)
        );
        begun?;
        self.state = State::Begun;
        Ok(stream?)
    }

    async fn prepared(&mut self, sql: &str) -> Outcome<Statement> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&sql.replace('?', "$")).await?;
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// The next row of an answer.
async fn next(
    stream: &mut std::pin::Pin<&mut RowStream>,
) -> Result<Option<tokio_postgres::Row>, tokio_postgres::Error> {
    use futures_core::Stream as _;
    std::future::poll_fn(|cx| stream.as_mut().poll_next(cx))
        .await
        .transpose()
}
