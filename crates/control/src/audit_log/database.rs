//! The log's SQLite file: `audit.db`. Records are only ever added.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use sallyport_wire::audit_log::chain::{self, GENESIS};
use sallyport_wire::audit_log::{Event, Kind};

use super::error::AuditLogError;
use super::key::Key;

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE record (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    sig BLOB NOT NULL
) STRICT;
CREATE INDEX record_at ON record (at_ms);
CREATE TRIGGER record_is_not_changed BEFORE UPDATE ON record
    BEGIN SELECT RAISE(ABORT, 'records of the audit log are not changed'); END;
CREATE TRIGGER record_is_not_deleted BEFORE DELETE ON record
    BEGIN SELECT RAISE(ABORT, 'records of the audit log are not deleted'); END;
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE destination (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE delivery (name TEXT PRIMARY KEY, next_seq INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
";

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) sig: Vec<u8>,
}

impl Stored {
    /// The line of an export.
    pub(crate) fn line(&self) -> String {
        chain::signed(&self.text, &self.sig)
    }
}

/// The last record's number and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) hash: [u8; 32],
}

/// Which records to read.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    /// Only numbers above this one.
    pub(crate) after: u64,
    /// Only numbers below this one; the page then is the last one of them.
    pub(crate) before: Option<u64>,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    pub(crate) kind: Option<Kind>,
    pub(crate) records_max: usize,
    /// The page ends before the record that exceeds it, but has at least one.
    pub(crate) bytes_max: usize,
}

impl Range {
    /// Everything after a number, up to a page.
    pub(crate) fn after(after: u64, records_max: usize) -> Range {
        Range {
            after,
            before: None,
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            kind: None,
            records_max,
            bytes_max: 1 << 20,
        }
    }
}

/// Opens the file for writing, and makes it if it is not there.
pub(super) fn open(path: &Path) -> Result<Connection, AuditLogError> {
    let engine = |error: rusqlite::Error| AuditLogError::engine(path, &error);
    private_file(path).map_err(|source| AuditLogError::io(path, source))?;
    let mut conn = Connection::open(path).map_err(engine)?;
    prepare(&conn).map_err(engine)?;
    let found: i64 = conn
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(engine)?;
    if found > SCHEMA_VERSION {
        return Err(AuditLogError::TooNew {
            path: path.to_owned(),
            found,
            known: SCHEMA_VERSION,
        });
    }
    if found == 0 {
        let make = |conn: &mut Connection| {
            let tx = conn.transaction()?;
            tx.execute_batch(SCHEMA)?;
            tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            tx.commit()
        };
        make(&mut conn).map_err(engine)?;
    }
    Ok(conn)
}

fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.busy_timeout(Duration::from_secs(5))?;
    Ok(())
}

/// A connection that can only read; the file has to be there.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(5))?;
    Ok(conn)
}

fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path)
}

/// Keeps a second process out: two would fork the chain.
pub(super) fn lock(path: &Path) -> Result<File, AuditLogError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = private_file(&name).map_err(|source| AuditLogError::io(&name, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuditLogError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(AuditLogError::io(&name, source)),
    }
}

/// The last record.
pub(super) fn head(conn: &Connection) -> rusqlite::Result<Head> {
    let last = conn
        .prepare_cached("SELECT seq, text FROM record ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| {
            let text: String = row.get(1)?;
            Ok(Head {
                seq: number(row.get(0)?),
                hash: chain::hash(&text),
            })
        })
        .optional()?;
    Ok(last.unwrap_or(Head {
        seq: 0,
        hash: GENESIS,
    }))
}

/// Adds records in one transaction; the new head. On an error none is there, or all of them.
pub(super) fn append(
    conn: &mut Connection,
    key: &Key,
    mut head: Head,
    events: &[Event],
) -> rusqlite::Result<Head> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    {
        let mut insert = tx.prepare_cached(
            "INSERT INTO record (seq, at_ms, kind, text, sig) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for event in events {
            let seq = head.seq + 1;
            let text = event.text(seq, &head.hash);
            let sig = key.sign(&text);
            insert.execute(params![
                signed(seq),
                event.at_ms,
                event.kind().name(),
                text,
                sig
            ])?;
            head = Head {
                seq,
                hash: chain::hash(&text),
            };
        }
        let said = head_text(&head);
        set_state(&tx, "head", &chain::signed(&said, &key.sign(&said)))?;
    }
    tx.commit()?;
    Ok(head)
}

/// What is signed beside the records, so that records missing at the end are noticed.
pub(super) fn head_text(head: &Head) -> String {
    let hash = chain::hex(&head.hash);
    format!("{{\"head\":\"{hash}\",\"last\":{}}}", head.seq)
}

pub(super) fn state(conn: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("SELECT value FROM state WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn set_state(conn: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO state (name, value) VALUES (?1, ?2)")?
        .execute([name, value])?;
    Ok(())
}

/// A page of records, in the order of their numbers.
pub(super) fn records(conn: &Connection, range: &Range) -> rusqlite::Result<Vec<Stored>> {
    let order = if range.before.is_some() {
        "DESC"
    } else {
        "ASC"
    };
    let sql = format!(
        "SELECT seq, kind, text, sig FROM record
         WHERE seq > ?1 AND seq < ?2 AND at_ms BETWEEN ?3 AND ?4 AND (?5 IS NULL OR kind = ?5)
         ORDER BY seq {order} LIMIT ?6"
    );
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query(params![
        signed(range.after),
        range.before.map_or(i64::MAX, signed),
        range.from_ms,
        range.to_ms,
        range.kind.map(Kind::name),
        i64::try_from(range.records_max).unwrap_or(i64::MAX),
    ])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let kind: String = row.get(1)?;
        let record = Stored {
            seq: number(row.get(0)?),
            kind: Kind::from_name(&kind).unwrap_or(Kind::AuditLog),
            text: row.get(2)?,
            sig: row.get(3)?,
        };
        bytes += record.text.len();
        if bytes > range.bytes_max && !found.is_empty() {
            break;
        }
        found.push(record);
    }
    if range.before.is_some() {
        found.reverse();
    }
    Ok(found)
}

/// Bytes of the file.
pub(super) fn size(conn: &Connection) -> rusqlite::Result<u64> {
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let page: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    Ok(number(pages.saturating_mul(page)))
}

/// SQLite's integers are signed; counts of records never reach the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn number(signed: i64) -> u64 {
    u64::try_from(signed).unwrap_or(0)
}
