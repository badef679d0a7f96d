//! The SQLite file `telemetry.db`: sums by minute and by hour.
//!
//! Nothing here is the truth about anything but traffic: the file can be deleted, and it is apart from
//! the state of the control plane so that no flood of telemetry delays a change of configuration.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use sallyport_wire::telemetry::{Dimensions, Sketch, StatusClass, Totals};
use uuid::Uuid;

const SCHEMA_VERSION: i64 = 1;
/// The tables but those of sums.
const SCHEMA: &str = "
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    control_plane BLOB NOT NULL,
    service BLOB,
    route BLOB,
    consumer BLOB,
    class INTEGER NOT NULL,
    upstream TEXT,
    overflow INTEGER NOT NULL
) STRICT;
CREATE TABLE node (id INTEGER PRIMARY KEY, uuid BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE run (
    control_plane BLOB NOT NULL,
    uuid BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    PRIMARY KEY (control_plane, uuid)
) STRICT, WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
";

/// The columns of a table of sums. `at` is in whole minutes or hours since the Unix epoch; node 0
/// stands for all.
const SUMS_SCHEMA: &str = "
    at INTEGER NOT NULL,
    series INTEGER NOT NULL,
    node INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    latency BLOB NOT NULL,
    upstream_latency BLOB NOT NULL,
    PRIMARY KEY (at, series, node)
";

/// How fine sums are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Grain {
    Minute,
    Hour,
}

impl Grain {
    pub(super) fn seconds(self) -> i64 {
        match self {
            Grain::Minute => 60,
            Grain::Hour => 3_600,
        }
    }

    fn table(self) -> &'static str {
        match self {
            Grain::Minute => "minute",
            Grain::Hour => "hour",
        }
    }
}

/// Where a row is: `at` in whole minutes or hours; node 0 is all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) at: i64,
    pub(super) series: i64,
    pub(super) node: i64,
}

/// Opens the file for writing, and makes it if it is not there.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    // what is wrong with it, the engine says better
    _ = options.open(path);
    let mut conn = Connection::open(path)?;
    conn.pragma_update(None, "page_size", 8_192)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.busy_timeout(Duration::from_secs(5))?;
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        let told =
            format!("it is from a newer build (version {found}, this knows {SCHEMA_VERSION})");
        return Err(rusqlite::Error::InvalidParameterName(told));
    }
    if found == 0 {
        let tx = conn.transaction()?;
        tx.execute_batch(SCHEMA)?;
        for table in [Grain::Minute, Grain::Hour].map(Grain::table) {
            let make = format!("CREATE TABLE {table} ({SUMS_SCHEMA}) STRICT, WITHOUT ROWID");
            tx.execute_batch(&make)?;
        }
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        tx.commit()?;
    }
    Ok(conn)
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

/// SQLite's integers are signed; sums never reach the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn id(blob: Option<Vec<u8>>) -> Option<Uuid> {
    blob.and_then(|blob| Uuid::from_slice(&blob).ok())
}

/// Every series: number, control plane and dimensions.
pub(super) fn all_series(conn: &Connection) -> rusqlite::Result<Vec<(i64, Uuid, Dimensions)>> {
    let mut query = conn.prepare_cached(
        "SELECT id, control_plane, service, route, consumer, class, upstream, overflow FROM series",
    )?;
    let all = query.query_map([], |row| {
        let upstream: Option<String> = row.get(6)?;
        let class: u16 = row.get(5)?;
        let control_plane = id(row.get(1)?).unwrap_or_default();
        let dimensions = Dimensions {
            service: id(row.get(2)?),
            route: id(row.get(3)?),
            consumer: id(row.get(4)?),
            class: StatusClass::of(class * 100),
            upstream: upstream.map(Arc::from),
            overflow: row.get(7)?,
        };
        Ok((row.get(0)?, control_plane, dimensions))
    })?;
    all.collect()
}

/// Adds a series; its number.
pub(super) fn add_series(
    conn: &Connection,
    control_plane: Uuid,
    of: &Dimensions,
) -> rusqlite::Result<i64> {
    let blob = |id: Option<Uuid>| id.map(|id| id.as_bytes().to_vec());
    conn.prepare_cached(
        "INSERT INTO series (control_plane, service, route, consumer, class, upstream, overflow)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        control_plane.as_bytes(),
        blob(of.service),
        blob(of.route),
        blob(of.consumer),
        of.class.hundreds(),
        of.upstream.as_deref(),
        of.overflow,
    ])?;
    Ok(conn.last_insert_rowid())
}

/// Deletes series without any sums; how many.
pub(super) fn delete_empty_series(conn: &Connection) -> rusqlite::Result<usize> {
    conn.execute(
        "DELETE FROM series WHERE id NOT IN (SELECT series FROM hour)
         AND id NOT IN (SELECT series FROM minute)",
        [],
    )
}

/// The number of a node, which gets one if it has none.
pub(super) fn node(conn: &Connection, uuid: Uuid) -> rusqlite::Result<i64> {
    conn.prepare_cached("INSERT OR IGNORE INTO node (uuid) VALUES (?1)")?
        .execute([uuid.as_bytes()])?;
    conn.prepare_cached("SELECT id FROM node WHERE uuid = ?1")?
        .query_row([uuid.as_bytes()], |row| row.get(0))
}

