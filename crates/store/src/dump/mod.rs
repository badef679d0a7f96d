//! The whole database as text that either engine can read back.
//!
//! A dump is taken from one state of the database while others write to it. Tables and columns are
//! found in the schema, so that a later one cannot be forgotten; the schema has only integers, text
//! and bytes, in an order that both engines agree on, so what is dumped from one, loaded into the
//! other and dumped again is the same byte for byte. A row is one line, a JSON array: an integer as
//! number, text as string, bytes as a string of hexadecimal digits, nothing as `null`.
//!
//! [`dump`] and [`load`] block for as long as they take and run on any thread that may.

mod bare;
mod beside;
mod line;
mod order;
mod postgres;
mod sqlite;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::OpenError;

pub use sqlite::snapshot_file;

/// Lines are handed on when they have come to this many bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Where a database is.
#[derive(Clone)]
pub enum Database {
    /// A SQLite file.
    File(PathBuf),
    /// The URL of a PostgreSQL database; see [`crate::Store::connect`].
    Url(String),
}

/// Prints without the password of a URL.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Database::File(path) => f.debug_tuple("File").field(path).finish(),
            Database::Url(_) => f.write_str("Url(***)"),
        }
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// Signed, 64 bits.
    Int,
    /// Unicode text without NUL.
    Text,
    /// Any bytes.
    Bytes,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
}

/// A table, in the order of whose columns its rows stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// A piece of a dump.
#[derive(Debug)]
pub enum Piece<'a> {
    /// First of all: the schema version of the database.
    Schema(i64),
    /// A table begins. Tables come after those that they refer to.
    Table(&'a Table),
    /// Whole lines of the table that has begun.
    Rows {
        /// The lines, each with its line feed.
        lines: &'a [u8],
        /// How many.
        rows: u64,
    },
}

/// A piece of a dump on its way back.
#[derive(Debug)]
pub enum Loaded {
    /// A table begins.
    Table(Table),
    /// Whole lines of it.
    Rows(Vec<u8>),
}

/// An error of who takes pieces or gives them.
pub type Other = Box<dyn std::error::Error + Send + Sync>;

/// Why a dump or a load failed.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine failed.
    #[error("the database failed: {0}")]
    Engine(String),
    /// The schema holds what a dump cannot.
    #[error("column {column} of table {table} has the type {found}, which a dump cannot hold")]
    Type {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// A newer build made the dump.
    #[error(
        "it holds a database of schema version {found}, this build knows up to {known}; use the newer build that wrote it"
    )]
    TooNew {
        /// The version in the dump.
        found: i64,
        /// The newest of this build.
        known: i64,
    },
    /// There is something in the database that would be overwritten.
    #[error("the database {0} is not empty; load into an empty one")]
    NotEmpty(String),
    /// The dump does not fit the schema that it claims.
    #[error("{0}")]
    Damaged(String),
    /// Who takes or gives the pieces failed.
    #[error(transparent)]
    Other(Other),
}

/// Dumps the database, piece by piece, into `sink`.
///
/// A SQLite file may be in use by another process meanwhile; it is neither made nor changed.
///
/// # Errors
/// See [`DumpError`]; an error of `sink` ends it.
pub fn dump(
    from: &Database,
    sink: &mut dyn FnMut(Piece<'_>) -> Result<(), Other>,
) -> Result<(), DumpError> {
    match from {
        Database::File(path) => sqlite::dump(path, sink),
        Database::Url(url) => postgres::dump(url, sink),
    }
}

/// Loads a dump of the schema `version` into an empty database, and brings that up to date.
///
/// `next` gives the pieces, and `None` once it is sure that all were right: only then the load
/// counts. It is called on this thread while another one writes. On PostgreSQL it is one transaction;
/// a SQLite file that a failed load leaves is to be thrown away. The database may not be in use.
///
/// # Errors
/// See [`DumpError`]; an error of `next` ends it.
pub fn load(
    into: &Database,
    version: i64,
    next: &mut dyn FnMut() -> Result<Option<Loaded>, Other>,
) -> Result<(), DumpError> {
    match into {
        Database::File(path) => sqlite::load(path, version, next),
        Database::Url(url) => postgres::load(url, version, next),
    }
}

/// Bytes that the database takes on its disk, about.
///
/// # Errors
/// See [`DumpError`].
pub fn size_bytes(of: &Database) -> Result<u64, DumpError> {
    match of {
        Database::File(path) => Ok(sqlite::size_bytes(path)),
        Database::Url(url) => postgres::size_bytes(url),
    }
}

/// Collects lines and hands them on in chunks.
struct Chunks<'s> {
    lines: Vec<u8>,
    rows: u64,
    sink: &'s mut dyn FnMut(Piece<'_>) -> Result<(), Other>,
}

impl<'s> Chunks<'s> {
    fn new(sink: &'s mut dyn FnMut(Piece<'_>) -> Result<(), Other>) -> Chunks<'s> {
        Chunks {
            lines: Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4),
            rows: 0,
            sink,
        }
    }

    fn begin(&mut self, piece: Piece<'_>) -> Result<(), DumpError> {
        self.flush()?;
        (self.sink)(piece).map_err(DumpError::Other)
    }

    /// Ends the line that was written to `lines`.
    fn end_line(&mut self) -> Result<(), DumpError> {
        self.lines.push(b'\n');
        self.rows += 1;
        if self.lines.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DumpError> {
        if self.rows > 0 {
            let (lines, rows) = (&self.lines[..], self.rows);
            (self.sink)(Piece::Rows { lines, rows }).map_err(DumpError::Other)?;
            self.lines.clear();
            self.rows = 0;
        }
        Ok(())
    }
}

/// A table as the schema has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    table: Table,
    /// What its rows are ordered by.
    key: Vec<String>,
    /// The tables that it refers to.
    refers: Vec<String>,
}

impl Known {
    fn select(&self) -> String {
        let columns: Vec<String> = self
            .table
            .columns
            .iter()
            .map(|it| quoted(&it.name))
            .collect();
        let key: Vec<String> = self.key.iter().map(|name| quoted(name)).collect();
        format!(
            "SELECT {} FROM {} ORDER BY {}",
            columns.join(", "),
            quoted(&self.table.name),
            key.join(", ")
        )
    }
}

/// The table of the schema that a table of the dump is, if it has all its columns.
fn fitting<'k>(known: &'k [Known], table: &Table) -> Result<&'k Known, DumpError> {
    let found = known.iter().find(|it| it.table.name == table.name);
    let found = found.ok_or_else(|| {
        DumpError::Damaged(format!("there is no table {:?} in its schema", table.name))
    })?;
    let mut wanted: Vec<&Column> = table.columns.iter().collect();
    let mut there: Vec<&Column> = found.table.columns.iter().collect();
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    there.sort_by(|a, b| a.name.cmp(&b.name));
    if wanted != there {
        return Err(DumpError::Damaged(format!(
            "the columns of table {:?} are not those of its schema",
            table.name
        )));
    }
    Ok(found)
}

/// A name of the schema in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a declared type holds.
fn kind(table: &str, column: &str, declared: &str) -> Result<ColumnKind, DumpError> {
    match declared.to_ascii_uppercase().as_str() {
        "INTEGER" | "BIGINT" => Ok(ColumnKind::Int),
        "TEXT" => Ok(ColumnKind::Text),
        "BLOB" | "BYTEA" => Ok(ColumnKind::Bytes),
        _ => Err(DumpError::Type {
            table: table.to_owned(),
            column: column.to_owned(),
            found: declared.to_owned(),
        }),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