/// All nodes by number.
pub(super) fn nodes(conn: &Connection) -> rusqlite::Result<Vec<(i64, Uuid)>> {
    let mut query = conn.prepare_cached("SELECT id, uuid FROM node")?;
    let all = query.query_map([], |row| {
        Ok((row.get(0)?, id(row.get(1)?).unwrap_or_default()))
    })?;
    all.collect()
}

/// The last batch of a run that is stored; 0 for none.
pub(super) fn last_batch(
    conn: &Connection,
    control_plane: Uuid,
    run: Uuid,
) -> rusqlite::Result<u64> {
    let found: Option<i64> = conn
        .prepare_cached("SELECT sequence FROM run WHERE control_plane = ?1 AND uuid = ?2")?
        .query_row(params![control_plane.as_bytes(), run.as_bytes()], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(found.map_or(0, unsigned))
}

pub(super) fn set_last_batch(
    conn: &Connection,
    (control_plane, run): (Uuid, Uuid),
    sequence: u64,
    now: i64,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO run (control_plane, uuid, sequence, seen) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        control_plane.as_bytes(),
        run.as_bytes(),
        signed(sequence),
        now
    ])?;
    Ok(())
}

/// Forgets runs that were last heard of before a Unix second.
pub(super) fn delete_runs(conn: &Connection, before: i64) -> rusqlite::Result<usize> {
    conn.execute("DELETE FROM run WHERE seen < ?1", [before])
}

fn totals(row: &Row<'_>, from: usize) -> rusqlite::Result<Totals> {
    let sketch = |at: usize| -> rusqlite::Result<Sketch> {
        let blob = row.get_ref(at)?.as_blob()?;
        Ok(Sketch::from_bytes(blob).unwrap_or_default())
    };
    Ok(Totals {
        request_bytes: unsigned(row.get(from)?),
        response_bytes: unsigned(row.get(from + 1)?),
        latency: sketch(from + 2)?,
        upstream_latency: sketch(from + 3)?,
    })
}

const SUMS: &str = "request_bytes, response_bytes, latency, upstream_latency";

/// The sums of one row.
pub(super) fn row(
    conn: &Connection,
    grain: Grain,
    place: Place,
) -> rusqlite::Result<Option<Totals>> {
    let table = grain.table();
    conn.prepare_cached(&format!(
        "SELECT {SUMS} FROM {table} WHERE at = ?1 AND series = ?2 AND node = ?3"
    ))?
    .query_row([place.at, place.series, place.node], |row| totals(row, 0))
    .optional()
}

/// Sets the sums of one row.
pub(super) fn set_row(
    conn: &Connection,
    grain: Grain,
    place: Place,
    totals: &Totals,
) -> rusqlite::Result<()> {
    let table = grain.table();
    conn.prepare_cached(&format!(
        "INSERT OR REPLACE INTO {table} (at, series, node, {SUMS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
    ))?
    .execute(params![
        place.at,
        place.series,
        place.node,
        signed(totals.request_bytes),
        signed(totals.response_bytes),
        totals.latency.to_bytes(),
        totals.upstream_latency.to_bytes(),
    ])?;
    Ok(())
}

/// Calls `each` with every row from `from` up to before `to`, until that says to stop.
pub(super) fn rows<E: From<rusqlite::Error>>(
    conn: &Connection,
    grain: Grain,
    (from, to): (i64, i64),
    mut each: impl FnMut(Place, &dyn Fn() -> rusqlite::Result<Totals>) -> Result<(), E>,
) -> Result<(), E> {
    let table = grain.table();
    let mut query = conn.prepare_cached(&format!(
        "SELECT at, series, node, {SUMS} FROM {table} WHERE at >= ?1 AND at < ?2"
    ))?;
    let mut rows = query.query([from, to])?;
    while let Some(row) = rows.next()? {
        let place = Place {
            at: row.get(0)?,
            series: row.get(1)?,
            node: row.get(2)?,
        };
        each(place, &|| totals(row, 3))?;
    }
    Ok(())
}

/// Deletes rows before a time; how many.
pub(super) fn delete_rows(conn: &Connection, grain: Grain, before: i64) -> rusqlite::Result<usize> {
    let table = grain.table();
    conn.execute(&format!("DELETE FROM {table} WHERE at < ?1"), [before])
}

/// Deletes the rows of single nodes at a time.
pub(super) fn delete_nodes_of(conn: &Connection, grain: Grain, at: i64) -> rusqlite::Result<usize> {
    let table = grain.table();
    conn.execute(
        &format!("DELETE FROM {table} WHERE at = ?1 AND node <> 0"),
        [at],
    )
}

/// The first time for which there are rows of single nodes, from `from` on.
pub(super) fn first_with_nodes(
    conn: &Connection,
    grain: Grain,
    from: i64,
) -> rusqlite::Result<Option<i64>> {
    let table = grain.table();
    conn.query_row(
        &format!("SELECT min(at) FROM {table} WHERE at >= ?1 AND node <> 0"),
        [from],
        |row| row.get(0),
    )
}

/// The first time for which there are rows.
pub(super) fn first(conn: &Connection, grain: Grain) -> rusqlite::Result<Option<i64>> {
    let table = grain.table();
    conn.query_row(&format!("SELECT min(at) FROM {table}"), [], |row| {
        row.get(0)
    })
}

pub(super) fn state(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT value FROM state WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn set_state(conn: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO state (name, value) VALUES (?1, ?2)")?
        .execute(params![name, value])?;
    Ok(())
}
